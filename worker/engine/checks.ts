// What every engine refuses in the same words: vectors of the wrong length. And sums that every engine takes alike.

import { contributionOf, type WeightLayout } from './engine.ts';

/** Throws RangeError when inputs or labels are not those of `size` samples of `inputSize` floats. */
export function checkSamples(size: number, inputSize: number, inputs: Float32Array, labels: Int32Array): void {
  if (size < 1 || inputs.length !== size * inputSize || labels.length !== size) {
    throw new RangeError(
      `${size} samples of ${inputSize} floats were announced; ${inputs.length} floats and ${labels.length} labels came`,
    );
  }
}

export function checkWeights(layout: WeightLayout, weights: Float32Array): void {
  if (weights.length !== layout.size) {
    throw new RangeError(`${weights.length} floats for a model of ${layout.size} weights`);
  }
}

export function checkContribution(layout: WeightLayout, out: Float32Array): void {
  const { size } = contributionOf(layout);
  if (out.length !== size) throw new RangeError(`out holds ${out.length} floats, not ${size}`);
}

export function countCorrect(classes: Int32Array, labels: Int32Array): number {
  let correct = 0;
  for (let i = 0; i < labels.length; i++) if (classes[i] === labels[i]) correct++;
  return correct;
}

/** In float64, in order. */
export function sum(values: Float32Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
