// What the coordinator shows over HTTP: the page, metrics, health, the run as JSON; to workers the data set; and one request that changes something, which
// asks the run to stop. Who may ask what is protocol/access.ts's to say, before anything else of a request is looked at. The control endpoint for workers
// is attached to the same port by control.ts.

import { createServer, type IncomingMessage, type Server, type ServerOptions } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import fastify from 'fastify';
import {
  connectionFault,
  HEALTH_PATH,
  judgeRequest,
  permitted,
  type AccessRules,
  type Answer,
} from '../../protocol/access.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { wantsOpenMetrics, type Exposition } from '../../protocol/exposition.ts';
import { isLoopback } from '../../protocol/loopback.ts';
import type { RunView } from '../../protocol/run-view.ts';
import type { Tls } from '../../protocol/tls.ts';
import type { Keys } from '../../protocol/token.ts';
import { needOf, READY_PATH, STOP_PATH } from '../core/needs.ts';
import { HANDSHAKE_MS, type DoorLimits } from '../core/doorkeeper.ts';
import { addData, type ServedData } from './data-routes.ts';
import { targetsOf } from './discovery.ts';
import { guardDoors } from './doors.ts';
import { addPage, policyWith, type PageSources } from './page-routes.ts';
import { paced } from './paced.ts';

export interface HttpOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** A socket that listens there already (a TCP handle of Node's); null or none: one is made. */
  readonly door?: unknown;
  /** Served over TLS with this; null or none: in plain HTTP. */
  readonly identity?: Tls['identity'];
  /** Who calls must show a certificate of this authority; null or none: nobody must. */
  readonly clientCa?: string | null;
  /** What tells tokens of the run; null or none: nobody is asked for one. */
  readonly keys?: Keys | null;
  /** Told the code of whatever is refused, before and after a request is whole. */
  readonly onRefused?: (code: string) => void;
  readonly limits?: Partial<DoorLimits>;
  /** Asks the run to stop in good order, with a checkpoint. */
  readonly stop?: (because: string) => void;
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
  /** Whether an upgrade of a connection, a worker that comes, is let in; whoever asks counts those that are not. */
  judge(request: IncomingMessage): Answer;
  /** The socket that it listens on, for another process to keep. */
  readonly door: unknown;
  /** Tells pages what is new, when it is time for that; `nowMs` on a monotonic clock. */
  publish(nowMs: number): void;
  /** Tells pages the last news, and closes. */
  close(): Promise<void>;
}

const MAX_BODY_BYTES = 1024;
const REQUEST_TIMEOUT_MS = 30_000;
/** Without a byte either way: who asks for much and reads none of it. Links of workers have limits of their own. */
const IDLE_MS = 60_000;
/** Of a request's head: it is all that is read of who has shown nothing yet. */
const MAX_HEAD_BYTES = 8 * 1024;
/** How often a server looks whether a head takes too long. */
const LATE_LOOK_MS = 1000;

/** However many ask, these are made no oftener. */
const METRICS_EVERY_MS = 150;
const VIEW_EVERY_MS = 20;

const HEADERS = {
  'content-security-policy': policyWith("'self'"),
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-store',
  // Not even as a picture or a script of another origin's page.
  'cross-origin-resource-policy': 'same-origin',
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
  const { identity = null, clientCa = null, onRefused = () => {} } = options;
  const rules: AccessRules = {
    keys: options.keys ?? null,
    isLoopback: isLoopback(options.listen.host),
    needsCertificate: clientCa !== null,
    needOf,
  };
  const http: ServerOptions = {
    maxHeaderSize: MAX_HEAD_BYTES,
    headersTimeout: HANDSHAKE_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionsCheckingInterval: LATE_LOOK_MS,
  };
  const tls = {
    handshakeTimeout: HANDSHAKE_MS,
    // Who shows none is told so by a code, and may ask for the health.
    ...(clientCa !== null && { requestCert: true, rejectUnauthorized: false, ca: clientCa }),
  };
  const doors = guardDoors(onRefused, options.limits);
  const judge = (request: IncomingMessage): Answer => {
    const answer = judgeRequest(request, rules, Date.now());
    if (answer.kind === 'allowed') doors.prove(request);
    return answer;
  };
  const app = fastify({
    logger: false,
    serverFactory: (handler) => {
      const server =
        identity === null ? createServer(http, handler) : createSecureServer({ ...http, ...tls, ...identity }, handler);
      doors.watch(server);
      return server;
    },
    forceCloseConnections: true,
    bodyLimit: MAX_BODY_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionTimeout: IDLE_MS,
    // Of TLS, too: Node passes on what went wrong there.
    clientErrorHandler: (error, socket) => {
      const fault = connectionFault(error);
      if (fault !== null) onRefused(fault);
      if (socket.writable && fault !== null) {
        const status = fault === 'E_TOO_LARGE' ? '431 Request Header Fields Too Large' : '400 Bad Request';
        const line = fault === 'E_HANDSHAKE' ? '408 Request Timeout' : status;
        socket.write(`HTTP/1.1 ${line}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      }
      socket.destroy();
    },
    // A path that can't be decoded comes to no handler.
    frameworkErrors: (error, _request, reply) => {
      onRefused('E_REQUEST');
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
  app.addHook('onRequest', async (request, reply) => {
    void reply.headers(HEADERS);
    const answer = judge(request.raw);
    // Who has shown no token keeps no connection, nor one of the places that there are for those.
    if (!rules.isLoopback && needOf((request.raw.url ?? '').split('?', 1)[0] ?? '') === null) {
      void reply.header('connection', 'close');
    }
    if (answer.kind === 'allowed') return undefined;
    const { status, code, because, remedy } = answer;
    onRefused(code);
    if (status === 401) void reply.header('www-authenticate', 'Bearer realm="lockstep"');
    return reply.code(status).send({ code, message: because, remedy });
  });
  const stream = options.page === undefined ? null : addPage(app, options.page, HEADERS);
  if (options.data) addData(app, options.data);
  app.get(HEALTH_PATH, async () => ({ status: 'ok' }));
  app.get(READY_PATH, async (request, reply) => {
    const { ok, because } = options.ready();
    const mayKnow = rules.isLoopback || permitted(request.raw, 'observe', rules, Date.now()).kind === 'allowed';
    return reply.code(ok ? 200 : 503).send(mayKnow ? { ready: ok, because } : { ready: ok });
  });
  const { stop } = options;
  if (stop !== undefined) {
    app.post(STOP_PATH, async (_request, reply) => {
      stop('POST /api/stop');
      return reply.code(202).send({ stopping: true });
    });
  }
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
      .send({ code: 'E_METHOD', message: `${request.method} is not allowed: nothing can be changed by it here` });
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
    judge,
    door: handleOf(app.server),
    publish: (nowMs) => stream?.publish(nowMs),
    close: async () => {
      await stream?.close();
      doors.close();
      await app.close();
    },
  };
}
