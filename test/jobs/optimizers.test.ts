import { describe, expect, test } from 'vitest';
import type { Optimizer } from '../../jobs/contract.ts';
import { adam, sgd } from '../../jobs/optimizers.ts';
import { noise, readOracle, Stream } from '../oracles/formula.ts';

const oracle = readOracle('optimizers');

const optimizers: Record<string, Optimizer> = {
  adam: adam(),
  'adam-other-settings': adam({ learningRate: 0.02, beta1: 0.8, beta2: 0.95, epsilon: 1e-4 }),
  sgd: sgd({ learningRate: 0.1 }),
  'sgd-momentum': sgd({ learningRate: 0.1, momentum: 0.9 }),
  'sgd-nesterov': sgd({ learningRate: 0.1, momentum: 0.9, nesterov: true }),
};

function tenSteps(optimizer: Optimizer): Float32Array {
  const { count, steps } = oracle;
  const weights = Float32Array.from(noise(Stream.weights, count), (u) => 2 * u - 1);
  const scale = noise(Stream.gradients, count, 10_000).map((u) => 10 ** -Math.floor(u * 9));
  const slots = optimizer.slots.map(() => new Float32Array(count));
  for (let step = 1; step <= steps; step++) {
    const gradient = Float32Array.from(
      noise(Stream.gradients, count, (step - 1) * count),
      (u, i) => (2 * u - 1) * (scale[i] ?? 0),
    );
    optimizer.update(weights, gradient, slots, step, optimizer.learningRate);
  }
  return weights;
}

describe('ten steps over gradients from 1e-8 to 1 leave the weights where Keras leaves them', () => {
  for (const [name, { weights: expected }] of Object.entries(oracle.cases)) {
    test(name, () => {
      const optimizer = optimizers[name];
      if (optimizer === undefined) throw new Error(`the oracle's case ${name} has no optimizer here`);
      const weights = tenSteps(optimizer);
      // Keras rounds each operation to float32 (6e-8 relative), and each of ten additions to a weight below 2 rounds once more.
      const worst = Math.max(...weights.map((weight, i) => Math.abs(weight - (expected[i] ?? Number.NaN))));
      expect(worst).toBeLessThan(1e-6);
    });
  }
});

test("adam's first step moves every weight by the learning rate, against the gradient's sign", () => {
  const weights = Float32Array.of(1, 1, 1);
  const slots = [new Float32Array(3), new Float32Array(3)];
  adam().update(weights, Float32Array.of(0.5, -3, 0), slots, 1, 0.25);
  expect(weights[0]).toBeCloseTo(0.75, 5);
  expect(weights[1]).toBeCloseTo(1.25, 5);
  expect(weights[2]).toBe(1);
});

test('the learning rate in force wins over the one the optimizer was made with', () => {
  const weights = Float32Array.of(1);
  sgd({ learningRate: 0.1 }).update(weights, Float32Array.of(1), [], 1, 0.5);
  expect([...weights]).toEqual([0.5]);
});
