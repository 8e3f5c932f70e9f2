// The WebSocket endpoint that workers speak to, at /control of the coordinator's port. Who may come in is decided here, before
// the core hears of it: a token, no browser, no more than so many, "hello" in time. Messages are parsed here and trusted inside.

import { timingSafeEqual } from 'node:crypto';
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
/** Time from the connection to its first message. */
const HELLO_TIMEOUT_MS = 10_000;
const CLOSE_POLICY_VIOLATION = 1008;

export interface ControlConnection {
  /** The worker's name for its life: w0, w1, ... in the order of arrival. */
  readonly id: string;
  send(message: CoordinatorMessage): void;
  close(code: string, because: string): void;
  onMessage(handler: (message: WorkerMessage) => void): void;
  readonly closed: Promise<{ readonly because: string }>;
}

export interface ControlOptions {
  readonly server: Server;
  readonly token: string | null;
  readonly onConnect: (connection: ControlConnection) => void;
  readonly onRefused: (code: string) => void;
  readonly onWarning: (message: string) => void;
}

function refuseUpgrade(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

export function openControl(options: ControlOptions): { close(): Promise<void> } {
  const { server, token } = options;
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: MAX_MESSAGE_BYTES });
  let arrivals = 0;

  const isAuthorized = (request: IncomingMessage): boolean => {
    if (token === null) return true;
    const given = Buffer.from(request.headers.authorization ?? '');
    const wanted = Buffer.from(`Bearer ${token}`);
    return given.length === wanted.length && timingSafeEqual(given, wanted);
  };

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
    if (!isAuthorized(request)) return refuse(socket, '401 Unauthorized', 'E_UNAUTHORIZED');
    if (sockets.clients.size >= MAX_CONNECTIONS) return refuse(socket, '503 Service Unavailable', 'E_TOO_MANY');
    sockets.handleUpgrade(request, socket, head, (webSocket) => options.onConnect(connectionOf(webSocket)));
    return undefined;
  };
  server.on('upgrade', onUpgrade);

  const connectionOf = (socket: WebSocket): ControlConnection => {
    const id = `w${arrivals++}`;
    let handler: (message: WorkerMessage) => void = () => {};
    let reason: string | null = null;
    const close = (code: string, because: string): void => {
      reason ??= because;
      // A close frame carries at most 123 bytes of reason.
      socket.close(CLOSE_POLICY_VIOLATION, Buffer.from(`${code}: ${because}`).subarray(0, 120));
    };
    const helloTimer = setTimeout(() => {
      options.onRefused('E_HANDSHAKE');
      close('E_HANDSHAKE', `no "hello" within ${HELLO_TIMEOUT_MS / 1000} s`);
    }, HELLO_TIMEOUT_MS);
    socket.on('message', (data: Buffer) => {
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
      }, CLOSE_GRACE_MS);
      await Promise.all(ends);
      clearTimeout(impatience);
    },
  };
}

/** Time that workers get to close their links when the run is over. */
const CLOSE_GRACE_MS = 2000;
