// Who adds what: the vector is cut into buckets (contiguous runs, in the order in which the engine delivers them), a bucket
// into one slice a rank. Every rank sends, for each node that it has folded, each slice to that slice's owner; the owner
// finishes the tree for its slice and sends the sum to all. Two hops, and the bytes of a ring: 2 (W-1)/W of the vector each way,
// when each rank's range is one node.
//
// Cuts depend on W; bits do not, because the tree is added element by element.

import { pieceOf, rankMicrobatches, type Range } from '../../protocol/batch-plan.ts';
import { nodesOf, type Node } from './tree.ts';

/** 4 MiB of floats: the tutorial's CNN is one bucket. */
export const DEFAULT_BUCKET_FLOATS = 1024 * 1024;

export interface CollectivePlan {
  readonly worldSize: number;
  readonly microbatches: number;
  readonly length: number;
  readonly buckets: readonly Range[];
  /** slices[bucket][rank], in floats of the whole vector. */
  readonly slices: readonly (readonly Range[])[];
  /** Nodes that each rank folds and sends. */
  readonly nodes: readonly (readonly Node[])[];
}

export function planCollective(options: {
  worldSize: number;
  microbatches: number;
  length: number;
  bucketFloats?: number;
}): CollectivePlan {
  const { worldSize, microbatches, length } = options;
  const bucketFloats = options.bucketFloats ?? DEFAULT_BUCKET_FLOATS;
  const bucketCount = Math.max(1, Math.ceil(length / bucketFloats));
  const buckets = Array.from({ length: bucketCount }, (_, i) => pieceOf({ start: 0, end: length }, bucketCount, i));
  const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
  return {
    worldSize,
    microbatches,
    length,
    buckets,
    slices: buckets.map((bucket) => ranks.map((rank) => pieceOf(bucket, worldSize, rank))),
    nodes: ranks.map((rank) => nodesOf(rankMicrobatches(microbatches, worldSize, rank))),
  };
}
