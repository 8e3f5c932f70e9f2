// Which samples make up global batch s, and which microbatch each belongs to: a function of (seed, epoch, position) alone,
// computed by everyone, sent by no one. Every sample is used exactly once an epoch, the last, short batch included.
//
// Cost: one shuffle an epoch (50,000 samples: about 6 ms).

import { RandomUse, randomStream } from './random.ts';

export interface BatchPlan {
  readonly samples: number;
  readonly globalBatch: number;
  /** M, a power of two. */
  readonly microbatches: number;
  readonly seed: number;
}

/** A half-open range [start, end). */
export interface Range {
  readonly start: number;
  readonly end: number;
}

export function stepsPerEpoch(plan: BatchPlan): number {
  return Math.ceil(plan.samples / plan.globalBatch);
}

/** Steps and epochs count from 0 here; people see them from 1. */
export function placeOfStep(plan: BatchPlan, step: number): { epoch: number; batch: number } {
  const perEpoch = stepsPerEpoch(plan);
  return { epoch: Math.floor(step / perEpoch), batch: step % perEpoch };
}

/** Positions (in the epoch's permutation) that batch `batch` of an epoch covers. */
export function batchRange(plan: BatchPlan, batch: number): Range {
  const start = batch * plan.globalBatch;
  return { start, end: Math.min(plan.samples, start + plan.globalBatch) };
}

/** Cuts `range` into `pieces` as even as can be: piece i is [floor(i n / pieces), floor((i + 1) n / pieces)). */
export function pieceOf(range: Range, pieces: number, index: number): Range {
  const size = range.end - range.start;
  return {
    start: range.start + Math.floor((index * size) / pieces),
    end: range.start + Math.floor(((index + 1) * size) / pieces),
  };
}

/** Positions of microbatch `microbatch` of batch `batch`; empty when a short batch has fewer samples than M. */
export function microbatchRange(plan: BatchPlan, batch: number, microbatch: number): Range {
  return pieceOf(batchRange(plan, batch), plan.microbatches, microbatch);
}

/** The epoch's order of samples: a Fisher-Yates shuffle (Durstenfeld 1964) driven by the counter-based generator. */
export function epochPermutation(plan: BatchPlan, epoch: number): Uint32Array {
  const order = Uint32Array.from({ length: plan.samples }, (_, i) => i);
  const random = randomStream(plan.seed, RandomUse.shuffle, epoch);
  for (let i = plan.samples - 1; i > 0; i--) {
    const j = random.below(i + 1);
    const kept = order[i] ?? 0;
    order[i] = order[j] ?? 0;
    order[j] = kept;
  }
  return order;
}

/** The contiguous microbatches that `rank` computes: as even as can be over the active ranks (at most M of them). */
export function rankMicrobatches(microbatches: number, worldSize: number, rank: number): Range {
  return pieceOf({ start: 0, end: microbatches }, worldSize, rank);
}
