// The gradients that Lockstep replaces, held against TensorFlow.js's own, in one process: stock answers are taken first, with
// the backend registered but nothing replaced.

import { createRequire } from 'node:module';
import type * as TensorFlow from '@tensorflow/tfjs';
import { beforeAll, expect, test } from 'vitest';
import { findTensorflow } from '../../../deploy/setup/tensorflow.ts';
import type { Tf } from '../../../jobs/contract.ts';
import { engineEnvironment } from '../../../worker/engine/environment.ts';
import { useNativeGradients } from '../../../worker/engine/tensorflow/native-gradients.ts';
import {
  type NativeBinding,
  registerBackend,
  type TensorflowLibrary,
} from '../../../worker/engine/tensorflow/library.ts';
import { noise } from '../../oracles/formula.ts';

type Tensor = TensorFlow.Tensor;

const tensor = (tf: Tf, stream: number, shape: number[]): Tensor => {
  const length = shape.reduce((product, dimension) => product * dimension, 1);
  return tf.tensor(
    Float32Array.from(noise(stream, length), (u) => 2 * u - 1),
    shape,
  );
};

/** Value and gradients, flat, of functions that meet the replaced operations. */
const CASES: Record<string, (tf: Tf) => Tensor[]> = {
  'relu, with zeros in its input': (tf) => {
    const x = tensor(tf, 1, [4, 5]).mul(tf.tensor([[1], [0], [1], [-1]]));
    const { value, grad } = tf.valueAndGrad((input: Tensor) => tf.relu(input).mul(tensor(tf, 2, [4, 5])))(x);
    return [value, grad];
  },
  ...Object.fromEntries(
    [
      [[3, 4], [4]],
      [[2, 3, 4, 5], [5]],
      [[2, 3, 4], [4]],
      [[5], [5]],
      [[3, 1], [4]],
      [[4], [3, 4]],
      [
        [3, 4],
        [1, 4],
      ],
      [[3, 4], []],
      [[2, 2, 2, 2, 3], [3]],
    ].map(([a = [], b = []]) => [
      `[${a.join(', ')}] plus [${b.join(', ')}]`,
      (tf: Tf): Tensor[] => {
        const both = [tensor(tf, 3, a), tensor(tf, 4, b)];
        const { value, grads } = tf.valueAndGrads((x: Tensor, y: Tensor) => tf.add(x, y).square())(both);
        return [value, ...grads];
      },
    ]),
  ),
  'integers plus integers': (tf) => [tf.tensor2d([[1, 2]], [1, 2], 'int32').add(tf.tensor1d([3, 4], 'int32'))],
};

let library: TensorflowLibrary;
const stock = new Map<string, number[][]>();
const answersOf = (name: string): number[][] =>
  (CASES[name]?.(library.tf) ?? []).map((answer) => [...answer.shape, ...answer.dataSync()]);

beforeAll(async () => {
  Object.assign(process.env, engineEnvironment(1));
  const { bindingPath } = findTensorflow();
  const binding = createRequire(import.meta.url)(bindingPath) as NativeBinding;
  library = await registerBackend(binding, bindingPath);
  for (const name of Object.keys(CASES)) stock.set(name, answersOf(name));
  useNativeGradients(library.tf, library.backend);
});

for (const name of Object.keys(CASES)) {
  test(`${name}: value and gradients are stock TensorFlow.js's`, () => {
    const expected = stock.get(name) ?? [];
    const actual = answersOf(name);
    expect(actual.length).toBe(expected.length);
    actual.forEach((numbers, i) => {
      expect(numbers.length).toBe(expected[i]?.length);
      // Sums of at most 24 values in another order.
      numbers.forEach((value, k) => expect(Math.abs(value - (expected[i]?.[k] ?? Number.NaN))).toBeLessThan(2e-6));
    });
  });
}

test('the replaced gradients really run: one native operation for a bias', () => {
  const names: string[] = [];
  const { backend, tf } = library;
  const run = backend.executeSingleOutput.bind(backend);
  backend.executeSingleOutput = (name, attributes, inputs) => {
    names.push(name);
    return run(name, attributes, inputs);
  };
  tf.grads((x: Tensor, b: Tensor) => tf.relu(tf.add(x, b)))([tf.ones([2, 3]), tf.ones([3])]);
  expect(names).toEqual(expect.arrayContaining(['BiasAdd', 'BiasAddGrad', 'ReluGrad']));
});
