// The workers of a run as whoever supervises its coordinator has them (train.ts): a machine's own processes, here, or those of other
// hosts (launch/fleet.ts).

import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { engineEnvironment } from '../worker/engine/environment.ts';
import { processorsHere } from './affinity.ts';
import { waitAfter, type Backoff } from './backoff.ts';
import { isEngineNoise } from './engine-noise.ts';
import type { Listening, ToCoordinator } from './launch-messages.ts';
import { placeFor, type Pin, type Place } from './pinning.ts';
import { findGpus, type Gpu, gpuOf } from './setup/nvidia.ts';
import { WorkerProcesses, type WorkerLaunch } from './worker-processes.ts';

export const ENTRY = fileURLToPath(new URL('lockstep.mjs', import.meta.url));

/** Between two starts of one worker in a row without a step between them. */
export const WORKER_BACKOFF: Backoff = { firstMs: 1000, mostMs: 30_000 };

export interface Crew {
  /** The first coordinator listens: workers can join. `tell` reaches whichever coordinator there is. */
  begin(listening: Listening, tell: (message: ToCoordinator) => void): void;
  /** The coordinator wants this one started anew; `attempt`: which one since its last step, from 1. */
  startWorker(localRank: number, attempt: number): void;
  /** It is to end, and may not hear of it otherwise. */
  endWorker(worker: { readonly host: string; readonly pid: number }): void;
  /** What a coordinator that died may not have acted on: the next is told of it. */
  untold(): readonly ToCoordinator[];
  /** Nobody waits any more. */
  kill(): void;
  /** The run is over; resolves when no worker is left. */
  end(): Promise<void>;
}

export interface LocalCrewOptions {
  readonly job: string;
  /** Further flags of `lockstep worker`. */
  readonly flags: readonly string[];
  readonly environment: WorkerEnvironment;
  /** What workers write is shown, too. */
  readonly isShown: boolean;
}

export interface WorkerEnvironment {
  /** For the engine on NVIDIA's GPUs: one a worker, in turn. */
  readonly gpus: readonly Gpu[];
  readonly adapter: string | null;
  readonly pin: Pin;
  /** What they must know and no command line may show. */
  readonly secrets: Readonly<Record<string, string>>;
}

/** The GPUs of the engine that runs on NVIDIA's; none for another. */
export async function gpusFor(engine: string): Promise<readonly Gpu[]> {
  const list = engine === 'tensorflow-gpu' ? await findGpus() : null;
  return list?.found === true ? list.gpus : [];
}

/** One worker a GPU; on the CPU, where a worker takes one thread, one a core. */
export async function workersHere(engine: string, adapters: string | null): Promise<number> {
  if (engine === 'webgpu') return adapters === null ? 1 : adapters.split(',').length;
  const gpus = await gpusFor(engine);
  return gpus.length > 0 ? gpus.length : availableParallelism();
}

export function environmentOf(
  { gpus, adapter, secrets }: WorkerEnvironment,
  localRank: number,
): Record<string, string> {
  const gpu = gpuOf(gpus, localRank);
  return {
    ...engineEnvironment(1),
    ...secrets,
    ...(gpu !== null && { CUDA_VISIBLE_DEVICES: gpu.uuid }),
    ...(adapter !== null && { LOCKSTEP_ADAPTER: adapter }),
  };
}

/** Where `--pin` puts each of `workers`. A worker on a GPU is left where the system likes: which memory is near to which GPU is not known. */
export function placesFor({ pin, gpus }: WorkerEnvironment, workers: number): (localRank: number) => Place | null {
  const processors = pin === 'off' || gpus.length > 0 ? null : processorsHere();
  return (localRank) => (processors === null ? null : placeFor(pin, processors, localRank, workers));
}

/** The workers of this machine. */
export function localCrew(options: LocalCrewOptions): Crew {
  const workers = new WorkerProcesses();
  /** By local rank, those that have ended and were not started anew. */
  const ended = new Map<number, ToCoordinator>();
  let launch: WorkerLaunch | null = null;
  let tell: (message: ToCoordinator) => void = () => {};

  const start = (localRank: number, waitMs: number): void => {
    if (launch === null) return;
    ended.delete(localRank);
    workers.start(
      launch,
      localRank,
      (end) => {
        const message: ToCoordinator = { kind: 'worker-ended', end };
        ended.set(localRank, message);
        tell(message);
      },
      waitMs,
    );
  };

  return {
    begin: (listening, tellCoordinator) => {
      tell = tellCoordinator;
      launch = {
        entry: ENTRY,
        coordinatorUrl: listening.url,
        tokenFile: listening.tokenFile,
        job: options.job,
        flags: options.flags,
        logDirectory: listening.logDirectory,
        onLine: options.isShown
          ? (localRank, text) => {
              if (!isEngineNoise(text)) tell({ kind: 'worker-line', worker: String(localRank), text });
            }
          : null,
        localWorldSize: listening.workers,
        environment: (localRank) => environmentOf(options.environment, localRank),
        placeOf: placesFor(options.environment, listening.workers),
      };
      for (let localRank = 0; localRank < listening.workers; localRank++) start(localRank, 0);
    },
    startWorker: (localRank, attempt) => start(localRank, waitAfter(attempt, WORKER_BACKOFF)),
    endWorker: ({ pid }) => workers.kill(pid),
    untold: () => [...ended.values()],
    kill: () => workers.signal('SIGKILL'),
    end: () => workers.end(),
  };
}
