// The test set cut into fixed chunks, shared out over the ranks. A chunk is always evaluated whole, in one shape, and the
// coordinator sums chunks in their order: the same result for any number of workers, every sample counted once.

import { pieceOf, type Range } from '../../protocol/batch-plan.ts';

/** Samples in a chunk: large enough for the engine, small enough in memory (250 CIFAR-10 images: 3 MB). */
export const EVALUATION_CHUNK = 250;

export function chunkCount(testSamples: number): number {
  return Math.ceil(testSamples / EVALUATION_CHUNK);
}

export function chunkRange(testSamples: number, chunk: number): Range {
  return { start: chunk * EVALUATION_CHUNK, end: Math.min(testSamples, (chunk + 1) * EVALUATION_CHUNK) };
}

/** Chunks that `rank` evaluates. */
export function rankChunks(testSamples: number, worldSize: number, rank: number): Range {
  return pieceOf({ start: 0, end: chunkCount(testSamples) }, worldSize, rank);
}
