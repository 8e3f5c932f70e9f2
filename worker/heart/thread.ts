// The heart of a worker's control link (protocol/heartbeat.ts): a connection of its own to the coordinator, from a thread that does nothing
// else, so that it answers however long the engine's thread is held. It listens as well: a coordinator that says nothing for too long is
// reported to the engine's thread, and so is the connection's end. A shell.

import { parentPort, workerData } from 'node:worker_threads';
import { WebSocket } from 'ws';
import type { NatsServer } from '../../nats/server.ts';
import { BEAT_EVERY_MS, BUSY_SILENCE, HEART_HEADER, HEART_PATH } from '../../protocol/heartbeat.ts';
import { Silence } from '../../protocol/silence.ts';
import type { Tls } from '../../protocol/tls.ts';
import { callerOptions } from '../tls.ts';

const HANDSHAKE_TIMEOUT_MS = 10_000;

/** Whose heart it is, and where the coordinator is. */
export type HeartTarget = { readonly key: string; readonly token: string | null } & (
  | { readonly kind: 'http'; readonly url: string; readonly tls: Tls | null }
  | { readonly kind: 'nats'; readonly server: NatsServer; readonly run: string }
);

/** To the engine's thread. `silent`: the coordinator says nothing any more; `ended`: the connection has ended. */
export interface FromHeart {
  readonly kind: 'silent' | 'ended';
  readonly because: string;
}

const port = parentPort;
if (port === null) throw new Error('this is a thread');
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- heart.ts gives it
const target = workerData as HeartTarget;
const say = (message: FromHeart): void => port.postMessage(message);

function beatOverWebSocket({ url, tls, key, token }: Extract<HeartTarget, { kind: 'http' }>): void {
  const address = new URL(HEART_PATH, url);
  address.protocol = address.protocol.replace('http', 'ws');
  const socket = new WebSocket(address, {
    perMessageDeflate: false,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    ...(address.protocol === 'wss:' && callerOptions(tls)),
    headers: { [HEART_HEADER]: key, ...(token !== null && { authorization: `Bearer ${token}` }) },
  });
  const silence = new Silence(BUSY_SILENCE, performance.now());
  let because = 'it was closed';
  // The library answers a ping by itself.
  socket.on('ping', () => silence.heard(performance.now()));
  socket.on('error', (error) => {
    because = error.message;
  });
  socket.on('close', () => {
    clearInterval(timer);
    say({ kind: 'ended', because });
  });
  const timer = setInterval(() => {
    const nowMs = performance.now();
    if (!silence.isSilent(nowMs)) return;
    say({ kind: 'silent', because: silence.complaint(nowMs) });
    socket.terminate();
  }, BEAT_EVERY_MS);
}

if (target.kind === 'http') beatOverWebSocket(target);
else {
  // Only where it is needed: the client of NATS takes memory, and each thread has its own.
  void import('./over-nats.ts').then(async ({ beatOverNats }) => {
    say({ kind: 'ended', because: await beatOverNats(target) });
  });
}
