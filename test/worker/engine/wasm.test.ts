import { createRequire } from 'node:module';
import type * as TensorFlow from '@tensorflow/tfjs';
import { describe, expect, test } from 'vitest';
import type { Tf } from '../../../jobs/contract.ts';
import { openWasm } from '../../../worker/engine/wasm/open.ts';
import { noise } from '../../oracles/formula.ts';
import { describeEngineContract } from './contract.ts';
import { jobOf, tutorialCnn } from './models.ts';

type Tensor = TensorFlow.Tensor;

describeEngineContract('wasm', async (job, seed) => openWasm({ job, seed }));

test('says what really runs', async () => {
  const { info } = await openWasm({ job: jobOf(tutorialCnn), seed: 1 });
  expect(info).toMatchObject({
    name: 'wasm',
    library: 'TensorFlow.js WASM 4.22.0',
    threads: 1,
    settings: { mode: 'eager', precision: 'float32', simd: 'on' },
  });
  expect(info.device).toMatch(/^CPU \(.+\)$/);
});

describe("gradients are those of TensorFlow.js's plain cpu backend", () => {
  const tensor = (tf: Tf, stream: number, shape: number[]): Tensor => {
    const length = shape.reduce((product, dimension) => product * dimension, 1);
    return tf.tensor(
      Float32Array.from(noise(stream, length), (u) => 2 * u - 1),
      shape,
    );
  };
  /** Both gradients of a weighted sum of `f(x, w)`. */
  const gradientsOf = (tf: Tf, f: (x: Tensor, w: Tensor) => Tensor, x: number[], w: number[]): Tensor[] =>
    tf.grads((a: Tensor, b: Tensor) => {
      const y = f(a, b);
      return y.mul(tensor(tf, 3, y.shape)).sum();
    })([tensor(tf, 1, x), tensor(tf, 2, w)]);

  const cases: Record<string, (tf: Tf) => Tensor[]> = {};
  for (const pad of ['valid', 'same'] as const) {
    for (const strides of [1, 2, [1, 2] as [number, number], 3]) {
      for (const [size, filter] of [
        [7, 3],
        [6, 2],
        [5, 5],
        [8, 1],
      ] as const) {
        const name = `of ${size} x ${size + 1} by ${filter} x ${filter}, stride ${String(strides)}, ${pad}`;
        const shape = [2, size, size + 1, 3];
        cases[`a convolution ${name}`] = (tf) =>
          gradientsOf(
            tf,
            (x, w) => tf.conv2d(x as TensorFlow.Tensor4D, w as TensorFlow.Tensor4D, strides, pad),
            shape,
            [filter, filter, 3, 4],
          );
        cases[`a depthwise convolution ${name}`] = (tf) =>
          gradientsOf(
            tf,
            (x, w) => tf.depthwiseConv2d(x as TensorFlow.Tensor4D, w as TensorFlow.Tensor4D, strides, pad),
            shape,
            [filter, filter, 3, 2],
          );
      }
    }
  }
  cases['a gather, with rows taken twice and not at all'] = (tf) => {
    const rows = tf.tensor1d([3, 0, 3, 5], 'int32');
    return [
      tf.grad((x: Tensor) =>
        tf
          .gather(x, rows)
          .mul(tensor(tf, 3, [4, 2, 3]))
          .sum(),
      )(tensor(tf, 1, [6, 2, 3])),
    ];
  };

  for (const [name, f] of Object.entries(cases)) {
    test(name, async () => {
      await openWasm({ job: jobOf(tutorialCnn), seed: 1 });
      const tf = createRequire(import.meta.url)('@tensorflow/tfjs') as Tf;
      const answers: number[][][] = [];
      for (const backend of ['cpu', 'wasm']) {
        await tf.setBackend(backend);
        const before = tf.memory().numTensors;
        answers.push(tf.tidy(() => f(tf).map((answer) => [...answer.shape, ...answer.dataSync()])));
        expect(tf.memory().numTensors).toBe(before);
      }
      const [expected = [], actual = []] = answers;
      expect(actual.map(({ length }) => length)).toEqual(expected.map(({ length }) => length));
      // Sums of at most 112 products of values below 1, in another order.
      actual.forEach((numbers, i) =>
        numbers.forEach((value, k) => expect(Math.abs(value - (expected[i]?.[k] ?? Number.NaN))).toBeLessThan(2e-5)),
      );
    });
  }
});
