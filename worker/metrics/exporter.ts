// A worker's own /metrics: a small server on the address that peers reach the worker at, and a free port, which the coordinator hears of
// and tells Prometheus (/sd). A shell. It runs on the worker's main thread, in the turns that the engine leaves: no thread, no timer but
// the one that measures how late it is. Who asks while a long call of the engine holds the thread gets the answer after it. Who may ask: as at the
// coordinator's port (protocol/access.ts), by what the coordinator has told of the run's keys.

import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { connectionFault, judgeRequest, type AccessRules } from '../../protocol/access.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { isLoopback } from '../../protocol/loopback.ts';
import type { StepReport } from '../../protocol/messages.ts';
import type { Tls } from '../../protocol/tls.ts';
import type { Keys } from '../../protocol/token.ts';
import type { GpuReading } from './gpu.ts';
import { ownMetrics } from './own-metrics.ts';

/** Between two looks at how late the thread is. */
const LAG_EVERY_MS = 100;
/** Of scrapers at a time: each answer is some kilobytes, so those that never read are bounded, too. */
const MAX_CONNECTIONS = 16;
const REQUEST_TIMEOUT_MS = 10_000;
/** Of a request's head. */
const MAX_HEAD_BYTES = 8 * 1024;
/** Nobody reads for so long: it is gone. */
const IDLE_MS = 120_000;

export interface Exporter {
  readonly url: string;
  rename(worker: string): void;
  observe(report: StepReport): void;
  /** Somebody was refused, here or as a peer. */
  countRefusal(code: string): void;
  close(): Promise<void>;
}

export interface ExporterOptions {
  readonly host: string;
  /** The address that others reach this machine at, where that is another. */
  readonly announced?: string;
  /** Served over TLS with its identity, to who shows a certificate where it asks for one; null, or none in it: in plain HTTP. */
  readonly tls: Tls | null;
  /** What tells who may observe, where others than this machine can ask; null: everybody may. */
  readonly keys: Keys | null;
  readonly run: string;
  readonly worker: string;
  readonly engineBytes: () => number;
  readonly gpu: () => GpuReading | null;
}

const bracketed = (host: string): string => (host.includes(':') ? `[${host}]` : host);

/** Listens. Throws E_LISTEN. */
export async function startExporter(options: ExporterOptions): Promise<Exporter> {
  const { run, worker, tls, keys, host } = options;
  const identity = tls?.identity ?? null;
  const clientCa = tls?.clientCa ?? null;
  const rules: AccessRules = {
    keys,
    isLoopback: isLoopback(host),
    needsCertificate: clientCa !== null && identity !== null,
    needOf: () => 'observe',
  };
  const metrics = ownMetrics({ run, worker, startedAtSeconds: Date.now() / 1000 });
  const read = (): Parameters<typeof metrics.render>[0] => {
    const { user, system } = process.cpuUsage();
    const { rss, heapUsed, arrayBuffers } = process.memoryUsage();
    return {
      cpuSeconds: { user: user / 1e6, system: system / 1e6 },
      memoryBytes: { resident: rss, heap: heapUsed, buffers: arrayBuffers, engine: options.engineBytes() },
      gpu: options.gpu(),
    };
  };
  const answer: RequestListener = (request, response) => {
    const path = (request.url ?? '').split('?', 1)[0];
    const asked = judgeRequest(request, rules, Date.now());
    if (asked.kind === 'refused') {
      const { status, code, because: message, remedy } = asked;
      metrics.countRefusal(code);
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify({ code, message, remedy }));
      return;
    }
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    if (path !== '/metrics' || !isRead) {
      response.writeHead(isRead ? 404 : 405, { allow: 'GET, HEAD' }).end();
      return;
    }
    metrics.render(read(), request.headers.accept).then(
      ({ contentType, text }) =>
        response
          .writeHead(200, {
            'content-type': contentType,
            'cache-control': 'no-store',
            'x-content-type-options': 'nosniff',
          })
          .end(request.method === 'HEAD' ? undefined : text),
      (error: unknown) => response.writeHead(500).end(String(error)),
    );
  };
  const limits = { maxHeaderSize: MAX_HEAD_BYTES, headersTimeout: REQUEST_TIMEOUT_MS };
  const secure = {
    ...limits,
    ...identity,
    handshakeTimeout: REQUEST_TIMEOUT_MS,
    ...(clientCa !== null && { requestCert: true, rejectUnauthorized: false, ca: clientCa }),
  };
  const server = identity === null ? createServer(limits, answer) : createSecureServer(secure, answer);
  server.on('clientError', (error, socket) => {
    const fault = connectionFault(error);
    if (fault !== null) metrics.countRefusal(fault);
    // Who calls a plain one over TLS knows it by the answer.
    if (socket.writable && fault !== 'E_TLS') socket.write('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
    socket.destroy();
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.setTimeout(IDLE_MS);
  server.listen(0, host);
  try {
    await once(server, 'listening');
  } catch (cause) {
    throw new LockstepError('E_LISTEN', `metrics can't be served on ${host}: ${String(cause)}`, {
      remedy: 'Give an address of this machine with --peer-listen.',
      cause,
    });
  }
  server.unref();
  // Connections that fail later are their own affair.
  server.on('error', () => {});

  let dueAtMs = performance.now() + LAG_EVERY_MS;
  const timer = setInterval(() => {
    const nowMs = performance.now();
    metrics.observeLag(Math.max(0, nowMs - dueAtMs) / 1000);
    dueAtMs = nowMs + LAG_EVERY_MS;
  }, LAG_EVERY_MS);
  timer.unref();

  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0;
  const scheme = identity === null ? 'http' : 'https';
  return {
    url: `${scheme}://${bracketed(options.announced ?? host)}:${port}/metrics`,
    rename: (name) => metrics.rename(name),
    observe: (report) => metrics.observeStep(report),
    countRefusal: (code) => metrics.countRefusal(code),
    close: async () => {
      clearInterval(timer);
      server.closeAllConnections();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}
