// Models and jobs for the engine's tests.

import type * as TensorFlow from '@tensorflow/tfjs';
import type { JobDefinition, Tf } from '../../../jobs/contract.ts';
import { adam } from '../../../jobs/optimizers.ts';

/** A job around a model, for tests: its data are never read. */
export function jobOf(
  model: (tf: Tf) => TensorFlow.LayersModel,
  loss: JobDefinition['loss'] = 'sparseCategoricalCrossentropy',
): JobDefinition {
  const none = { size: 0, read: () => 0 };
  return {
    name: 'test',
    model,
    loss,
    data: { name: 'none', open: () => ({ inputShape: [], classes: [], train: none, test: none }) },
    optimizer: adam(),
    batchSize: 64,
    epochs: 1,
  };
}

export function tutorialCnn(tf: Tf): TensorFlow.LayersModel {
  const { conv2d, maxPooling2d, flatten, dense } = tf.layers;
  return tf.sequential({
    layers: [
      conv2d({ inputShape: [32, 32, 3], filters: 32, kernelSize: 3, activation: 'relu' }),
      maxPooling2d({ poolSize: 2 }),
      conv2d({ filters: 64, kernelSize: 3, activation: 'relu' }),
      maxPooling2d({ poolSize: 2 }),
      conv2d({ filters: 64, kernelSize: 3, activation: 'relu' }),
      flatten(),
      dense({ units: 64, activation: 'relu' }),
      dense({ units: 10, activation: 'softmax' }),
    ],
  });
}
