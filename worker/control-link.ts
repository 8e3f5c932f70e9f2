// The worker's end of the control link: a WebSocket to the coordinator that carries messages.ts. A shell: it owns the socket,
// nothing is decided here. Over a NATS server it is nats-control-link.ts.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { WebSocket } from 'ws';
import { LockstepError } from '../protocol/errors.ts';
import { HEART_HEADER } from '../protocol/heartbeat.ts';
import { encodeMessage, MAX_MESSAGE_BYTES, type CoordinatorMessage, type WorkerMessage } from '../protocol/messages.ts';
import type { Tls } from '../protocol/tls.ts';
import { ControlInbox } from './control-inbox.ts';
import type { StartHeart } from './heart/heart.ts';
import { callerOptions, tlsError } from './tls.ts';

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** In which a coordinator says by which code it refuses a handshake. */
const REFUSED_HEADER = 'lockstep-refused';
/** Bytes waiting in the socket above which `drained` makes the sender wait. */
const HIGH_WATER_BYTES = 16 * 1024 * 1024;

export interface ControlLink {
  send(message: WorkerMessage): void;
  /** Resolves when the socket has taken what was sent, up to the high-water mark. */
  drained(): Promise<void>;
  /** The next message of the coordinator; throws E_COORDINATOR_LOST (or E_NATS_LOST) when the link is closed. */
  next(): Promise<CoordinatorMessage>;
  /** From now on every message goes to `handler` as it arrives, those not yet taken first. */
  listen(handler: (message: CoordinatorMessage) => void): void;
  readonly closed: Promise<LockstepError>;
  close(): Promise<void>;
  /** The address of this machine that the coordinator is reached from; null when that is not known. */
  readonly localAddress: string | null;
}

/** `::ffff:10.0.0.5` is 10.0.0.5. */
const plainAddress = (address: string | undefined): string | null => address?.replace(/^::ffff:/i, '') ?? null;

const REFUSALS = {
  E_UNAUTHORIZED: {
    what: "refused this worker's token",
    remedy: "Give --token-file a copy of the file that the coordinator has: its own --token-file, or its run's.",
  },
  E_TOKEN_EXPIRED: {
    what: "refused this worker's token: it has expired",
    remedy: 'Make another where the key is: lockstep token --token-file KEY --scope work.',
  },
  E_FORBIDDEN: {
    what: "refused this worker's token: it is not one for workers",
    remedy: 'Give --token-file one of that scope: lockstep token --token-file KEY --scope work.',
  },
  E_TLS: {
    what: 'asks for a certificate of an authority that it names, and this worker shows none',
    remedy: 'Give --tls-cert and --tls-key, of a certificate that its --tls-client-ca has signed.',
  },
} as const;

const isNamed = (code: string): code is keyof typeof REFUSALS => Object.hasOwn(REFUSALS, code);

/**
 * Connects to `/control` of a coordinator. `url` is its address, http:// or https:// (over TLS). `startHeart` null: without a heart.
 * Throws E_TLS, E_UNAUTHORIZED, E_TOKEN_EXPIRED, E_FORBIDDEN or E_COORDINATOR_LOST.
 */
export async function connectControl(
  url: string,
  token: string | null,
  tls: Tls | null = null,
  startHeart: StartHeart | null = null,
): Promise<ControlLink> {
  const address = new URL('/control', url);
  address.protocol = address.protocol.replace('http', 'ws');
  const key = randomBytes(16).toString('hex');
  const socket = new WebSocket(address, {
    perMessageDeflate: false,
    // A valid mask that leaves bytes as they are: states are large, and nobody between reads what is no WebSocket.
    generateMask: (mask) => void mask.fill(0),
    maxPayload: MAX_MESSAGE_BYTES,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    ...(address.protocol === 'wss:' && callerOptions(tls)),
    headers: {
      ...(token !== null && { authorization: `Bearer ${token}` }),
      ...(startHeart !== null && { [HEART_HEADER]: key }),
    },
  });

  const inbox = new ControlInbox(url);
  socket.on('message', (data: Buffer) => {
    try {
      inbox.take(data);
    } catch {
      socket.close(1008);
    }
  });
  socket.on('close', (code, reason) => {
    const why = reason.length > 0 ? `: ${reason.toString()}` : '';
    inbox.lose(`the link to the coordinator at ${url} closed (${code}${why})`);
  });

  let localAddress: string | null = null;
  socket.once('upgrade', ({ socket: { localAddress: from } }) => {
    localAddress = plainAddress(from);
  });
  let refusedBy = '';
  socket.once('unexpected-response', (request, response) => {
    refusedBy = String(response.headers[REFUSED_HEADER] ?? '');
    request.destroy(new Error(`unexpected server response: ${response.statusCode}`));
  });
  try {
    await once(socket, 'open');
  } catch (cause) {
    const fault = await tlsError('the coordinator', address, cause);
    if (fault !== null) throw fault;
    const why = cause instanceof Error ? cause.message : String(cause);
    // What is no coordinator of ours may say 401, too.
    const code = refusedBy === '' && why.endsWith('response: 401') ? 'E_UNAUTHORIZED' : refusedBy;
    if (isNamed(code)) {
      const { what, remedy } = REFUSALS[code];
      throw new LockstepError(code, `the coordinator at ${url} ${what}`, { remedy, cause });
    }
    throw new LockstepError('E_COORDINATOR_LOST', `no coordinator can be joined at ${url}: ${why}`, {
      remedy: 'Check the address, that the coordinator runs (and not with --transport nats), and --token-file.',
      cause,
    });
  }
  socket.on('error', (error) => inbox.lose(`the link to the coordinator at ${url} failed: ${error.message}`, error));

  const heart = startHeart?.({ kind: 'http', url, tls, token, key }, (because) => {
    inbox.lose(`the link to the coordinator at ${url} is lost: ${because}`);
    socket.terminate();
  });

  return {
    localAddress,
    send: (message) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(encodeMessage(message));
    },
    drained: async () => {
      while (socket.bufferedAmount > HIGH_WATER_BYTES && socket.readyState === WebSocket.OPEN) {
        await new Promise<void>((resolve) => {
          socket.ping(undefined, undefined, () => resolve());
        });
      }
    },
    next: () => inbox.next(),
    listen: (handler) => inbox.listen(handler),
    closed: inbox.closed,
    close: async () => {
      if (socket.readyState !== WebSocket.CLOSED) {
        const end = once(socket, 'close');
        socket.close(1000);
        await end;
      }
      await heart?.close();
    },
  };
}
