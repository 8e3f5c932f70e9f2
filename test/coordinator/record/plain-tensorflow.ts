// TensorFlow.js in plain JavaScript, on its CPU backend: an oracle that shares nothing with the engine.

import { createRequire } from 'node:module';
import type * as TensorFlow from '@tensorflow/tfjs';

export const tf = createRequire(import.meta.url)('@tensorflow/tfjs') as typeof TensorFlow;

/** A model's weights as the worker lays them out: trainable ones first, then the others, one after another. */
export function flatten(model: TensorFlow.LayersModel): {
  layout: { name: string; shape: number[]; offset: number; length: number; trainable: boolean }[];
  weights: Float32Array;
} {
  const layout = [];
  const parts: number[] = [];
  for (const weight of [...model.trainableWeights, ...model.nonTrainableWeights]) {
    const values = weight.read().dataSync();
    const trainable = model.trainableWeights.includes(weight);
    layout.push({
      name: weight.originalName,
      shape: weight.shape.map(Number),
      offset: parts.length,
      length: values.length,
      trainable,
    });
    for (const value of values) parts.push(value);
  }
  return { layout, weights: Float32Array.from(parts) };
}

/** A small model with what can go wrong on the way: convolution, moving statistics, dropout, softmax. */
export function smallModel(): TensorFlow.LayersModel {
  const { conv2d, batchNormalization, flatten: flat, dropout, dense } = tf.layers;
  const model = tf.sequential({
    layers: [
      conv2d({ name: 'conv', inputShape: [6, 6, 2], filters: 3, kernelSize: 3, activation: 'relu' }),
      batchNormalization({ name: 'norm' }),
      flat(),
      dropout({ rate: 0.5 }),
      dense({ name: 'out', units: 4, activation: 'softmax' }),
    ],
  });
  // No weight is what an untrained model would have.
  model.setWeights(model.getWeights().map((w, i) => tf.randomUniform(w.shape, 0.1, 1, 'float32', i + 1)));
  return model;
}
