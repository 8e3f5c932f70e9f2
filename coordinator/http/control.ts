// The WebSocket endpoint that workers speak to, at /control of the coordinator's port. Who may come in is decided here, before
// the core hears of it: a token, no browser, no more than so many. What they then say passes control-connection.ts.
//
// A dead peer is known by its closed connection or, when the network swallows even that, by its silence under pings.

import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocket, WebSocketServer } from 'ws';
import { MAX_MESSAGE_BYTES } from '../../protocol/messages.ts';
import {
  HELLO_MS,
  MAX_CONNECTIONS,
  openBorder,
  type ControlConnection,
  type ControlEvents,
} from '../control-connection.ts';

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

const TIMING: ControlTiming = { helloMs: HELLO_MS, pingEveryMs: 5000, silenceMs: 120_000, closeGraceMs: 2000 };

export interface ControlOptions extends ControlEvents {
  readonly server: Server;
  readonly token: string | null;
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
    let heardAtMs = now();
    let graceTimer: NodeJS.Timeout | undefined;
    const border = openBorder(
      `w${arrivals++}`,
      {
        send: (message) => {
          if (socket.readyState === WebSocket.OPEN) socket.send(message);
        },
        close: (text) => {
          socket.close(CLOSE_POLICY_VIOLATION, cut(text, MAX_CLOSE_REASON_BYTES));
          graceTimer ??= setTimeout(() => socket.terminate(), timing.closeGraceMs);
        },
      },
      options,
      timing.helloMs,
    );
    const pingTimer = setInterval(() => {
      const silentMs = now() - heardAtMs;
      if (silentMs < timing.silenceMs) return socket.ping();
      border.blame(`nothing was heard of it for ${Math.round(silentMs / 1000)} s`);
      return socket.terminate();
    }, timing.pingEveryMs);
    pingTimer.unref();
    socket.on('pong', () => {
      heardAtMs = now();
    });
    socket.on('message', (data: Buffer) => {
      heardAtMs = now();
      border.receive(data);
    });
    socket.on('error', (error) => border.blame(error.message));
    socket.on('close', (code) => {
      clearTimeout(graceTimer);
      clearInterval(pingTimer);
      border.end(`its link closed (code ${code})`);
    });
    return border.connection;
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
