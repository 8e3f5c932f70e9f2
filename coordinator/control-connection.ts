// A worker's control link as the core sees it, whatever carries it: a name, messages both ways, an end with its reason. This is the
// border: messages are parsed here and trusted inside; a peer whose message does not parse, that says nothing at first, or more than it may, is
// closed and heard no more.

import { LockstepError } from '../protocol/errors.ts';
import {
  decodeWorkerMessage,
  encodeMessage,
  type CoordinatorMessage,
  type WorkerMessage,
} from '../protocol/messages.ts';
import { MessageRate } from './core/message-rate.ts';

/** Control links at a time. */
export const MAX_CONNECTIONS = 2048;
/** From the connection to its first message. */
export const HELLO_MS = 10_000;
/** Of the first message: what a worker says before it is known. */
export const MAX_HELLO_BYTES = 16 * 1024;

export interface ControlConnection {
  /** The worker's name for its life: w0, w1, ... in the order of arrival. */
  readonly id: string;
  send(message: CoordinatorMessage): void;
  close(code: string, because: string): void;
  /** Set it before the call that gave the connection returns; earlier messages are not kept. */
  onMessage(handler: (message: WorkerMessage) => void): void;
  readonly closed: Promise<{ readonly because: string }>;
}

/** Whom a door tells of who comes and who was refused. */
export interface ControlEvents {
  readonly onConnect: (connection: ControlConnection) => void;
  readonly onRefused: (code: string) => void;
  readonly onWarning: (message: string) => void;
}

/** What carries the bytes. */
export interface Wire {
  send(message: Uint8Array): void;
  /** Ends it; the other side is told why. */
  close(text: string): void;
}

export interface Border {
  readonly connection: ControlConnection;
  /** A whole message of the peer, as bytes. */
  receive(message: Uint8Array): void;
  /** Why it will end, if nothing was known before. */
  blame(because: string): void;
  /** The wire has ended. */
  end(because: string): void;
}

export function openBorder(
  id: string,
  wire: Wire,
  events: Omit<ControlEvents, 'onConnect'>,
  helloMs: number = HELLO_MS,
): Border {
  let handler: (message: WorkerMessage) => void = () => {};
  let reason: string | null = null;
  let resolveClosed: (end: { because: string }) => void = () => {};
  const closed = new Promise<{ because: string }>((resolve) => {
    resolveClosed = resolve;
  });
  const close = (code: string, because: string): void => {
    reason ??= because;
    wire.close(`${code}: ${because}`);
  };
  const refuse = (code: string, because: string, warning = `${id} sent ${because}`): void => {
    events.onRefused(code);
    events.onWarning(warning);
    close(code, because);
  };
  const rate = new MessageRate(performance.now());
  let hasSpoken = false;
  const helloTimer = setTimeout(() => {
    events.onRefused('E_HANDSHAKE');
    close('E_HANDSHAKE', `no "hello" within ${helloMs / 1000} s`);
  }, helloMs);
  return {
    connection: {
      id,
      send: (message) => wire.send(encodeMessage(message)),
      close,
      onMessage: (h) => {
        handler = h;
      },
      closed,
    },
    receive: (bytes) => {
      if (reason !== null) return;
      clearTimeout(helloTimer);
      if (!rate.take(performance.now())) return refuse('E_TOO_FAST', 'more messages than a worker may');
      if (!hasSpoken && bytes.byteLength > MAX_HELLO_BYTES) {
        return refuse('E_TOO_LARGE', `a first message of ${bytes.byteLength} bytes; the limit is ${MAX_HELLO_BYTES}`);
      }
      hasSpoken = true;
      let message: WorkerMessage;
      try {
        message = decodeWorkerMessage(bytes);
      } catch (error) {
        if (!(error instanceof LockstepError)) throw error;
        if (error.code !== 'E_PROTOCOL_VERSION') return refuse(error.code, error.message);
        wire.send(encodeMessage({ kind: 'refused', code: error.code, because: error.message }));
        return refuse(error.code, error.message, error.message);
      }
      handler(message);
    },
    blame: (because) => {
      reason ??= because;
    },
    end: (because) => {
      clearTimeout(helloTimer);
      resolveClosed({ because: reason ?? because });
    },
  };
}
