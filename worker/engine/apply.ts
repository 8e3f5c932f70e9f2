// A step's sums become the next weights, on the host: the same loops for every engine, so that the update's bits never depend
// on the device. Means are taken once, in float32; the norm is summed in float64.

import { divideAndSquare } from '../../jobs/kernels/kernels.ts';
import { LockstepError } from '../../protocol/errors.ts';
import type { Update, WeightLayout } from './engine.ts';

/** Updates `update.weights` and `update.slots` in place; returns the mean gradient's Euclidean norm. Throws E_NOT_FINITE. */
export function applyOnHost({ size, trainableSize }: WeightLayout, update: Update): number {
  const { sum, samples, step, weights, slots } = update;
  const gradient = update.mean ?? sum.subarray(0, trainableSize);
  const squares = divideAndSquare(sum.subarray(0, trainableSize), samples, gradient);
  const lossSum = sum[size];
  if (!Number.isFinite(squares) || !Number.isFinite(lossSum)) {
    throw new LockstepError('E_NOT_FINITE', `the gradient of step ${step} is not finite (loss sum ${lossSum})`, {
      remedy: 'Lower --learning-rate, or look for a division by zero or a logarithm of zero in the model or loss.',
    });
  }
  update.optimizer.update(weights.subarray(0, trainableSize), gradient, slots, step, update.learningRate);
  for (let i = trainableSize; i < size; i++) weights[i] = (weights[i] as number) + (sum[i] as number) / samples;
  return Math.sqrt(squares);
}
