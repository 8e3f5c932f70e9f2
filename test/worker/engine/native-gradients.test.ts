// The gradients that Lockstep replaces, held against TensorFlow.js's own, in one process: stock answers are taken first, with
// the backend registered but nothing replaced.

import { createRequire } from 'node:module';
import type * as TensorFlow from '@tensorflow/tfjs';
import { beforeAll, expect, test } from 'vitest';
import { findTensorflow } from '../../../deploy/setup/tensorflow.ts';
import type { Tf } from '../../../jobs/contract.ts';
import { engineEnvironment } from '../../../worker/engine/environment.ts';
import { useDeterministicGradients } from '../../../worker/engine/tensorflow/deterministic-gradients.ts';
import { useNativeGradients } from '../../../worker/engine/tensorflow/native-gradients.ts';
import {
  type NativeBinding,
  registerBackend,
  type TensorflowLibrary,
} from '../../../worker/engine/tensorflow/library.ts';
import type { CrossEntropy } from '../../../worker/engine/model/loss.ts';
import { crossEntropyOf } from '../../../worker/engine/tensorflow/operations.ts';
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

test("a GPU's cross-entropy is TensorFlow's own, without the operation that has no deterministic kernel there", () => {
  const { tf, backend } = library;
  const names: string[] = [];
  const run = backend.binding.executeOp.bind(backend.binding);
  // Probabilities of 0 and 1 in float32, too; each sample's loss counts another number of times.
  const logits = tf.tensor2d([0.5, -1, 2, 300, -300, 0, 0, 0, 0, -2, 0.25, 88], [4, 3]);
  const labels = tf.tensor1d([2, 1, 0, 1], 'int32');
  const lossesBy = (crossEntropy: CrossEntropy): number[][] => {
    const f = (x: Tensor): Tensor => crossEntropy(x, labels).mul(tf.tensor1d([1, 2, 3, 0.5]));
    const { value, grad } = tf.valueAndGrad(f)(logits);
    return [[...value.dataSync()], [...grad.dataSync()]];
  };
  const native = lossesBy(crossEntropyOf({ ...library, onGpu: false }));
  const watched = Object.create(backend.binding, {
    executeOp: {
      value: (...args: Parameters<NativeBinding['executeOp']>) => {
        names.push(args[0]);
        return run(...args);
      },
    },
  }) as NativeBinding;
  const { binding } = backend;
  backend.binding = watched;
  const composed = lossesBy(crossEntropyOf({ ...library, onGpu: true }));
  backend.binding = binding;
  expect(names).toContain('LogSoftmax');
  expect(names).not.toContain('SparseSoftmaxCrossEntropyWithLogits');
  // Losses of 600 and 87.75 among them.
  expect(native[0]?.[1]).toBe(1200);
  composed.forEach((numbers, i) => {
    numbers.forEach((value, k) => {
      const expected = native[i]?.[k] ?? Number.NaN;
      expect(Math.abs(value - expected)).toBeLessThan(1e-6 * Math.max(1, Math.abs(expected)));
    });
  });
});

test("a GPU's gradient of the nearest neighbour is stock TensorFlow.js's, of sums", async () => {
  const { tf } = library;
  const images = tensor(tf, 9, [2, 3, 2, 4]) as TensorFlow.Tensor4D;
  const gradientOf = ([height, width]: [number, number]): number[] => {
    const weights = tensor(tf, 10, [2, height, width, 4]);
    return [
      ...tf
        .grad((x: Tensor) => tf.image.resizeNearestNeighbor(x as TensorFlow.Tensor4D, [height, width]).mul(weights))(
          images,
        )
        .dataSync(),
    ];
  };
  // Each pixel three rows high and two columns wide; as it is; blocks of unequal sizes, which is left to TensorFlow.
  const SIZES: [number, number][] = [
    [9, 4],
    [3, 2],
    [7, 5],
  ];
  const expected = SIZES.map(gradientOf);
  const stockGradient = tf.getGradient('ResizeNearestNeighbor');
  useDeterministicGradients(tf);
  const { kernelNames } = await tf.profile(() => void gradientOf([9, 4]));
  SIZES.map(gradientOf).forEach((numbers, i) => {
    numbers.forEach((value, k) => expect(value).toBeCloseTo(expected[i]?.[k] ?? Number.NaN, 5));
  });
  tf.unregisterGradient('ResizeNearestNeighbor');
  tf.registerGradient(stockGradient);
  expect(kernelNames).toContain('Sum');
  expect(kernelNames).not.toContain('ResizeNearestNeighborGrad');
});
