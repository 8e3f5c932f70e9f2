// Chance inside a model, keyed. Layers draw their numbers (dropout, noise) through four functions of tfjs-core; for the length
// of one forward pass these lead to `Draws`, where a number depends on the key of the pass (seed, step, microbatch) and on
// which draw of the pass it is (so on the layer), and on nothing that ran before. A seed that a layer names itself is not used:
// the key decides, and a fixed seed would give the same mask in every step.
//
// While a model is built, and for code that calls Math.random itself, Math.random is a counter-based stream.
//
// Not covered: `tf.multinomial` and `tf.randomGamma`, whose numbers come from elsewhere. Eagerly they follow Math.random where
// tfjs seeds them by it; a trace refuses them.

import { createRequire } from 'node:module';
import type * as TensorFlow from '@tensorflow/tfjs';
import type { Tf } from '../../../jobs/contract.ts';
import type { RandomStream } from '../../../protocol/random.ts';

type Tensor = TensorFlow.Tensor;

/** Fresh float32 tensors of chance; each call is another draw. */
export interface Draws {
  /** Uniform in [0, 1). */
  uniform(shape: readonly number[]): Tensor;
  /** Mean 0, standard deviation 1. */
  normal(shape: readonly number[]): Tensor;
  /** The same, without what lies beyond two standard deviations. */
  truncatedNormal(shape: readonly number[]): Tensor;
}

/** Runs `body`, synchronously, with every Math.random() taken from `random`; puts Math.random back whatever happens. */
export function withMathRandom<T>(random: () => number, body: () => T): T {
  const kept = Math.random;
  Math.random = random;
  try {
    return body();
  } finally {
    Math.random = kept;
  }
}

/** The functions of tfjs-core that layers draw by; tfjs and its layers read them anew at each call. */
interface Core {
  randomUniform: (shape: number[], low?: number, high?: number, dtype?: TensorFlow.DataType) => Tensor;
  randomNormal: (shape: number[], mean?: number, deviation?: number, dtype?: TensorFlow.DataType) => Tensor;
  truncatedNormal: (shape: number[], mean?: number, deviation?: number, dtype?: TensorFlow.DataType) => Tensor;
  dropout: (x: Tensor, rate: number, noiseShape?: (number | null)[]) => Tensor;
}

/** Runs `body`, synchronously, with tfjs's random tensors taken from `draws`; puts tfjs back whatever happens. */
export function withDraws<T>(tf: Tf, draws: Draws, body: () => T): T {
  const core = createRequire(import.meta.url)('@tensorflow/tfjs-core') as Core;
  const { randomUniform, randomNormal, truncatedNormal, dropout } = core;
  const as = (x: Tensor, dtype: TensorFlow.DataType = 'float32'): Tensor =>
    dtype === 'float32' ? x : x.floor().cast(dtype);
  const scaled = (x: Tensor, scale: number, shift: number): Tensor => {
    const stretched = scale === 1 ? x : x.mul(scale);
    return shift === 0 ? stretched : stretched.add(shift);
  };
  core.randomUniform = (shape, low = 0, high = 1, dtype) =>
    tf.tidy(() => as(scaled(draws.uniform(shape), high - low, low), dtype));
  core.randomNormal = (shape, mean = 0, deviation = 1, dtype) =>
    tf.tidy(() => as(scaled(draws.normal(shape), deviation, mean), dtype));
  core.truncatedNormal = (shape, mean = 0, deviation = 1, dtype) =>
    tf.tidy(() => as(scaled(draws.truncatedNormal(shape), deviation, mean), dtype));
  core.dropout = (x, rate, noiseShape) => {
    if (rate === 0) return x.clone();
    return tf.tidy(() => {
      const shape = noiseShape?.map((dimension, i) => dimension ?? x.shape[i] ?? 1) ?? x.shape;
      const rest = 1 - rate;
      return x.mul(draws.uniform(shape).add(rest).floor().div(rest));
    });
  };
  try {
    return body();
  } finally {
    Object.assign(core, { randomUniform, randomNormal, truncatedNormal, dropout });
  }
}

/** Draws computed in JavaScript, for backends without keyed random operations of their own. */
export function drawsFrom(tf: Tf, random: RandomStream): Draws {
  const filled = (shape: readonly number[], next: () => number): Tensor => {
    const size = shape.reduce((product, dimension) => product * dimension, 1);
    return tf.tensor(Float32Array.from({ length: size }, next), [...shape]);
  };
  // 24 bits: more would round up to 1 in float32.
  const uniform = (): number => (random.uint32() >>> 8) / 0x100_0000;
  // Box and Muller 1958; 1 - u is never 0.
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const truncated = (): number => {
    let value = normal();
    while (Math.abs(value) > 2) value = normal();
    return value;
  };
  return {
    uniform: (shape) => filled(shape, uniform),
    normal: (shape) => filled(shape, normal),
    truncatedNormal: (shape) => filled(shape, truncated),
  };
}
