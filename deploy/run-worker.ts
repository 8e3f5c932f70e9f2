// `lockstep worker`: one worker process. Finds on this machine what the coordinator's welcome names - the job's code, its data,
// the engine's library - and hands it to worker/main.ts.

import { LockstepError } from '../protocol/errors.ts';
import type { Tls } from '../protocol/tls.ts';
import { engineEnvironment } from '../worker/engine/environment.ts';
import { runWorker } from '../worker/main.ts';
import { loadJob, resolveReference } from './job-file.ts';
import { trusting, withCredentials } from './nats.ts';
import { openEngine } from './open-engine.ts';
import type { CoordinatorAddress } from './options.ts';
import type { LocalTransport } from './options/flags.ts';
import { EXIT_CODES } from './launch-messages.ts';
import type { Address } from './options/values.ts';
import { dataSetDirectory, ensureDataSet, looksWhole, type DataFrom } from './setup/dataset.ts';
import type { DataHost } from './setup/from-coordinator.ts';
import { readToken } from './token.ts';
import { LOCKSTEP_VERSION } from './version.ts';
import { SHARERS, SUPERVISOR } from './worker-processes.ts';

/** Between two looks whether the supervisor is still there. */
const LOOK_EVERY_MS = 1000;

export interface WorkerCommand {
  readonly coordinator: CoordinatorAddress;
  readonly natsCreds: string | undefined;
  /** The job on this machine's disk, when it lies elsewhere than the coordinator says; its hash must be the same. */
  readonly job: string | null;
  readonly tokenFile: string | null;
  /** In place of the run's; null: the run's. The coordinator refuses one that computes other bits. */
  readonly engine: string | null;
  readonly adapter: string | null;
  readonly peerListen: Address | null;
  readonly localTransport: LocalTransport;
  readonly tls: Tls | null;
  /** Seconds for which it goes on after a SIGTERM. */
  readonly termGrace: number;
  /** As --tls-ca names it: over NATS it is of the server. */
  readonly tlsCa: string | undefined;
  /** Where it gets the data set from that is not in the cache. */
  readonly dataFrom: DataFrom;
}

const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** Over NATS the coordinator may be out of reach: it is not asked. */
function dataFrom({ coordinator, dataFrom: from, tokenFile, tls }: WorkerCommand): {
  from: DataFrom;
  coordinator: DataHost | null;
} {
  if (coordinator.kind === 'nats') return { from, coordinator: null };
  return {
    from,
    coordinator: { url: coordinator.url, token: tokenFile === null ? null : readToken(tokenFile), tls },
  };
}

/** A host that is started anew has no workers of before: they end with the supervisor that started them, however that ended. */
function endWith(supervisor: string | undefined): void {
  if (supervisor === undefined) return;
  setInterval(() => {
    if (process.ppid !== Number(supervisor)) process.exit(1);
  }, LOOK_EVERY_MS).unref();
}

/** Runs to the worker's end; returns the exit code. Throws what made it fail; its first line on stderr is the reason. */
export async function runWorkerCommand(command: WorkerCommand): Promise<number> {
  if (command.termGrace > 0) outstayTerm(command.termGrace);
  // Read by the native library when it is loaded, below; set here for workers that were started by hand.
  for (const [name, value] of Object.entries(engineEnvironment(1))) process.env[name] ??= value;
  if (command.adapter !== null) process.env['LOCKSTEP_ADAPTER'] = command.adapter;
  const workersHere = Number(process.env[SHARERS] ?? process.env['LOCAL_WORLD_SIZE'] ?? 1);
  endWith(process.env[SUPERVISOR]);
  const localRank = Number.parseInt(process.env['LOCAL_RANK'] ?? '', 10);
  const outcome = await runWorker({
    coordinator:
      command.coordinator.kind === 'http'
        ? command.coordinator
        : {
            ...command.coordinator,
            server: trusting(withCredentials(command.coordinator.server, command.natsCreds), command.tlsCa),
          },
    token: command.tokenFile === null ? null : readToken(command.tokenFile),
    localRank: Number.isNaN(localRank) ? null : localRank,
    workersHere: Number.isInteger(workersHere) && workersHere > 0 ? workersHere : 1,
    lockstepVersion: LOCKSTEP_VERSION,
    peerListen: command.peerListen,
    localWays: { unix: command.localTransport !== 'tcp', shm: command.localTransport === 'shm' },
    tls: command.tls,
    openJob: async (reference) => {
      const loaded = await loadJob(command.job ?? resolveReference(reference));
      if (loaded.reference.sha256 !== reference.sha256) {
        throw new LockstepError(
          'E_JOB_CHANGED',
          `the job at ${loaded.path} is not the coordinator's: its source differs`,
          {
            remedy: 'Copy the same job file to every machine, or name it with --job.',
          },
        );
      }
      return loaded.definition;
    },
    openEngine: async (job, config) =>
      openEngine(job, command.engine === null ? config : { ...config, engine: command.engine }),
    openData: async (job) => {
      // Who starts workers on its own machine has verified it.
      if (Number.isNaN(localRank) || !looksWhole(job.data))
        await ensureDataSet(job.data, say, () => {}, dataFrom(command));
      return job.data.open(dataSetDirectory(job.data));
    },
    dataSource: (reference) => ({
      module: new URL('training-data.ts', import.meta.url).href,
      argument: command.job ?? resolveReference(reference),
    }),
    // For a job's code, as other launchers have it; here both change with the generation.
    placed: ({ rank, worldSize }) => Object.assign(process.env, { RANK: String(rank), WORLD_SIZE: String(worldSize) }),
    log: say,
  });
  return EXIT_CODES[outcome];
}

/**
 * A scheduler that ends or moves a whole job tells all of its processes at once, and the coordinator's checkpoint needs the workers: they
 * train on until it dismisses them, or the time is over.
 */
function outstayTerm(seconds: number): void {
  let isTold = false;
  // More than once: a scheduler may signal each process and its group, too.
  process.on('SIGTERM', () => {
    if (isTold) return;
    isTold = true;
    process.stdout.write(`SIGTERM: goes on for ${seconds} s at most, until the coordinator stops\n`);
    setTimeout(() => process.exit(EXIT_CODES.stopped), 1000 * seconds).unref();
  });
}
