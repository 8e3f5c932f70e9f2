// What belongs to the page at `/`: its files, its events, the newest checkpoint as a model that a browser opens, and test samples to
// try it on. Read-only: anybody who reaches the port sees it.

import type { FastifyInstance } from 'fastify';
import type { NoSamples, Samples } from '../core/samples.ts';
import type { ServedModel } from '../record/latest-model.ts';
import { createEventStream, type EventStream, type NewsSource } from './event-stream.ts';
import { openVendorFile, readPageFiles } from './page-files.ts';

export interface PageSources {
  readonly news: NewsSource;
  readonly model: ServedModel;
  /** Called once, when the first page asks. */
  readonly samples: () => Samples | NoSamples;
}

/** Of everything that is served: nothing from elsewhere, nothing inline, nothing evaluated. */
export const policyWith = (scripts: string): string =>
  [
    "default-src 'none'",
    `script-src ${scripts}`,
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self' data: blob:",
    "worker-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ');

/** The thread that runs the model compiles WebAssembly. It has a policy of its own; the page itself may not. */
const MODEL_WORKER = 'model-worker.js';
const MODEL_WORKER_POLICY = policyWith("'self' 'wasm-unsafe-eval'");

const BYTES = 'application/octet-stream';
const EVENTS = 'text/event-stream; charset=utf-8';
const TOO_MANY_RETRY_SECONDS = '10';

/** Adds its routes; `headers` go with the answers that fastify does not send. Returns the stream, for who has news. */
export function addPage(
  app: FastifyInstance,
  sources: PageSources,
  headers: Readonly<Record<string, string>>,
): EventStream {
  const files = readPageFiles();
  const stream = createEventStream(sources.news);
  let read: Samples | NoSamples | null = null;
  const samples = (): Samples | NoSamples => (read ??= sources.samples());

  app.get('/', (_request, reply) => {
    const index = files.get('index.html');
    return reply.type(index?.type ?? BYTES).send(index?.content);
  });
  app.get<{ Params: { name: string } }>('/page/:name', (request, reply) => {
    const { name } = request.params;
    const file = files.get(name);
    if (file === undefined) return reply.callNotFound();
    if (name === MODEL_WORKER) void reply.header('content-security-policy', MODEL_WORKER_POLICY);
    return reply.type(file.type).send(file.content);
  });
  app.get<{ Params: { name: string } }>('/page/vendor/:name', (request, reply) => {
    const file = openVendorFile(request.params.name);
    if (file === null) return reply.callNotFound();
    return reply.type(file.type).header('content-length', file.bytes).send(file.stream);
  });
  app.get('/api/events', (request, reply) => {
    // Who asks for the head only would have a stream without an end, and nothing in it.
    if (request.method === 'HEAD') return reply.type(EVENTS).send();
    if (stream.open(request.raw, reply.raw, headers)) return reply.hijack();
    const message = `${stream.clients} pages are open, and no more are served`;
    return reply.code(503).header('retry-after', TOO_MANY_RETRY_SECONDS).send({ code: 'E_TOO_MANY', message });
  });
  app.get('/model/model.json', async (_request, reply) => {
    const manifest = await sources.model.manifest();
    if (manifest !== null) return reply.send(manifest);
    return reply.code(404).send({ code: 'E_NO_CHECKPOINT', message: 'there is no checkpoint yet' });
  });
  app.get<{ Params: { step: string } }>('/model/step-:step(^\\d+$)/weights.bin', async (request, reply) => {
    const weights = await sources.model.weights(Number(request.params.step));
    if (weights === null) return reply.callNotFound();
    return reply.type(BYTES).header('content-length', weights.bytes).send(weights.stream);
  });
  app.get('/api/samples', async () => {
    const all = samples();
    if ('because' in all) return all;
    const { values: _, ...header } = all;
    return header;
  });
  app.get('/api/samples/values', (_request, reply) => {
    const all = samples();
    return 'because' in all ? reply.callNotFound() : reply.type(BYTES).send(Buffer.from(all.values.buffer));
  });
  return stream;
}
