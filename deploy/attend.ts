// A coordinator that nobody launched, over NATS: it comes back by itself when its server is lost, to whichever server of the cluster
// answers, as the launcher would start another one; and with --standby it waits first until the one that leads is silent, and takes the
// run over then. In the same process, on the same port: what was in the one before ends with it.
//
// Whether a leader is silent is decided by coordinator/core/lease.ts; that no two lead is seen to by their terms (coordinator/core/fence.ts).
// One that woke and finds itself replaced stands by again.

import { connectNats, type Nats } from '../nats/connect.ts';
import type { NatsServer } from '../nats/server.ts';
import { basename, resolve } from 'node:path';
import { findRunBucket, LEASE_EVERY_MS, LeaseWatch, readLease, type Standing } from '../coordinator/main.ts';
import { LockstepError, type ErrorCode } from '../protocol/errors.ts';
import { EXIT_CODES, NATS_LOST_EXIT } from './launch-messages.ts';
import { isNatsBack, pause } from './nats.ts';
import type { TrainOptions } from './options.ts';

/** How a coordinator begins. */
export interface Beginning {
  readonly options: TrainOptions;
  /** It takes the place of another, whose workers are there. */
  readonly isTakeover: boolean;
  /** Told where it listens. */
  readonly onListening?: (url: string) => void;
}

/** Of a server that may come back, or an answer that may. */
const GONE: ReadonlySet<ErrorCode> = new Set(['E_NATS_UNREACHABLE', 'E_NATS_LOST']);
/** Somebody else leads, or has not come so far that there is anything to take over. */
const LED: ReadonlySet<ErrorCode> = new Set(['E_FENCED', 'E_RUN_IN_USE', 'E_RUN_NOT_FOUND']);
/** Between two tries of a stand-by to take over, or to reach its server. */
const AGAIN_MS = 1000;

const say = (line: string): void => void process.stderr.write(`lockstep: ${line}\n`);
const isOf = (error: unknown, codes: ReadonlySet<ErrorCode>): error is LockstepError =>
  error instanceof LockstepError && codes.has(error.code);

/** Runs coordinators by `begin`, one after another, to the end of the run; returns the exit code. */
export async function attend(
  options: TrainOptions,
  server: NatsServer,
  begin: (beginning: Beginning) => Promise<number>,
): Promise<number> {
  const { standby, waitLimit } = options.flags;
  let { flags } = options;
  /** It has led, and lost its server: nobody else may have noticed yet. */
  let isTakeover = false;
  const onListening = (url: string): void => {
    const { port } = new URL(url);
    if (flags.listen.port === 0) flags = { ...flags, listen: { ...flags.listen, port: Number(port) } };
  };
  for (;;) {
    if (standby && !isTakeover) {
      const standing = await standBy(server, basename(resolve(flags.runDir ?? '')));
      if (standing.kind === 'over') {
        say(`stand-by: the run is over (${standing.outcome})`);
        return EXIT_CODES[standing.outcome];
      }
    }
    if (standby || isTakeover) flags = { ...flags, resume: true };
    try {
      const code = await begin({ options: { ...options, flags }, isTakeover: standby || isTakeover, onListening });
      if (code !== NATS_LOST_EXIT) return code;
    } catch (error) {
      const isToWait = isOf(error, GONE) ? standby || isTakeover : standby && isOf(error, LED);
      if (!isToWait || !(error instanceof LockstepError)) throw error;
      say(`${standby ? 'stand-by: ' : ''}${error.message}`);
      await pause(AGAIN_MS);
      if (isOf(error, LED)) {
        isTakeover = false;
        continue;
      }
    }
    if (!(await isNatsBack(server, waitLimit))) return 1;
    isTakeover = true;
  }
}

/** Resolves when the leader is silent, or the run is over. */
async function standBy(server: NatsServer, run: string): Promise<Extract<Standing, { kind: 'silent' | 'over' }>> {
  const watch = new LeaseWatch();
  let told = '';
  const tell = (line: string): void => {
    if (line !== told) say(`stand-by: ${line}`);
    told = line;
  };
  for (;;) {
    let nats: Nats;
    try {
      nats = await connectNats(server, `lockstep ${run}: stand-by`, 'coordinator');
    } catch (error) {
      if (!isOf(error, GONE)) throw error;
      tell(error.message);
      await pause(AGAIN_MS);
      continue;
    }
    if (nats.connection.info?.jetstream !== true) {
      await nats.close();
      throw new LockstepError('E_NATS_REFUSED', `the NATS server at ${server.url} runs without JetStream`, {
        remedy: 'A coordinator can stand by only where the server keeps the record of the one that leads.',
      });
    }
    try {
      const standing = await watchOver(nats, run, watch, tell);
      if (standing !== null) return standing;
    } finally {
      await nats.close();
    }
  }
}

/** As `standBy`; null: the connection is lost. */
async function watchOver(
  nats: Nats,
  run: string,
  watch: LeaseWatch,
  tell: (line: string) => void,
): Promise<Extract<Standing, { kind: 'silent' | 'over' }> | null> {
  let bucket: Awaited<ReturnType<typeof findRunBucket>> = null;
  for (; !nats.connection.isClosed(); await pause(LEASE_EVERY_MS)) {
    let standing: Standing;
    try {
      bucket ??= await findRunBucket(nats, run);
      const lease = bucket === null ? null : await readLease(bucket.store);
      standing = watch.look(lease, performance.now());
    } catch {
      // No look: nobody is called silent for it.
      continue;
    }
    if (standing.kind === 'nobody') tell(`no coordinator has begun the run ${run} yet`);
    if (standing.kind === 'led') {
      const { pid, host, term } = standing.by;
      tell(`the run ${run} is led by process ${pid} on ${host} (term ${term})`);
    }
    if (standing.kind === 'silent') {
      const { pid, host, term } = standing.by;
      tell(`process ${pid} on ${host} (term ${term}) is silent: ${standing.because}; this one takes over`);
      return standing;
    }
    if (standing.kind === 'over') return standing;
  }
  return null;
}
