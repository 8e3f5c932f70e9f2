import { expect, test } from 'vitest';
import job from '../../jobs/cifar10-cnn.ts';
import { openTensorflow } from '../worker/engine/native-library.ts';

test("the model is the tutorial's: 122,570 weights in ten tensors, ending in ten classes", async () => {
  const { layout } = await openTensorflow(job, 1);
  expect(layout.size).toBe(122_570);
  expect(layout.trainableSize).toBe(122_570);
  expect(layout.entries.map(({ shape }) => shape)).toEqual([
    [3, 3, 3, 32],
    [32],
    [3, 3, 32, 64],
    [64],
    [3, 3, 64, 64],
    [64],
    [1024, 64],
    [64],
    [64, 10],
    [10],
  ]);
});

test('it starts as Keras would start it: kernels uniform up to sqrt(6 / (fan in + fan out)), biases zero', async () => {
  const engine = await openTensorflow(job, 1);
  const weights = await engine.initialWeights(1);
  const tensors = engine.layout.entries.map(({ shape, offset, length }) => ({
    shape,
    length,
    values: weights.subarray(offset, offset + length),
  }));
  const biases = tensors.filter(({ shape }) => shape.length === 1);
  expect(biases.every(({ values }) => values.every((value) => value === 0))).toBe(true);
  for (const { shape, length, values } of tensors.filter((tensor) => !biases.includes(tensor))) {
    const [inputs = 0, outputs = 0] = shape.slice(-2);
    const window = length / inputs / outputs;
    const limit = Math.sqrt(6 / (window * (inputs + outputs)));
    const largest = Math.max(...values.map(Math.abs));
    expect(largest).toBeLessThanOrEqual(limit * (1 + 1e-6));
    expect(largest).toBeGreaterThan(0.97 * limit);
    // The mean square of a uniform distribution: a third of the limit's square; five deviations of the smallest kernel's mean.
    const meanSquare = values.reduce((sum, value) => sum + value * value, 0) / length;
    expect(Math.abs(meanSquare / (limit * limit) - 1 / 3)).toBeLessThan((5 * 0.3) / Math.sqrt(length));
  }
});
