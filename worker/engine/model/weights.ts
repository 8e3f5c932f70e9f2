// A model's weights as one flat float32 vector, trainable ones first: the layout, and the way in and out of the device.

import type * as TensorFlow from '@tensorflow/tfjs';
import type { Tf } from '../../../jobs/contract.ts';
import { LockstepError } from '../../../protocol/errors.ts';
import type { WeightEntry, WeightLayout } from '../engine.ts';

export function modelVariables(model: TensorFlow.LayersModel): {
  trainable: TensorFlow.Variable[];
  other: TensorFlow.Variable[];
} {
  const variablesOf = (weights: TensorFlow.LayersModel['trainableWeights']): TensorFlow.Variable[] =>
    weights.map((weight) => weight.read() as TensorFlow.Variable);
  return {
    trainable: variablesOf(model.trainableWeights),
    other: variablesOf(model.nonTrainableWeights),
  };
}

export function layoutOf(model: TensorFlow.LayersModel): WeightLayout {
  const entries: WeightEntry[] = [];
  let offset = 0;
  let trainableSize = 0;
  for (const trainable of [true, false]) {
    for (const weight of trainable ? model.trainableWeights : model.nonTrainableWeights) {
      const shape = weight.shape.map((dimension) => dimension ?? 0);
      if (weight.dtype !== 'float32') {
        throw new LockstepError('E_JOB_INVALID', `the weight '${weight.originalName}' has dtype ${weight.dtype}`, {
          remedy: 'Use float32 weights only.',
        });
      }
      const length = shape.reduce((product, dimension) => product * dimension, 1);
      entries.push({ name: weight.originalName, shape, offset, length, trainable });
      offset += length;
    }
    if (trainable) trainableSize = offset;
  }
  return { entries, size: offset, trainableSize };
}

/** Gives `variables` (in layout order) the values of `weights`, which are copied. */
export function writeVariables(
  tf: Tf,
  variables: readonly TensorFlow.Variable[],
  layout: WeightLayout,
  weights: Float32Array,
): void {
  layout.entries.forEach(({ offset, length, shape }, i) => {
    // A copy: a backend may go on reading the memory that a tensor was made of.
    const values = tf.tensor(weights.slice(offset, offset + length), [...shape]);
    variables[i]?.assign(values);
    values.dispose();
  });
}

/** Copies all weights out, in layout order. */
export async function readVariables(
  variables: readonly TensorFlow.Variable[],
  layout: WeightLayout,
): Promise<Float32Array> {
  const weights = new Float32Array(layout.size);
  for (const [i, { offset }] of layout.entries.entries()) {
    const variable = variables[i];
    if (variable !== undefined) weights.set(await variable.data<'float32'>(), offset);
  }
  return weights;
}
