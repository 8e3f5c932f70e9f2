// Links over a NATS server, for workers that cannot reach each other: an ordered stream of bytes each way between two of them, on a
// pair of subjects of their own. A shell.
//
//     byte 0  kind: 1 data, 2 credit, 3 goodbye, 4 heartbeat       bytes 1-4  sequence number, u32 little-endian, from 0 each way
//     data: the stream's next bytes       credit: float64, bytes taken so far       goodbye: the reason, UTF-8
//
// NATS keeps the order of one publisher; a gap or a repetition in the sequence means that something was lost, and ends the link.
// A server drops a subscriber that falls behind, so a sender waits for credit: at most a window is under way. A peer that dies says
// nothing, so a link beats, and ends after a silence.

import { randomBytes, timingSafeEqual } from 'node:crypto';
import { connect, RequestError, type Msg, type NatsConnection } from '@nats-io/transport-node';
import { z } from 'zod';
import { LockstepError } from '../../../protocol/errors.ts';
import { encodeFrameHeader, FrameReader } from '../../../protocol/frame.ts';
import type { Link, LinkEnd } from '../../../protocol/link.ts';
import type { PeerAddress, PeerListener } from './ws.ts';

const DATA = 1;
const CREDIT = 2;
const GOODBYE = 3;
const BEAT = 4;
const HEAD_BYTES = 5;

/** Bytes that may be under way in one direction. */
export const WINDOW_BYTES = 4 * 1024 * 1024;
/** Bytes taken after which the sender is told: often enough to keep it going. */
const CREDIT_BYTES = WINDOW_BYTES / 4;
/** Of one message, where the server allows as much: large enough to be cheap, small enough to begin on. */
const CHUNK_BYTES = 256 * 1024;
/** How often a link beats, and after what silence its peer is dead. */
const TIMING = { beatMs: 500, silenceMs: 5000 };
export type NatsTiming = typeof TIMING;
const HANDSHAKE_TIMEOUT_MS = 10_000;
const CONNECT_TIMEOUT_MS = 5000;

/** Connects to a server. Throws E_NATS_UNREACHABLE. */
export async function connectNats(url: string): Promise<NatsConnection> {
  try {
    // A link does not outlive its connection: what was under way is lost.
    return await connect({ servers: url, reconnect: false, timeout: CONNECT_TIMEOUT_MS });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new LockstepError('E_NATS_UNREACHABLE', `no NATS server can be reached at ${url}: ${why}`, {
      remedy: 'Start one, or check --nats-url.',
      cause,
    });
  }
}

/** A link on the subjects `out` and `into`; what comes is kept until `receive`. */
function natsLink(connection: NatsConnection, out: string, into: string, timing: NatsTiming): Link {
  const chunkBytes = Math.min(CHUNK_BYTES, (connection.info?.max_payload ?? CHUNK_BYTES) - HEAD_BYTES);
  const queue: Uint8Array[] = [];
  let queueAt = 0;
  const drains: (() => void)[] = [];
  const early: Uint8Array[] = [];
  let reader: FrameReader | null = null;
  let [sequenceOut, sequenceIn] = [0, 0];
  let [sent, credited, taken, toldTaken] = [0, 0, 0, 0];
  let heardAt = performance.now();
  let end: LinkEnd | null = null;
  let resolveClosed: (end: LinkEnd) => void = () => {};
  const closed = new Promise<LinkEnd>((resolve) => {
    resolveClosed = resolve;
  });

  const publish = (kind: number, payload: readonly Uint8Array[]): void => {
    const message = new Uint8Array(HEAD_BYTES + payload.reduce((sum, piece) => sum + piece.byteLength, 0));
    message[0] = kind;
    new DataView(message.buffer).setUint32(1, sequenceOut, true);
    sequenceOut = (sequenceOut + 1) >>> 0;
    let at = HEAD_BYTES;
    for (const piece of payload) {
      message.set(piece, at);
      at += piece.byteLength;
    }
    if (!connection.isClosed()) connection.publish(out, message);
  };
  const finish = (how: LinkEnd): void => {
    if (end !== null) return;
    end = how;
    clearInterval(timer);
    subscription.unsubscribe();
    queue.length = 0;
    for (const resolve of drains.splice(0)) resolve();
    resolveClosed(how);
  };
  const refuse = (error: unknown): void => {
    const told = error instanceof LockstepError ? error : new LockstepError('E_FRAME', String(error), { cause: error });
    publish(GOODBYE, [new TextEncoder().encode(told.message)]);
    finish({ because: told.message, error: told });
  };
  /** Sends what the window has room for, in messages as large as may be. */
  const push = (): void => {
    if (end !== null) return;
    while (queue.length > 0 && sent - credited < WINDOW_BYTES) {
      const pieces: Uint8Array[] = [];
      let room = Math.min(chunkBytes, WINDOW_BYTES - (sent - credited));
      while (queue.length > 0 && room > 0) {
        const whole = queue[0] ?? new Uint8Array(0);
        const piece = whole.subarray(queueAt, queueAt + room);
        pieces.push(piece);
        room -= piece.byteLength;
        sent += piece.byteLength;
        queueAt += piece.byteLength;
        if (queueAt === whole.byteLength) {
          queue.shift();
          queueAt = 0;
        }
      }
      publish(DATA, pieces);
    }
    if (queue.length === 0) for (const resolve of drains.splice(0)) resolve();
  };
  const take = (bytes: Uint8Array): void => {
    if (reader === null) {
      early.push(bytes);
      return;
    }
    reader.push(bytes);
    taken += bytes.byteLength;
    if (taken - toldTaken < CREDIT_BYTES) return;
    toldTaken = taken;
    publish(CREDIT, [new Uint8Array(new Float64Array([taken]).buffer)]);
  };
  const hear = (message: Uint8Array): void => {
    if (end !== null) return;
    heardAt = performance.now();
    if (message.byteLength < HEAD_BYTES) throw new LockstepError('E_FRAME', 'a malformed message over NATS: its head');
    const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
    const sequence = view.getUint32(1, true);
    if (sequence !== sequenceIn) {
      throw new LockstepError('E_FRAME', `message ${sequence} over NATS where ${sequenceIn} was due: some were lost`);
    }
    sequenceIn = (sequenceIn + 1) >>> 0;
    const payload = message.subarray(HEAD_BYTES);
    switch (message[0]) {
      case DATA:
        take(payload);
        break;
      case CREDIT: {
        const credit = payload.byteLength === 8 ? view.getFloat64(HEAD_BYTES, true) : Number.NaN;
        if (!(credit >= credited && credit <= sent)) {
          throw new LockstepError('E_FRAME', `a malformed message over NATS: credit for ${credit} bytes`);
        }
        credited = credit;
        push();
        break;
      }
      case GOODBYE:
        finish({ because: new TextDecoder().decode(payload), error: null });
        break;
      case BEAT:
        break;
      default:
        throw new LockstepError('E_FRAME', `a malformed message over NATS: kind ${message[0]}`);
    }
  };

  const subscription = connection.subscribe(into, {
    callback: (error, message) => {
      if (error !== null) return refuse(error);
      try {
        hear(message.data);
      } catch (refusal) {
        refuse(refusal);
      }
      return undefined;
    },
  });
  const timer = setInterval(() => {
    const silent = performance.now() - heardAt;
    if (silent > timing.silenceMs)
      finish({ because: `nothing was heard of it for ${Math.round(silent / 1000)} s`, error: null });
    else publish(BEAT, []);
  }, timing.beatMs);
  timer.unref();
  void connection.closed().then((error) => {
    const why = error instanceof Error ? `: ${error.message}` : '';
    finish({ because: `the connection to the NATS server is closed${why}`, error: null });
  });

  return {
    transport: 'nats',
    send: (header, payload) => {
      if (end !== null) return;
      queue.push(encodeFrameHeader(header));
      if (payload.byteLength > 0) queue.push(payload);
      push();
    },
    receive: (sink) => {
      reader = new FrameReader(sink);
      try {
        for (const bytes of early.splice(0)) take(bytes);
      } catch (refusal) {
        refuse(refusal);
      }
    },
    closed,
    drained: () =>
      queue.length === 0 || end !== null
        ? Promise.resolve()
        : new Promise((resolve) => {
            drains.push(resolve);
          }),
    close: (because) => {
      const leave = (): void => {
        if (end !== null) return;
        publish(GOODBYE, [new TextEncoder().encode(because)]);
        finish({ because, error: null });
      };
      // What was sent before goes out before the goodbye.
      if (queue.length === 0) leave();
      else drains.push(leave);
    },
    get bytesOut() {
      return sent;
    },
    get bytesIn() {
      return taken;
    },
  };
}

const helloSchema = z.strictObject({
  token: z.string().max(1000),
  stream: z.string().regex(/^[0-9a-f]{32}$/),
  generation: z.int().min(0),
  rank: z.int().min(0),
});
type Hello = z.infer<typeof helloSchema>;

function helloOf(message: Msg): Hello | null {
  try {
    return helloSchema.parse(message.json());
  } catch {
    return null;
  }
}

function isAuthorized(given: string, expected: string | null): boolean {
  if (expected === null) return true;
  const [a, b] = [Buffer.from(given), Buffer.from(expected)];
  return a.length === b.length && timingSafeEqual(a, b);
}

/** A run's name as part of a subject. */
function subjectOf(run: string): string {
  return `lockstep.${Buffer.from(run).toString('base64url')}`;
}

/** Listens for the peers of `run` on a subject of its own. Closing it leaves the connection open. */
export function listenOverNats(
  connection: NatsConnection,
  options: { readonly token: string | null; readonly run: string; readonly timing?: NatsTiming },
): PeerListener {
  const { timing = TIMING } = options;
  const inbox = randomBytes(16).toString('hex');
  const subject = `${subjectOf(options.run)}.${inbox}`;
  const unclaimed = new Map<string, Link>();
  const claims = new Map<string, (link: Link) => void>();
  const keyOf = (peer: PeerAddress): string => `${peer.generation}/${peer.rank}`;
  const subscription = connection.subscribe(subject, {
    callback: (error, message) => {
      if (error !== null) return;
      const hello = helloOf(message);
      const answer = (value: string): void => void message.respond(value);
      if (hello === null) return answer('400 malformed');
      if (!isAuthorized(hello.token, options.token)) return answer('401 unauthorized');
      const key = keyOf(hello);
      if (unclaimed.has(key)) return answer('409 there is one already');
      const link = natsLink(connection, `${subject}.${hello.stream}.a`, `${subject}.${hello.stream}.b`, timing);
      answer('101');
      const claim = claims.get(key);
      if (claim === undefined) unclaimed.set(key, link);
      else {
        claims.delete(key);
        claim(link);
      }
    },
  });
  return {
    url: `nats:${subject}`,
    accept: async (peer) => {
      const key = keyOf(peer);
      const link = unclaimed.get(key);
      unclaimed.delete(key);
      if (link !== undefined) return link;
      return new Promise((resolve) => {
        claims.set(key, resolve);
      });
    },
    close: async () => {
      for (const link of unclaimed.values()) link.close('the worker ends');
      subscription.unsubscribe();
      if (!connection.isClosed()) await connection.flush();
    },
  };
}

/** Connects to a peer's subject, saying who `self` is. Throws E_PEER_LOST or E_UNAUTHORIZED. */
export async function connectOverNats(
  connection: NatsConnection,
  url: string,
  options: {
    readonly token: string | null;
    readonly run: string;
    readonly self: PeerAddress;
    readonly timing?: NatsTiming;
  },
): Promise<Link> {
  const subject = url.slice('nats:'.length);
  const stream = randomBytes(16).toString('hex');
  const link = natsLink(connection, `${subject}.${stream}.b`, `${subject}.${stream}.a`, options.timing ?? TIMING);
  const hello: Hello = { token: options.token ?? '', stream, ...options.self };
  let answer: string;
  try {
    answer = (await connection.request(subject, JSON.stringify(hello), { timeout: HANDSHAKE_TIMEOUT_MS })).string();
  } catch (cause) {
    const isNobody = cause instanceof RequestError && cause.isNoResponders();
    const why = isNobody ? 'nobody listens there' : cause instanceof Error ? cause.message : String(cause);
    link.close('no answer');
    throw new LockstepError('E_PEER_LOST', `no link to the peer at ${url}: ${why}`, { cause });
  }
  if (answer === '101') return link;
  link.close('refused');
  const code = answer.startsWith('401') ? 'E_UNAUTHORIZED' : 'E_PEER_LOST';
  throw new LockstepError(code, `no link to the peer at ${url}: it answered ${answer}`);
}
