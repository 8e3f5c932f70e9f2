// What the coordinator shows over HTTP, read-only: the page, metrics, health, the run as JSON; and to workers the data set. The control
// endpoint for workers is attached to the same port by control.ts. No request changes anything, so what is shown needs no token.

import { createServer, type Server } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import fastify from 'fastify';
import { LockstepError } from '../../protocol/errors.ts';
import { wantsOpenMetrics, type Exposition } from '../../protocol/exposition.ts';
import type { RunView } from '../../protocol/run-view.ts';
import type { Tls } from '../../protocol/tls.ts';
import { addData, type ServedData } from './data-routes.ts';
import { targetsOf } from './discovery.ts';
import { addPage, policyWith, type PageSources } from './page-routes.ts';
import { paced } from './paced.ts';

export interface HttpOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** A socket that listens there already (a TCP handle of Node's); null or none: one is made. */
  readonly door?: unknown;
  /** Served over TLS with this; null or none: in plain HTTP. */
  readonly identity?: Tls['identity'];
  readonly view: () => RunView;
  /** @param accept the Accept header of who asks */
  readonly metrics: (accept?: string) => Promise<Exposition>;
  /** Told when an answer with metrics has been sent whole. */
  readonly onScraped?: () => void;
  readonly ready: () => { readonly ok: boolean; readonly because: string };
  /** None: without the page. */
  readonly page?: PageSources;
  /** Null or none: the job's data needs no files, or they are not to be had here. */
  readonly data?: ServedData | null;
}

export interface Http {
  /** An address that processes of this machine reach it at: loopback when it listens on all. */
  readonly url: string;
  readonly port: number;
  readonly server: Server;
  /** The socket that it listens on, for another process to keep. */
  readonly door: unknown;
  /** Tells pages what is new, when it is time for that; `nowMs` on a monotonic clock. */
  publish(nowMs: number): void;
  /** Tells pages the last news, and closes. */
  close(): Promise<void>;
}

const MAX_BODY_BYTES = 1024;
const REQUEST_TIMEOUT_MS = 30_000;

/** However many ask, these are made no oftener. */
const METRICS_EVERY_MS = 150;
const VIEW_EVERY_MS = 20;

const HEADERS = {
  'content-security-policy': policyWith("'self'"),
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
};

/** Listening on all addresses is not an address; loopback is one of them. */
function reachable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1';
  if (host === '::') return '[::1]';
  return host.includes(':') ? `[${host}]` : host;
}

/** A property that Node does not document. */
function handleOf(server: Server): unknown {
  const property = '_handle';
  return property in server ? server[property] : null;
}

/** Listens. Throws E_PORT_IN_USE or E_LISTEN. */
export async function startHttp(options: HttpOptions): Promise<Http> {
  const { identity = null } = options;
  const app = fastify({
    logger: false,
    serverFactory: (handler) =>
      identity === null ? createServer(handler) : createSecureServer({ ...identity }, handler),
    forceCloseConnections: true,
    bodyLimit: MAX_BODY_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    // A path that can't be decoded comes to no handler.
    frameworkErrors: (error, _request, reply) => {
      reply.hijack();
      reply.raw.writeHead(400, { ...HEADERS, 'content-type': 'application/json; charset=utf-8' });
      reply.raw.end(JSON.stringify({ code: 'E_REQUEST', message: error.message }));
    },
  });
  // Nothing takes a body: what is sent is not looked at.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, payload, done) => {
    payload.resume();
    done(null);
  });
  // Before anything else: a handler may be stricter or wider about its own.
  app.addHook('onRequest', async (_request, reply) => {
    void reply.headers(HEADERS);
  });
  const stream = options.page === undefined ? null : addPage(app, options.page, HEADERS);
  if (options.data) addData(app, options.data);
  app.get('/healthz', async () => ({ status: 'ok' }));
  app.get('/readyz', async (_request, reply) => {
    const { ok, because } = options.ready();
    return reply.code(ok ? 200 : 503).send({ ready: ok, because });
  });
  app.get('/api/run', paced(options.view, VIEW_EVERY_MS));
  // One for each form that can be asked for.
  const metrics = {
    text: paced(() => options.metrics(), METRICS_EVERY_MS),
    openMetrics: paced(() => options.metrics('application/openmetrics-text'), METRICS_EVERY_MS),
  };
  const onResponse = async (): Promise<void> => options.onScraped?.();
  app.get('/metrics', { onResponse }, async (request, reply) => {
    const wanted = wantsOpenMetrics(request.headers.accept) ? metrics.openMetrics : metrics.text;
    const { contentType, text } = await wanted();
    return reply.header('content-type', contentType).send(text);
  });
  app.get('/sd', async () => targetsOf(options.view()));
  app.setNotFoundHandler(async (request, reply) => {
    if (request.method === 'GET' || request.method === 'HEAD') {
      return reply.code(404).send({ code: 'E_NOT_FOUND', message: `there is no ${request.url} here` });
    }
    return reply
      .code(405)
      .header('allow', 'GET, HEAD')
      .send({ code: 'E_METHOD', message: `${request.method} is not allowed: nothing can be changed here` });
  });
  app.setErrorHandler(async (error, _request, reply) =>
    reply.code(500).send({ code: 'E_INTERNAL', message: error instanceof Error ? error.message : String(error) }),
  );
  const { host, port } = options.listen;
  try {
    await app.listen({ host, port, ...(options.door !== null && { handle: options.door }) });
  } catch (cause) {
    await app.close();
    const code = cause instanceof Error && 'code' in cause ? cause.code : null;
    if (code === 'EADDRINUSE') {
      throw new LockstepError('E_PORT_IN_USE', `port ${port} on ${host} is in use`, {
        remedy: 'Stop what listens there (another run?), or let one be picked: --listen 127.0.0.1:0',
        cause,
      });
    }
    throw new LockstepError(
      'E_LISTEN',
      `cannot listen on ${host}:${port}: ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        remedy:
          code === 'EACCES'
            ? 'Give a port from 1024 on with --listen.'
            : 'Give an address of this machine with --listen.',
        cause,
      },
    );
  }
  const address = app.server.address();
  const bound = typeof address === 'object' && address !== null ? address.port : port;
  const scheme = identity === null ? 'http' : 'https';
  return {
    url: `${scheme}://${reachable(host)}:${bound}`,
    port: bound,
    server: app.server,
    door: handleOf(app.server),
    publish: (nowMs) => stream?.publish(nowMs),
    close: async () => {
      await stream?.close();
      await app.close();
    },
  };
}
