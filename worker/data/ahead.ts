// What comes after a microbatch: the order in which one rank needs them, so that the next can be prepared while the engine is at
// work on the present one. And how many threads that is worth. Core.

import { placeOfStep, stepsPerEpoch, type BatchPlan } from '../../protocol/batch-plan.ts';
import type { Share } from '../../protocol/shares.ts';
import type { Place } from './batch-loader.ts';

/** More threads than this prepare a batch faster than any engine here has used it up. */
const MAX_DATA_THREADS = 8;
/** What a worker needs besides: the engine's thread and the communication thread. */
const OTHER_THREADS = 2;

/** The place that a rank with microbatches `mine` needs after `place`; null at the end of `steps` steps. */
export function nextPlace(plan: BatchPlan, mine: Share, steps: number, place: Place): Place | null {
  const { epoch, batch, microbatch } = place;
  const next = mine[mine.indexOf(microbatch) + 1];
  if (next !== undefined) return { epoch, batch, microbatch: next };
  const step = epoch * stepsPerEpoch(plan) + batch + 1;
  const [first] = mine;
  return step < steps && first !== undefined ? { ...placeOfStep(plan, step), microbatch: first } : null;
}

/** Threads of one worker that prepare its data, where `workers` share `cores`: none where there is no core for them. */
export function dataThreadsFor(cores: number, workers: number): number {
  return Math.min(MAX_DATA_THREADS, Math.max(0, Math.floor(cores / Math.max(1, workers)) - OTHER_THREADS));
}
