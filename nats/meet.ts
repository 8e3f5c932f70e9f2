// How two processes meet on a NATS server: one listens on a subject, the other calls there; what follows is a stream on subjects that
// only the two know. A shell.
//
// Anybody on the server may hear the call, so the run's token is not in it: the caller proves that it knows the token (an HMAC over what
// it says, where, and a number drawn for this call), the listener answers with a proof of its own, and the stream's subjects follow from
// the token. What a stranger with the right to publish on `lockstep.>` can still do is disturb: accounts and permissions of NATS are
// for that.

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { errors, type Msg } from '@nats-io/transport-node';
import { z } from 'zod';
import { LockstepError, type ErrorCode } from '../protocol/errors.ts';
import { secretOf } from '../protocol/token.ts';
import type { Nats } from './connect.ts';
import { openStream, type NatsStream, type StreamTiming, type StreamWindows } from './stream.ts';

const ANSWER_TIMEOUT_MS = 10_000;

/** Calls that are remembered, so that no recorded one is taken again. */
const MAX_CALLS_REMEMBERED = 65_536;

const callSchema = z.strictObject({
  call: z.string().regex(/^[0-9a-f]{32}$/),
  /** What the caller says of itself, as JSON. */
  about: z.string().max(300),
  /** Of a token that was made from the run's key, all but its signature, which is what the proof is by; empty: it is by the key. */
  claim: z.string().max(200),
  proof: z.string().regex(/^[0-9a-f]{64}$/),
});
const answerSchema = z.strictObject({
  /** `101` where the call is taken, else a status and why not. */
  answer: z.string().max(300),
  proof: z.string().max(64),
});

/** What a caller is told by its own code. */
const NAMED: readonly ErrorCode[] = ['E_UNAUTHORIZED', 'E_TOKEN_EXPIRED', 'E_FORBIDDEN'];

function parsed<T>(schema: z.ZodType<T>, message: Msg): T | null {
  try {
    return schema.parse(message.json());
  } catch {
    return null;
  }
}

/** The value of a JSON text; undefined where it is none. */
function valueOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** By a token, a text of 64 hexadecimal digits for each list of words. Null: an open run, whose proofs prove nothing. */
function proofOf(token: string | null, ...words: readonly string[]): string {
  return createHmac('sha256', token ?? '')
    .update(JSON.stringify(words))
    .digest('hex');
}

function isProof(given: string, expected: string): boolean {
  return given.length === expected.length && timingSafeEqual(Buffer.from(given), Buffer.from(expected));
}

interface StreamSubjects {
  readonly caller: string;
  readonly listener: string;
}

function streamSubjects(subject: string, call: string, token: string | null): StreamSubjects {
  const own = `${subject}.${proofOf(token, 'stream', subject, call).slice(0, 32)}`;
  return { caller: `${own}.caller`, listener: `${own}.listener` };
}

type Refusal = 'E_UNAUTHORIZED' | 'E_TOKEN_EXPIRED' | 'E_FORBIDDEN' | 'E_REPLAYED' | 'E_MESSAGE';

export interface ListenOptions {
  readonly token: string | null;
  /** What only the holder of a token with this claim can prove by, or why it is not taken; none: only the key's holders may call. */
  readonly secretOfClaim?: (claim: string) => { readonly secret: string } | { readonly code: Refusal };
  readonly windows?: StreamWindows;
  readonly timing?: StreamTiming;
  /** A caller that knows the token, and what it says of itself. Returns null and uses `open` to take the call, else the refusal. */
  readonly onCall: (about: unknown, open: () => NatsStream) => string | null;
  readonly onRefused: (code: Refusal) => void;
}

/** Listens on a subject; resolves when the server knows. Closing it leaves the streams open. */
export async function listenOn(
  nats: Nats,
  subject: string,
  options: ListenOptions,
): Promise<{ close(): Promise<void> }> {
  const { token, windows, timing } = options;
  const seen = new Set<string>();
  const refuse = (status: number, code: Refusal): string => {
    options.onRefused(code);
    return `${status} ${code}`;
  };
  /** By which a caller proves that it may call. */
  const secretFor = (claim: string): { readonly secret: string | null } | { readonly code: Refusal } => {
    if (token === null || claim === '') return { secret: token };
    return options.secretOfClaim?.(claim) ?? { code: 'E_UNAUTHORIZED' };
  };
  const take = ({ call, about, proof }: z.infer<typeof callSchema>, secret: string | null): string => {
    if (secret !== null && !isProof(proof, proofOf(secret, 'call', subject, call, about))) {
      return refuse(401, 'E_UNAUTHORIZED');
    }
    if (seen.has(call)) return refuse(409, 'E_REPLAYED');
    seen.add(call);
    const [oldest] = seen;
    if (seen.size > MAX_CALLS_REMEMBERED && oldest !== undefined) seen.delete(oldest);
    const { caller, listener } = streamSubjects(subject, call, secret);
    const open = (): NatsStream => {
      const stream = openStream(nats, { out: caller, into: listener }, windows, timing);
      stream.begin();
      return stream;
    };
    return options.onCall(valueOf(about), open) ?? '101';
  };
  const subscription = nats.connection.subscribe(subject, {
    callback: (error, message) => {
      if (error !== null) return undefined;
      const said = parsed(callSchema, message);
      const by = said === null ? { code: 'E_MESSAGE' as const } : secretFor(said.claim);
      const answer =
        said === null || 'code' in by
          ? refuse(said === null ? 400 : 401, 'code' in by ? by.code : 'E_MESSAGE')
          : take(said, by.secret);
      const proof = proofOf('code' in by ? token : by.secret, 'answer', subject, said?.call ?? '', answer);
      message.respond(JSON.stringify({ answer, proof }));
      return undefined;
    },
  });
  await nats.connection.flush();
  return {
    close: async () => {
      subscription.unsubscribe();
      if (!nats.connection.isClosed()) await nats.connection.flush().catch(() => undefined);
    },
  };
}

/**
 * Calls who listens on a subject. Throws E_UNAUTHORIZED where one side does not know the token, `lostCode` where nobody answers or the
 * call is refused.
 */
export async function callOn(
  nats: Nats,
  subject: string,
  options: {
    readonly token: string | null;
    readonly about: unknown;
    /** Who is called, for errors. */
    readonly whom: string;
    readonly lostCode: 'E_PEER_LOST' | 'E_COORDINATOR_LOST';
    readonly remedy?: string;
    readonly windows?: StreamWindows;
    readonly timing?: StreamTiming;
  },
): Promise<NatsStream> {
  const { whom, lostCode, remedy } = options;
  const { claim, secret } = options.token === null ? { claim: '', secret: null } : secretOf(options.token);
  const more = remedy === undefined ? {} : { remedy };
  const call = randomBytes(16).toString('hex');
  const about = JSON.stringify(options.about);
  const { caller, listener } = streamSubjects(subject, call, secret);
  const stream = openStream(nats, { out: listener, into: caller }, options.windows, options.timing);
  let message: Msg;
  try {
    const words = { call, about, claim, proof: proofOf(secret, 'call', subject, call, about) };
    message = await nats.connection.request(subject, JSON.stringify(words), { timeout: ANSWER_TIMEOUT_MS });
  } catch (cause) {
    const isNobody = cause instanceof errors.RequestError && cause.isNoResponders();
    const why = isNobody ? 'nobody listens there' : cause instanceof Error ? cause.message : String(cause);
    stream.close('no answer');
    throw new LockstepError(lostCode, `no link to ${whom}: ${why}`, { ...more, cause });
  }
  const { answer, proof } = parsed(answerSchema, message) ?? { answer: '400 a malformed answer', proof: '' };
  const isTaken = answer === '101';
  if (isTaken && (secret === null || isProof(proof, proofOf(secret, 'answer', subject, call, answer)))) {
    stream.begin();
    return stream;
  }
  stream.close('refused');
  if (isTaken)
    throw new LockstepError('E_UNAUTHORIZED', `no link to ${whom}: who answered does not know the run's token`);
  const code = NAMED.find((one) => answer.endsWith(one)) ?? lostCode;
  throw new LockstepError(code, `no link to ${whom}: it answered ${answer}`, more);
}
