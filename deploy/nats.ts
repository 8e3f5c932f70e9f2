// The NATS server of a run: from the flags, with what it is to be shown.

import { readFileSync } from 'node:fs';
import { parseNatsUrl, secretUrlOf, type NatsServer } from '../nats/server.ts';
import { LockstepError } from '../protocol/errors.ts';
import { DEFAULT_NATS_URL, environmentName, FLAGS, type TrainFlags } from './options/flags.ts';
import { readTls } from './tls-files.ts';

/** With the text of a credentials file. Throws E_USAGE when it can't be read. */
export function withCredentials(server: NatsServer, file: string | undefined): NatsServer {
  if (file === undefined) return server;
  try {
    return { ...server, credentials: readFileSync(file, 'utf8') };
  } catch (cause) {
    throw new LockstepError('E_USAGE', `the NATS credentials file ${file} cannot be read`, {
      remedy: 'Give --nats-creds a readable file.',
      cause,
    });
  }
}

/** With whom to trust there, where that is reached by tls://; `file` as --tls-ca names it. Throws E_TLS. */
export function trusting(server: NatsServer, file: string | undefined): NatsServer {
  if (!server.tls || file === undefined) return server;
  const tls = readTls({ tlsCert: undefined, tlsKey: undefined, tlsCa: file }, Date.now());
  return { ...server, ca: tls?.ca ?? null };
}

/** Null: this run goes without. */
export function natsServerOf(flags: TrainFlags): NatsServer | null {
  if (flags.transport !== 'nats') return null;
  const server = flags.natsUrl ?? parseNatsUrl(DEFAULT_NATS_URL)?.server;
  if (server === undefined) throw new TypeError(`${DEFAULT_NATS_URL} is a URL`);
  return trusting(withCredentials(server, flags.natsCreds), flags.tlsCa);
}

/** Connects and leaves. Throws E_NATS_UNREACHABLE or E_NATS_REFUSED. */
export async function tryNats(
  server: NatsServer,
): Promise<{ version: string; payloadBytes: number; hasJetStream: boolean }> {
  const { connectNats } = await import('../nats/connect.ts');
  const nats = await connectNats(server, 'lockstep');
  const { info } = nats.connection;
  const { payloadBytes } = nats;
  await nats.close();
  return { version: info?.version ?? 'unknown', payloadBytes, hasJetStream: info?.jetstream === true };
}

/** What workers started here must know and no command line may show. */
export function natsEnvironment(flags: TrainFlags): Record<string, string> {
  return {
    ...(flags.natsUrl !== undefined && { [environmentName(FLAGS.natsUrl.syntax)]: secretUrlOf(flags.natsUrl) }),
    ...(flags.natsCreds !== undefined && { [environmentName(FLAGS.natsCreds.syntax)]: flags.natsCreds }),
  };
}

/** Where workers join the run. */
export function joinUrl(server: NatsServer, run: string): string {
  return `${server.url}/${encodeURIComponent(run)}`;
}

/** Between two looks whether a NATS server is back. */
const NATS_AGAIN_MS = 500;

/** Tries the server until it answers, for `seconds` at most; false: it did not, or nobody wants it to any more. */
export async function isNatsBack(
  server: NatsServer,
  seconds: number,
  isOver: () => boolean = () => false,
): Promise<boolean> {
  const until = performance.now() + 1000 * seconds;
  process.stderr.write(`lockstep: waiting for the NATS server at ${server.url} (--wait-limit ${seconds} s)\n`);
  while (!isOver() && performance.now() < until) {
    await pause(NATS_AGAIN_MS);
    try {
      await tryNats(server);
      return true;
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
    }
  }
  return false;
}

export async function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
