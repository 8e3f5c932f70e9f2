// The WebSocket endpoint that workers speak to, at /control of the coordinator's port. Who may come in is decided here, before
// the core hears of it: a token, no browser, no more than so many, a first message in time. Messages are parsed here and
// trusted inside; a peer whose message does not parse is closed and heard no more.
//
// A dead peer is known by its closed connection or, when the network swallows even that, by its silence under pings.

import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocket, WebSocketServer } from 'ws';
import { LockstepError } from '../../protocol/errors.ts';
import {
  decodeWorkerMessage,
  encodeMessage,
  MAX_MESSAGE_BYTES,
  type CoordinatorMessage,
  type WorkerMessage,
} from '../../protocol/messages.ts';

const MAX_CONNECTIONS = 2048;
const CLOSE_POLICY_VIOLATION = 1008;
/** Bytes of reason that fit a close frame (RFC 6455, 5.5). */
const MAX_CLOSE_REASON_BYTES = 123;

export interface ControlTiming {
  /** From the connection to its first message. */
  readonly helloMs: number;
  readonly pingEveryMs: number;
  /**
   * Without a message or a pong for this long a peer is dead. Generous: a worker's engine holds its one thread for as long as a
   * microbatch takes, and no pong leaves it meanwhile. A process that ends is known at once, by its closed connection.
   */
  readonly silenceMs: number;
  /** That peers get to close their side before the connection is cut. */
  readonly closeGraceMs: number;
}

const TIMING: ControlTiming = { helloMs: 10_000, pingEveryMs: 5000, silenceMs: 120_000, closeGraceMs: 2000 };

export interface ControlConnection {
  /** The worker's name for its life: w0, w1, ... in the order of arrival. */
  readonly id: string;
  send(message: CoordinatorMessage): void;
  close(code: string, because: string): void;
  /** Set it before the call that gave the connection returns; earlier messages are not kept. */
  onMessage(handler: (message: WorkerMessage) => void): void;
  readonly closed: Promise<{ readonly because: string }>;
}

export interface ControlOptions {
  readonly server: Server;
  readonly token: string | null;
  readonly onConnect: (connection: ControlConnection) => void;
  readonly onRefused: (code: string) => void;
  readonly onWarning: (message: string) => void;
  readonly timing?: Partial<ControlTiming>;
  readonly connectionsMax?: number;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
}

function refuseUpgrade(socket: Duplex, status: string): void {
  socket.once('finish', () => socket.destroy());
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

/** At most `bytes` bytes of text, not cut within a character. */
function cut(text: string, bytes: number): Buffer {
  const whole = Buffer.from(text);
  if (whole.length <= bytes) return whole;
  let end = bytes;
  while (end > 0 && ((whole[end] ?? 0) & 0xc0) === 0x80) end--;
  return whole.subarray(0, end);
}

/** Compared by hash: neither content nor length of the token shows in the time taken. */
function isAuthorized(request: IncomingMessage, token: string | null): boolean {
  if (token === null) return true;
  const hash = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(hash(request.headers.authorization ?? ''), hash(`Bearer ${token}`));
}

export function openControl(options: ControlOptions): { close(): Promise<void> } {
  const { server } = options;
  const timing = { ...TIMING, ...options.timing };
  const now = options.now ?? (() => performance.now());
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: MAX_MESSAGE_BYTES });
  let arrivals = 0;

  const refuse = (socket: Duplex, status: string, code: string): void => {
    options.onRefused(code);
    refuseUpgrade(socket, status);
  };

  const onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    socket.on('error', () => socket.destroy());
    const path = (request.url ?? '').split('?')[0];
    if (path !== '/control') return refuse(socket, '404 Not Found', 'E_NOT_FOUND');
    // Browsers send Origin; workers do not. No page of another site may speak for a worker.
    if (request.headers.origin !== undefined) return refuse(socket, '403 Forbidden', 'E_ORIGIN');
    if (!isAuthorized(request, options.token)) return refuse(socket, '401 Unauthorized', 'E_UNAUTHORIZED');
    if (sockets.clients.size >= (options.connectionsMax ?? MAX_CONNECTIONS)) {
      return refuse(socket, '503 Service Unavailable', 'E_TOO_MANY');
    }
    sockets.handleUpgrade(request, socket, head, (webSocket) => options.onConnect(connectionOf(webSocket)));
    return undefined;
  };
  server.on('upgrade', onUpgrade);

  const connectionOf = (socket: WebSocket): ControlConnection => {
    const id = `w${arrivals++}`;
    let handler: (message: WorkerMessage) => void = () => {};
    let reason: string | null = null;
    let heardAtMs = now();
    let graceTimer: NodeJS.Timeout | undefined;
    const close = (code: string, because: string): void => {
      reason ??= because;
      socket.close(CLOSE_POLICY_VIOLATION, cut(`${code}: ${because}`, MAX_CLOSE_REASON_BYTES));
      graceTimer ??= setTimeout(() => socket.terminate(), timing.closeGraceMs);
    };
    const helloTimer = setTimeout(() => {
      options.onRefused('E_HANDSHAKE');
      close('E_HANDSHAKE', `no "hello" within ${timing.helloMs / 1000} s`);
    }, timing.helloMs);
    const pingTimer = setInterval(() => {
      const silentMs = now() - heardAtMs;
      if (silentMs < timing.silenceMs) return socket.ping();
      reason ??= `nothing was heard of it for ${Math.round(silentMs / 1000)} s`;
      return socket.terminate();
    }, timing.pingEveryMs);
    pingTimer.unref();
    socket.on('pong', () => {
      heardAtMs = now();
    });
    socket.on('message', (data: Buffer) => {
      heardAtMs = now();
      if (reason !== null) return;
      clearTimeout(helloTimer);
      let message: WorkerMessage;
      try {
        message = decodeWorkerMessage(data);
      } catch (error) {
        if (!(error instanceof LockstepError)) throw error;
        options.onRefused(error.code);
        options.onWarning(`${id} sent ${error.message}`);
        close(error.code, error.message);
        return;
      }
      handler(message);
    });
    socket.on('error', (error) => {
      reason ??= error.message;
    });
    const closed = new Promise<{ because: string }>((resolve) => {
      socket.on('close', (code) => {
        clearTimeout(helloTimer);
        clearTimeout(graceTimer);
        clearInterval(pingTimer);
        resolve({ because: reason ?? `its link closed (code ${code})` });
      });
    });
    return {
      id,
      send: (message) => {
        if (socket.readyState === WebSocket.OPEN) socket.send(encodeMessage(message));
      },
      close,
      onMessage: (h) => {
        handler = h;
      },
      closed,
    };
  };

  return {
    close: async () => {
      server.off('upgrade', onUpgrade);
      const ends = [...sockets.clients].map(
        (socket) =>
          new Promise<void>((resolve) => {
            socket.on('close', () => resolve());
            socket.close(1000, 'the run is over');
          }),
      );
      const impatience = setTimeout(() => {
        for (const socket of sockets.clients) socket.terminate();
      }, timing.closeGraceMs);
      await Promise.all(ends);
      clearTimeout(impatience);
    },
  };
}
