// What the collective must know of a run's steps: the vector that is summed (train.ts: the engine's contribution and one float more),
// into how many microbatches and buckets it is cut, and how it travels.

import type { RunConfig } from '../protocol/run-config.ts';
import type { GenerationPlan } from './collective/shell/exchange.ts';
import { contributionOf, type WeightLayout } from './engine/engine.ts';

export function stepVectorOf(
  { gradientCompression, microbatches, bucketBytes }: RunConfig,
  layout: WeightLayout,
): Omit<GenerationPlan, 'worldSize' | 'hosts' | 'generation' | 'rank'> {
  return {
    microbatches,
    length: contributionOf(layout).size + 1,
    // The collective counts its rounds, not the run's steps: where a generation begins is known when its links are up.
    firstStep: 0,
    ...(bucketBytes !== null && { bucketFloats: bucketBytes / Float32Array.BYTES_PER_ELEMENT }),
    compression:
      gradientCompression === 'none' ? null : { elements: gradientCompression, floats: layout.trainableSize },
  };
}
