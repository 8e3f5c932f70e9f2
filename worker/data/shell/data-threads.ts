// The next microbatch is read and augmented while the engine is at work on the present one, by threads that share each microbatch
// out among them. The same floats as BatchLoader's, because a sample's floats depend on its place alone.
//
// Cost: two microbatches of memory, and a data set opened once a thread. Worth it where there are cores besides the workers' (a GPU's
// host); on two cores with two workers the threads take what the engine needs (bench/RESULTS.md).

import { Worker } from 'node:worker_threads';
import type { Augmentation, DataSet } from '../../../jobs/contract.ts';
import { microbatchRange, type BatchPlan } from '../../../protocol/batch-plan.ts';
import { LockstepError } from '../../../protocol/errors.ts';
import type { Share } from '../../../protocol/shares.ts';
import { nextTurn } from '../../next-turn.ts';
import { nextPlace } from '../ahead.ts';
import {
  isSamePlace,
  largestMicrobatch,
  loadedIn,
  type LoadedMicrobatch,
  type Loader,
  type Place,
} from '../batch-loader.ts';
import { boardMemory, RequestBoard, type BoardMemory } from './request-board.ts';
import type { FromDataThread } from './thread.ts';

/** How long the engine's thread waits at a time before it looks after its other business: a thread's failure. */
const WAIT_SLICE_MS = 5;

/** A module that opens a job's data in a thread, and what it is told. */
export interface DataSource {
  /** Its URL; it exports `openTrainingData`. */
  readonly module: string;
  /** Plain data: it is copied to the thread. */
  readonly argument: unknown;
}

export interface DataModule {
  openTrainingData(argument: unknown): Promise<{ readonly data: DataSet; readonly augmentation: Augmentation | null }>;
}

export interface ThreadData {
  readonly source: DataSource;
  readonly plan: BatchPlan;
  readonly augment: boolean;
  readonly thread: number;
  readonly threads: number;
  readonly memory: BoardMemory;
}

export interface DataThreadsOptions {
  readonly source: DataSource;
  readonly threads: number;
  readonly plan: BatchPlan;
  readonly augment: boolean;
  readonly inputShape: readonly number[];
  /** This rank's microbatches. */
  readonly mine: Share;
  /** Steps of the run: nothing is prepared beyond them. */
  readonly steps: number;
}

/** Starts the threads; resolves when each has opened the data. Rejects with what stopped one. */
export async function startDataThreads(options: DataThreadsOptions): Promise<Loader> {
  const { source, threads, plan, augment, inputShape, mine, steps } = options;
  const sampleFloats = inputShape.reduce((a, b) => a * b, 1);
  const memory = boardMemory(threads, largestMicrobatch(plan), sampleFloats);
  const board = new RequestBoard(memory);
  let isClosing = false;
  let resolveFailure: (error: LockstepError) => void = () => {};
  const failure = new Promise<LockstepError>((resolve) => {
    resolveFailure = resolve;
  });
  const fail = (error: LockstepError): void => {
    board.fail();
    resolveFailure(error);
  };
  const started = Array.from({ length: threads }, (_, thread) => {
    const data: ThreadData = { source, plan, augment, thread, threads, memory };
    const worker = new Worker(new URL('thread.mjs', import.meta.url), { workerData: data, execArgv: [] });
    const ended = new Promise<void>((resolve) => {
      worker.once('exit', () => {
        if (!isClosing) fail(new LockstepError('E_TRAINING', 'a thread that reads the data has ended'));
        resolve();
      });
    });
    const opened = new Promise<void>((resolve) => {
      worker.on('message', (message: FromDataThread) => {
        if (message.kind === 'failed') fail(new LockstepError(message.code, message.message));
        resolve();
      });
      worker.once('error', (error) => {
        fail(new LockstepError('E_TRAINING', `a thread that reads the data: ${String(error)}`, { cause: error }));
        resolve();
      });
    });
    return { worker, ended, opened: Promise.race([opened, ended]) };
  });
  const close = async (): Promise<void> => {
    isClosing = true;
    for (const { worker } of started) worker.ref();
    board.end();
    await Promise.all(started.map(async ({ ended }) => ended));
  };
  const check = async (): Promise<void> => {
    if (board.hasFailed) throw await failure;
  };
  await Promise.all(started.map(async ({ opened }) => opened));
  try {
    await check();
  } catch (error) {
    await close();
    throw error;
  }
  for (const { worker } of started) worker.unref();

  /** The request that is under way, and its place. */
  let ahead: { readonly request: number; readonly place: Place } | null = null;
  const order = (place: Place): { request: number; place: Place } => ({ request: board.post(place), place });
  return {
    load: async (place): Promise<LoadedMicrobatch> => {
      const present = ahead !== null && isSamePlace(ahead.place, place) ? ahead : order(place);
      for (let thread = 0; thread < threads; thread++) {
        while (!board.waitFor(thread, present.request, WAIT_SLICE_MS)) {
          await check();
          await nextTurn();
        }
      }
      const next = nextPlace(plan, mine, steps, place);
      ahead = next === null ? null : order(next);
      const { start, end } = microbatchRange(plan, place.batch, place.microbatch);
      return loadedIn(board.roomOf(present.request), end - start, sampleFloats);
    },
    close,
  };
}
