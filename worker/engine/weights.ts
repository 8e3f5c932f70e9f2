// A model's weights as one flat float32 vector, trainable ones first: the layout, and the way in and out of the device.
//
// Loading makes a new native tensor that takes the place of the variable's old one, with no TensorFlow.js tensor made on the
// way. The addon does not always copy: memory that happens to be aligned to 64 bytes is shared with TensorFlow.

import type * as TensorFlow from '@tensorflow/tfjs';
import { LockstepError } from '../../protocol/errors.ts';
import type { WeightEntry, WeightLayout } from './engine.ts';
import type { NativeBackend } from './tensorflow-library.ts';

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

/**
 * Gives the variable the value `values`. TensorFlow may go on reading this very memory, so it must belong to the engine and
 * may only change together with the next write of the same variable.
 */
export function writeVariable(backend: NativeBackend, variable: TensorFlow.Variable, values: Float32Array): void {
  const { binding } = backend;
  const held = backend.tensorMap.get(variable.dataId);
  if (held === undefined) throw new TypeError(`the variable ${variable.name} was disposed`);
  const id = binding.createTensor(variable.shape, binding.TF_FLOAT, values);
  if (held.refCount === 1) {
    if (held.id >= 0) binding.deleteTensor(held.id);
    held.values = null;
    held.id = id;
    return;
  }
  // Someone else shares the old memory: leave it to them.
  const own = backend.createOutputTensor({ id, shape: variable.shape, dtype: binding.TF_FLOAT });
  variable.assign(own);
  own.dispose();
}

/** Copies all weights out, in layout order. */
export function readVariables(
  backend: NativeBackend,
  variables: readonly TensorFlow.Variable[],
  layout: WeightLayout,
): Float32Array {
  const weights = new Float32Array(layout.size);
  layout.entries.forEach((entry, i) => {
    const variable = variables[i];
    if (variable !== undefined) weights.set(backend.readSync(variable.dataId), entry.offset);
  });
  return weights;
}
