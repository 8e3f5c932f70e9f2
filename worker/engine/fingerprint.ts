// An engine's fingerprint: the digest of what it contributes for a fixed microbatch at fixed weights. Two engines with equal
// fingerprints compute the same bits (as far as one microbatch of the job's own shape can tell); it is what a worker shows
// when it joins, and it catches another library, thread count, oneDNN setting or instruction set.
//
// Weights are uniform with a spread that keeps signals of order 1 through any depth (He et al. 2015), so that no layer's part
// of the gradient is lost in rounding. Cost: one gradient. It loads its own weights: call it before loading the run's.

import { RandomUse, randomStream } from '../../protocol/random.ts';
import { digestOf } from './digest.ts';
import { type Engine, type WeightEntry, contributionOf } from './engine.ts';

/** Fixed for ever: the fingerprint must not depend on the run. */
const PROBE_SEED = 0;

/**
 * @param inputShape shape of one sample
 * @param classes number of classes
 * @param microbatchSize samples in the probe: the job's own microbatch size, since kernels are chosen by shape
 */
export async function fingerprintOf(
  engine: Engine,
  inputShape: readonly number[],
  classes: number,
  microbatchSize: number,
): Promise<string> {
  const random = randomStream(PROBE_SEED, RandomUse.probe);
  const weights = new Float32Array(engine.layout.size);
  for (const entry of engine.layout.entries) {
    const { low, high } = probeRange(entry);
    for (let i = 0; i < entry.length; i++) weights[entry.offset + i] = low + (high - low) * random.uniform();
  }
  const sampleSize = inputShape.reduce((product, dimension) => product * dimension, 1);
  const inputs = Float32Array.from({ length: microbatchSize * sampleSize }, () => random.uniform());
  const labels = Int32Array.from({ length: microbatchSize }, () => random.below(classes));
  engine.loadWeights(weights);
  const out = new Float32Array(contributionOf(engine.layout).size);
  await engine.gradient(
    { size: microbatchSize, inputs, labels, random: { seed: PROBE_SEED, step: 0, microbatch: 0 } },
    out,
  );
  return digestOf(out);
}

function probeRange(entry: WeightEntry): { low: number; high: number } {
  // Scales and variances must stay away from zero; other vectors (biases, means) only need to be there.
  if (entry.shape.length < 2)
    return /gamma|variance/.test(entry.name) ? { low: 0.5, high: 1.5 } : { low: -0.1, high: 0.1 };
  const fanIn = entry.length / (entry.shape.at(-1) ?? 1);
  const high = Math.sqrt(6 / fanIn);
  return { low: -high, high };
}
