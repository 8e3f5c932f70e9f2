// The WebSocket endpoint that workers speak to, at /control of the coordinator's port. Who may come in is decided here, before
// the core hears of it: a token, no browser, no more than so many. What they then say passes control-connection.ts.
//
// A dead peer is known by its closed connection or, when it is stopped or the network swallows even that, by its silence under pings: those
// of its heart, a connection of its own at /heart (protocol/heartbeat.ts), since the link itself is silent while the engine computes.

import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocket, WebSocketServer } from 'ws';
import {
  BEAT_EVERY_MS,
  HEARTLESS_SILENCE_MS,
  HEART_HEADER,
  HEART_KEY,
  HEART_PATH,
  WORKER_SILENCE,
} from '../../protocol/heartbeat.ts';
import { MAX_MESSAGE_BYTES } from '../../protocol/messages.ts';
import { fixedSilence, Silence, type SilenceLimits } from '../../protocol/silence.ts';
import {
  HELLO_MS,
  MAX_CONNECTIONS,
  openBorder,
  type Border,
  type ControlConnection,
  type ControlEvents,
} from '../control-connection.ts';

const CLOSE_POLICY_VIOLATION = 1008;
/** Of what a heart may say: it only answers. */
const MAX_BEAT_BYTES = 125;
/** Bytes of reason that fit a close frame (RFC 6455, 5.5). */
const MAX_CLOSE_REASON_BYTES = 123;

export interface ControlTiming {
  /** From the connection to its first message. */
  readonly helloMs: number;
  readonly pingEveryMs: number;
  /** Without a message or a pong for this long a peer that has no heart is dead. */
  readonly silenceMs: number;
  readonly beatEveryMs: number;
  /** Of a heart. */
  readonly silence: SilenceLimits;
  /** That peers get to close their side before the connection is cut. */
  readonly closeGraceMs: number;
}

const TIMING: ControlTiming = {
  helloMs: HELLO_MS,
  pingEveryMs: 5000,
  silenceMs: HEARTLESS_SILENCE_MS,
  beatEveryMs: BEAT_EVERY_MS,
  silence: WORKER_SILENCE,
  closeGraceMs: 2000,
};

/** A control link, for the heart that comes after it. */
interface Body {
  readonly link: WebSocket;
  readonly border: Border;
  heart: WebSocket | null;
}

export interface ControlOptions extends ControlEvents {
  readonly server: Server;
  readonly token: string | null;
  /** The number in the name of the first worker that comes (default: 0). */
  readonly firstName?: number;
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
export function showsToken(authorization: string | undefined, token: string | null): boolean {
  if (token === null) return true;
  const hash = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(hash(authorization ?? ''), hash(`Bearer ${token}`));
}

/** The heart's key that a request shows; undefined: none, or no key. */
function keyOf(request: IncomingMessage): string | undefined {
  const shown = request.headers[HEART_HEADER];
  return typeof shown === 'string' && HEART_KEY.test(shown) ? shown : undefined;
}

export function openControl(options: ControlOptions): { close(): Promise<void> } {
  const { server } = options;
  const timing = { ...TIMING, ...options.timing };
  const now = options.now ?? (() => performance.now());
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: MAX_MESSAGE_BYTES });
  const hearts = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: MAX_BEAT_BYTES });
  const bodies = new Map<string, Body>();
  let arrivals = options.firstName ?? 0;

  const refuse = (socket: Duplex, status: string, code: string): void => {
    options.onRefused(code);
    refuseUpgrade(socket, status);
  };

  const onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    socket.on('error', () => socket.destroy());
    const path = (request.url ?? '').split('?')[0];
    if (path !== '/control' && path !== HEART_PATH) return refuse(socket, '404 Not Found', 'E_NOT_FOUND');
    // Browsers send Origin; workers do not. No page of another site may speak for a worker.
    if (request.headers.origin !== undefined) return refuse(socket, '403 Forbidden', 'E_ORIGIN');
    if (!showsToken(request.headers.authorization, options.token))
      return refuse(socket, '401 Unauthorized', 'E_UNAUTHORIZED');
    const key = keyOf(request);
    const body = key === undefined ? undefined : bodies.get(key);
    if (path === HEART_PATH) {
      if (body === undefined) return refuse(socket, '404 Not Found', 'E_NOT_FOUND');
      if (body.heart !== null) return refuse(socket, '409 Conflict', 'E_PROTOCOL');
      hearts.handleUpgrade(request, socket, head, (heart) => beat(heart, body));
      return undefined;
    }
    if (body !== undefined) return refuse(socket, '409 Conflict', 'E_PROTOCOL');
    if (sockets.clients.size >= (options.connectionsMax ?? MAX_CONNECTIONS)) {
      return refuse(socket, '503 Service Unavailable', 'E_TOO_MANY');
    }
    sockets.handleUpgrade(request, socket, head, (webSocket) => options.onConnect(connectionOf(webSocket, key)));
    return undefined;
  };
  server.on('upgrade', onUpgrade);

  /** Listens to a heart until it or its link ends. */
  const beat = (heart: WebSocket, body: Body): void => {
    body.heart = heart;
    const silence = new Silence(timing.silence, now());
    const lose = (because: string): void => {
      body.border.blame(because);
      body.link.terminate();
    };
    const timer = setInterval(() => {
      if (silence.isSilent(now())) lose(silence.complaint(now()));
      else heart.ping();
    }, timing.beatEveryMs);
    timer.unref();
    heart.on('pong', () => silence.heard(now()));
    heart.on('error', () => heart.terminate());
    heart.on('close', () => {
      clearInterval(timer);
      // When its process is gone the link ends by itself, once all that was said has been heard.
      setTimeout(() => lose('its heart stopped'), timing.closeGraceMs).unref();
    });
  };

  const connectionOf = (socket: WebSocket, key: string | undefined): ControlConnection => {
    const silence = new Silence(fixedSilence(timing.silenceMs, 2 * timing.pingEveryMs), now());
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
    const body: Body = { link: socket, border, heart: null };
    if (key !== undefined) bodies.set(key, body);
    const pingTimer = setInterval(() => {
      if (body.heart !== null || !silence.isSilent(now())) return socket.ping();
      border.blame(silence.complaint(now()));
      return socket.terminate();
    }, timing.pingEveryMs);
    pingTimer.unref();
    socket.on('pong', () => silence.heard(now()));
    socket.on('message', (data: Buffer) => {
      silence.heard(now());
      border.receive(data);
    });
    socket.on('error', (error) => border.blame(error.message));
    socket.on('close', (code) => {
      clearTimeout(graceTimer);
      clearInterval(pingTimer);
      if (key !== undefined) bodies.delete(key);
      body.heart?.terminate();
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
