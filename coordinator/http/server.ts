// What the coordinator shows over HTTP, read-only: the page, metrics, health, the run as JSON. The control endpoint for workers
// is attached to the same port by control.ts.

import fastify from 'fastify';
import type { Server } from 'node:http';
import { LockstepError } from '../../protocol/errors.ts';
import type { RunView } from '../../protocol/run-view.ts';
import { PAGE } from './page.ts';

export interface HttpOptions {
  readonly listen: { readonly host: string; readonly port: number };
  readonly view: () => RunView;
  readonly metrics: () => Promise<{ contentType: string; text: string }>;
  readonly ready: () => { readonly ok: boolean; readonly because: string };
}

export interface Http {
  readonly url: string;
  readonly server: Server;
  close(): Promise<void>;
}

const HEADERS = {
  'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src 'self' data:",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
};

/** Listens. Throws E_PORT_IN_USE or E_LISTEN. */
export async function startHttp(options: HttpOptions): Promise<Http> {
  const app = fastify({ logger: false, forceCloseConnections: true });
  app.addHook('onSend', async (_request, reply) => {
    void reply.headers(HEADERS);
  });
  app.get('/', async (_request, reply) => reply.type('text/html; charset=utf-8').send(PAGE));
  app.get('/healthz', async () => ({ status: 'ok' }));
  app.get('/readyz', async (_request, reply) => {
    const { ok, because } = options.ready();
    return reply.code(ok ? 200 : 503).send({ ready: ok, because });
  });
  app.get('/api/run', async () => options.view());
  app.get('/metrics', async (_request, reply) => {
    const { contentType, text } = await options.metrics();
    return reply.header('content-type', contentType).send(text);
  });
  // Workers have no /metrics of their own yet: the coordinator's tells of them all.
  app.get('/sd', async () => []);
  app.setNotFoundHandler(async (request, reply) => {
    const isRead = request.method === 'GET' || request.method === 'HEAD';
    return reply
      .code(isRead ? 404 : 405)
      .send({ code: isRead ? 'E_NOT_FOUND' : 'E_METHOD', message: `${request.method} ${request.url} is not served here` });
  });
  const { host, port } = options.listen;
  try {
    await app.listen({ host, port });
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'EADDRINUSE') {
      throw new LockstepError('E_PORT_IN_USE', `port ${port} on ${host} is in use`, {
        remedy: 'Stop what listens there (another run?), or pick a port: --listen 127.0.0.1:0 takes a free one.',
        cause,
      });
    }
    throw new LockstepError('E_LISTEN', `cannot listen on ${host}:${port}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      remedy: 'Give an address of this machine with --listen.',
      cause,
    });
  }
  const address = app.server.address();
  const bound = typeof address === 'object' && address !== null ? address.port : port;
  const shown = host.includes(':') ? `[${host}]` : host;
  return { url: `http://${shown}:${bound}`, server: app.server, close: () => app.close() };
}
