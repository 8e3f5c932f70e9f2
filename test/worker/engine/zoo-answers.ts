// What plain TensorFlow.js makes of the models of the zoo: gradients, losses, states. To be asked for before anything of
// TensorFlow.js is replaced but the source of its random numbers.

import type * as TensorFlow from '@tensorflow/tfjs';
import { RandomUse, randomStream } from '../../../protocol/random.ts';
import type { Microbatch } from '../../../worker/engine/engine.ts';
import { withDraws, withMathRandom } from '../../../worker/engine/model/chance.ts';
import type { TensorflowLibrary } from '../../../worker/engine/tensorflow/library.ts';
import { statelessDraws } from '../../../worker/engine/tensorflow/operations.ts';
import { noise, Stream } from '../../oracles/formula.ts';
import { CLASSES, IMAGE, TOKENS, type ZooModel } from './zoo.ts';

type Tensor = TensorFlow.Tensor;

const random = { seed: 3, step: 5, microbatch: 2 };
export const SIZES = [4, 3];
export const SEED = 11;

export function batchOf({ inputs }: ZooModel, size: number): Microbatch {
  const width = inputs === 'tokens' ? TOKENS : IMAGE.reduce((product, dimension) => product * dimension, 1);
  const values = noise(Stream.pixels, size * width);
  return {
    size,
    inputs: Float32Array.from(values, inputs === 'tokens' ? (u) => Math.floor(u * 50) : (u) => 2 * u - 1),
    labels: Int32Array.from(noise(Stream.labels, size), (u) => Math.floor(u * CLASSES)),
    random,
  };
}

export interface Answer {
  /** Gradients of the sum of the losses, tensor by tensor, and the loss: as plain TensorFlow.js gives them. */
  readonly gradients: Float32Array[];
  readonly loss: number;
  /** What the weights that training changes by itself became. */
  readonly states: Float32Array[];
}

/** Plain TensorFlow.js: `variableGrads` of the model's own call and a cross-entropy of its probabilities. */
export function stockAnswer(library: TensorflowLibrary, zoo: ZooModel, { size, inputs, labels }: Microbatch): Answer {
  const { tf } = library;
  const model = withMathRandom(randomStream(SEED, RandomUse.initialWeights).uniform, () => zoo.build(tf));
  const [, ...shape] = (model.inputs[0] as TensorFlow.SymbolicTensor).shape as number[];
  const stream = randomStream(random.seed, RandomUse.layers, random.step, random.microbatch);
  const key = tf.tensor1d(Int32Array.of(stream.uint32(), stream.uint32()), 'int32');
  const weights = model.trainableWeights.map((weight) => weight.read() as TensorFlow.Variable);
  const x = tf.tensor(inputs, [size, ...shape]);
  const { value, grads } = withDraws(tf, statelessDraws(library, key), () =>
    tf.variableGrads(() => {
      const probabilities = model.apply(x, { training: true }) as Tensor;
      const right = tf.oneHot(tf.tensor1d(labels, 'int32'), CLASSES);
      const losses = probabilities.mul(right).sum(1).log().neg();
      // A Sequential's own list of penalties is empty in TensorFlow.js 4.22; its layers' are not.
      const penalties = model.layers.flatMap((layer) => layer.losses as unknown as (() => TensorFlow.Scalar)[]);
      return penalties.reduce((sum: Tensor, penalty) => sum.add(penalty().mul(size)), losses.sum()).asScalar();
    }, weights),
  );
  return {
    gradients: weights.map(({ name }) => (grads[name] as Tensor).dataSync<'float32'>()),
    loss: value.dataSync<'float32'>()[0] ?? Number.NaN,
    states: model.nonTrainableWeights.map((weight) => weight.read().dataSync<'float32'>()),
  };
}

/** The largest |actual - expected|; infinite where a value is not a number, or one of them lacks. */
export function worstDifference(actual: Float32Array, expected: Float32Array): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  return actual.reduce((worst, value, i) => {
    const difference = Math.abs(value - (expected[i] ?? Number.NaN));
    return Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(worst, difference);
  }, 0);
}

/** 1, or the largest of them where that is more. */
export const scaleOf = (values: Float32Array): number =>
  values.reduce((scale, value) => Math.max(scale, Math.abs(value)), 1);
