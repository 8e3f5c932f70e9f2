// What every engine must do, whatever it runs on: one suite, called with each engine's way of opening. Answers come from
// Keras (test/oracles) or are worked out by hand beside the test.

import type * as TensorFlow from '@tensorflow/tfjs';
import { afterEach, describe, expect, test } from 'vitest';
import type { JobDefinition, Tf } from '../../../jobs/contract.ts';
import { adam } from '../../../jobs/optimizers.ts';
import { bucketsOf, contributionOf, type Engine, type Microbatch } from '../../../worker/engine/engine.ts';
import { fingerprintOf } from '../../../worker/engine/fingerprint.ts';
import { digestOf } from '../../../worker/engine/digest.ts';
import { formulaBatch, formulaWeights, noise, type Probe, readOracle, Stream } from '../../oracles/formula.ts';
import { jobOf, tutorialCnn } from './models.ts';

export type OpenEngine = (job: JobDefinition, seed: number) => Promise<Engine>;

// Vectors are compared by digest: a difference of a hundred thousand floats would take minutes to print.
const key = { seed: 1, step: 0, microbatch: 0 };

async function contribute(engine: Engine, microbatch: Microbatch): Promise<Float32Array> {
  const out = new Float32Array(contributionOf(engine.layout).size).fill(Number.NaN);
  await engine.gradient(microbatch, out);
  return out;
}

/** `size` samples of `width` noisy floats, classes 0 .. classes - 1. */
function noisyBatch(size: number, width: number, classes: number, random = key): Microbatch {
  return {
    size,
    inputs: Float32Array.from(noise(Stream.pixels, size * width), (u) => 2 * u - 1),
    labels: Int32Array.from(noise(Stream.labels, size), (u) => Math.floor(u * classes)),
    random,
  };
}

function samplesOf(batch: Microbatch, start: number, end: number): Microbatch {
  const width = batch.inputs.length / batch.size;
  return {
    ...batch,
    size: end - start,
    inputs: batch.inputs.slice(start * width, end * width),
    labels: batch.labels.slice(start, end),
  };
}

/** The largest |actual - expected|, over the largest |expected|. */
function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  let worst = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs((actual[i] ?? Number.NaN) - (expected[i] ?? Number.NaN));
    worst = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(worst, difference);
    scale = Math.max(scale, Math.abs(expected[i] ?? 0));
  }
  return scale === 0 ? worst : worst / scale;
}

/** How far the vector's tensors are from the oracle's probes, each relative to its tensor's largest probed value. */
function probeErrors(engine: Engine, vector: Float32Array, probes: readonly Probe[]): number[] {
  const { entries } = engine.layout;
  expect(entries.map(({ shape }) => shape)).toEqual(probes.map(({ shape }) => shape));
  return entries.flatMap(({ offset, length }, k) => {
    const probe = probes[k];
    if (probe === undefined) return [];
    const values = vector.subarray(offset, offset + length);
    const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
    return [
      relativeError(
        values.filter((_, i) => i % probe.stride === 0),
        probe.values,
      ),
      Math.abs(norm - probe.norm) / probe.norm,
    ];
  });
}

export function describeEngineContract(name: string, open: OpenEngine): void {
  describe(`the ${name} engine`, () => {
    const opened: Engine[] = [];
    afterEach(() => {
      for (const engine of opened.splice(0)) engine.close();
    });
    const openHere = async (job: JobDefinition, seed = 1): Promise<Engine> => {
      const engine = await open(job, seed);
      opened.push(engine);
      return engine;
    };
    const cnn = (): Promise<Engine> => openHere(jobOf(tutorialCnn));

    describe('against Keras', () => {
      const { gradient, training } = readOracle('cnn');

      test("a microbatch's gradient, loss and right answers are Keras's", async () => {
        const engine = await cnn();
        engine.loadWeights(formulaWeights(engine.layout.entries.map(({ shape }) => shape)));
        const out = await contribute(engine, {
          size: gradient.samples,
          ...formulaBatch(gradient.samples, 0),
          random: key,
        });
        // Both sum in float32, in another order: some 1e-7 a value, a few of them in a row through five layers.
        expect(Math.max(...probeErrors(engine, out, gradient.tensors))).toBeLessThan(2e-5);
        const { loss, correct } = contributionOf(engine.layout);
        expect(relativeError([out[loss] ?? 0], [gradient.loss])).toBeLessThan(1e-6);
        expect(out[correct]).toBe(gradient.correct);
      });

      test("ten Adam steps leave losses and weights where Keras's are", async () => {
        const engine = await cnn();
        const weights = formulaWeights(engine.layout.entries.map(({ shape }) => shape));
        const { update, slots, learningRate } = adam();
        const state = slots.map(() => new Float32Array(weights.length));
        const { loss } = contributionOf(engine.layout);
        const { samples, steps } = training;
        const losses: number[] = [];
        for (let step = 0; step <= steps; step++) {
          engine.loadWeights(weights);
          const out = await contribute(engine, {
            size: samples,
            ...formulaBatch(samples, step * samples),
            random: key,
          });
          losses.push((out[loss] ?? 0) / samples);
          const mean = out.subarray(0, weights.length).map((value) => value / samples);
          if (step < steps) update(weights, mean, state, step + 1, learningRate);
        }
        expect(relativeError(losses, [...training.losses, training.finalLoss])).toBeLessThan(1e-4);
        // Adam divides by the gradient's own size: where that is near zero, rounding decides the direction of a step of
        // 0.001, in a few weights of thousands. So the bound is on each tensor's mean error, in units of one step.
        engine.layout.entries.forEach(({ offset, length }, k) => {
          const probe = training.tensors[k];
          if (probe === undefined) throw new Error('the oracle lacks a tensor');
          const values = weights.subarray(offset, offset + length).filter((_, i) => i % probe.stride === 0);
          const errors = values.map((value, i) => Math.abs(value - (probe.values[i] ?? Number.NaN)));
          expect(errors.reduce((sum, error) => sum + error, 0) / errors.length / learningRate).toBeLessThan(0.01);
        });
      });

      test('probabilities of a model without a softmax are clipped as Keras clips them', async () => {
        const { probabilities, labels, losses } = readOracle('losses');
        // One sample's probabilities are its inputs: a dense layer with the identity as its kernel.
        const engine = await openHere(
          jobOf((tf) =>
            tf.sequential({
              layers: [tf.layers.dense({ inputShape: [3], units: 3, useBias: false })],
            }),
          ),
        );
        engine.loadWeights(Float32Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1));
        const each: number[] = [];
        for (const [i, row] of probabilities.entries()) {
          each.push((await engine.evaluate(1, Float32Array.from(row), Int32Array.of(labels[i] ?? 0))).lossSum);
        }
        expect(relativeError(each, losses)).toBeLessThan(1e-6);
        // Relative to itself, the smallest is off by float32's spacing below 1.
        expect(Math.abs((each[1] ?? 0) - (losses[1] ?? 0))).toBeLessThan(1.3e-7);
      });
    });

    describe('weights', () => {
      const withState = jobOf((tf) =>
        tf.sequential({
          layers: [
            tf.layers.dense({ inputShape: [4], units: 3 }),
            tf.layers.batchNormalization(),
            tf.layers.dense({ units: 2, trainable: false }),
          ],
        }),
      );

      test('lie one after another, all trainable ones first', async () => {
        const { layout } = await openHere(withState);
        expect(layout.entries.map(({ shape, offset, trainable }) => [shape, offset, trainable])).toEqual([
          [[4, 3], 0, true],
          [[3], 12, true],
          [[3], 15, true],
          [[3], 18, true],
          [[3], 21, false],
          [[3], 24, false],
          [[3, 2], 27, false],
          [[2], 33, false],
        ]);
        expect([layout.trainableSize, layout.size]).toEqual([21, 35]);
      });

      test('at the start are a function of the seed, whatever chance was used before', async () => {
        const engine = await cnn();
        const first = await engine.initialWeights(5);
        await contribute(engine, noisyBatch(2, 3072, 10));
        expect(digestOf(await engine.initialWeights(5))).toBe(digestOf(first));
        expect(digestOf(await engine.initialWeights(6))).not.toBe(digestOf(first));
        expect(digestOf(await (await cnn()).initialWeights(5))).toBe(digestOf(first));
        expect(new Set(first).size).toBeGreaterThan(100_000);
      });

      test('are copied when loaded: the caller may go on changing its vector', async () => {
        const engine = await openHere(withState);
        // Many vectors: a native library may share memory only where it happens to be aligned.
        for (let seed = 0; seed < 24; seed++) {
          const weights = await engine.initialWeights(seed);
          engine.loadWeights(weights);
          const before = await contribute(engine, noisyBatch(3, 4, 2));
          weights.fill(9);
          expect(digestOf(await contribute(engine, noisyBatch(3, 4, 2)))).toBe(digestOf(before));
        }
      });

      test('of the wrong number are refused', async () => {
        const engine = await openHere(withState);
        expect(() => engine.loadWeights(new Float32Array(34))).toThrow(RangeError);
      });
    });

    describe('a gradient', () => {
      test('is the sum of its samples, also in a short microbatch', async () => {
        const engine = await cnn();
        const batch = noisyBatch(5, 3072, 10);
        const whole = await contribute(engine, batch);
        const parts: Float32Array[] = [];
        for (let i = 0; i < 5; i++) parts.push(await contribute(engine, samplesOf(batch, i, i + 1)));
        const summed = whole.map((_, i) => parts.reduce((sum, part) => sum + (part[i] ?? 0), 0));
        expect(relativeError(whole, summed)).toBeLessThan(1e-5);
        expect(whole[contributionOf(engine.layout).correct]).toBe(summed[contributionOf(engine.layout).correct]);
      });

      test('has the same bits each time, and from another engine of the same kind', async () => {
        const [one, two] = [await cnn(), await cnn()];
        const batch = noisyBatch(16, 3072, 10);
        const first = await contribute(one, batch);
        await contribute(one, noisyBatch(7, 3072, 10));
        expect(digestOf(await contribute(one, batch))).toBe(digestOf(first));
        expect(digestOf(await contribute(two, batch))).toBe(digestOf(first));
      });

      test('is told of bucket by bucket, last layers first, each when it lies in the vector', async () => {
        const engine = await cnn();
        const out = new Float32Array(contributionOf(engine.layout).size).fill(Number.NaN);
        const list = bucketsOf(engine.layout, 64 << 10);
        // Buckets of at least 64 KiB, whole tensors, from the end: dense layers' 66,250 weights, then 36,928 of the third
        // convolution's and 18,496 of the second's, the rest; loss and right answers.
        expect(list.map(({ offset, length }) => [offset, length])).toEqual([
          [56_320, 66_250],
          [19_392, 36_928],
          [896, 18_496],
          [0, 896],
          [122_570, 2],
        ]);
        const heard: number[] = [];
        const ready = (index: number): void => {
          const { offset, length } = list[index] ?? { offset: 0, length: out.length };
          expect(out.subarray(offset, offset + length).some(Number.isNaN)).toBe(false);
          heard.push(index);
        };
        await engine.gradient(noisyBatch(2, 3072, 10), out, { list, ready });
        expect(heard).toEqual([0, 1, 2, 3, 4]);
      });

      test('of a frozen layer is left out, and the layer does not change', async () => {
        const engine = await openHere(
          jobOf((tf) =>
            tf.sequential({
              layers: [
                tf.layers.dense({ inputShape: [4], units: 3, trainable: false }),
                tf.layers.dense({ units: 2, activation: 'softmax' }),
              ],
            }),
          ),
        );
        const { state, gradient } = contributionOf(engine.layout);
        expect([gradient.length, state.length]).toEqual([8, 15]);
        const out = await contribute(engine, noisyBatch(3, 4, 2));
        expect([...out.subarray(state.offset, state.offset + state.length)]).toEqual(Array(15).fill(0));
        expect(out.subarray(0, 8).every((value) => value !== 0 && Number.isFinite(value))).toBe(true);
      });

      test("holds the model's regularization once a sample: divided by the count, once", async () => {
        const model = (l2: number) => (tf: Tf) =>
          tf.sequential({
            layers: [
              tf.layers.dense({
                inputShape: [4],
                units: 2,
                useBias: false,
                ...(l2 > 0 && { kernelRegularizer: tf.regularizers.l2({ l2 }) }),
                activation: 'softmax',
              }),
            ],
          });
        const weights = Float32Array.from(noise(Stream.weights, 8), (u) => u - 0.5);
        const [plain, regular] = [await openHere(jobOf(model(0))), await openHere(jobOf(model(0.5)))];
        const contributions: Float32Array[] = [];
        for (const engine of [plain, regular]) {
          engine.loadWeights(weights);
          contributions.push(await contribute(engine, noisyBatch(3, 4, 2)));
        }
        const [without, with_] = contributions;
        // 0.5 x sum of squares, for 3 samples; its slope is 2 x 0.5 x w.
        const penalty = weights.reduce((sum, w) => sum + 0.5 * w * w, 0);
        const expected = without?.map((value, i) => value + 3 * (weights[i] ?? 0)) ?? [];
        expected[8] = (without?.[8] ?? 0) + 3 * penalty;
        expect(relativeError(with_ ?? [], expected)).toBeLessThan(1e-6);
      });

      test("of a loss of one's own is that of its sum over the samples", async () => {
        const job = jobOf((tf) => tf.sequential({ layers: [tf.layers.dense({ inputShape: [1], units: 1 })] }), {
          name: 'squared error',
          perSample: (tf, labels, output) =>
            tf.squaredDifference<TensorFlow.Tensor1D>(output.reshape([-1]), labels.toFloat()),
        });
        const engine = await openHere(job);
        engine.loadWeights(Float32Array.of(2, 1));
        const batch = {
          size: 2,
          inputs: Float32Array.of(1, -1),
          labels: Int32Array.of(1, 0),
          random: key,
        };
        // Outputs 3 and -1; errors 2 and -1; d/dw = 2 (2 x 1 + -1 x -1) = 6, d/db = 2 (2 - 1) = 2; losses 4 + 1. Of the
        // outputs, 3 is above one half (class 1, right) and -1 below (class 0, right).
        expect([...(await contribute(engine, batch))]).toEqual([6, 2, 5, 2]);
      });
    });

    describe('chance inside layers', () => {
      const dropout = jobOf((tf) =>
        tf.sequential({
          layers: [
            tf.layers.dense({ inputShape: [8], units: 64 }),
            tf.layers.dropout({ rate: 0.5 }),
            tf.layers.dense({ units: 2, activation: 'softmax' }),
          ],
        }),
      );

      test('depends on seed, step and microbatch, and on nothing that ran before', async () => {
        const engine = await openHere(dropout);
        const at = async (seed: number, step: number, microbatch: number): Promise<string> =>
          (await contribute(engine, noisyBatch(4, 8, 2, { seed, step, microbatch }))).join();
        const first = await at(1, 2, 3);
        Math.random();
        const others = [await at(2, 2, 3), await at(1, 3, 3), await at(1, 2, 0)];
        expect(await at(1, 2, 3)).toBe(first);
        expect(new Set([first, ...others]).size).toBe(4);
      });

      test('is off in an evaluation', async () => {
        const engine = await openHere(dropout);
        const { size, inputs, labels } = noisyBatch(4, 8, 2);
        expect(await engine.evaluate(size, inputs, labels)).toEqual(await engine.evaluate(size, inputs, labels));
      });

      test('leaves Math.random as it was, even after a failure', async () => {
        const stock = Math.random;
        const engine = await openHere(dropout);
        await engine.initialWeights(3);
        await contribute(engine, noisyBatch(4, 8, 2));
        const wrong = noisyBatch(4, 8, 2);
        await expect(contribute(engine, { ...wrong, size: 3 })).rejects.toThrow(RangeError);
        const failing = await openHere(
          jobOf((tf) => tf.sequential({ layers: [tf.layers.dense({ inputShape: [8], units: 2 })] }), {
            name: 'one that throws',
            perSample: () => {
              throw new Error('no loss today');
            },
          }),
        );
        await expect(contribute(failing, noisyBatch(4, 8, 2))).rejects.toThrow('no loss today');
        expect(Math.random).toBe(stock);
      });
    });

    describe('moving statistics', () => {
      const normalized = jobOf((tf) =>
        tf.sequential({
          layers: [
            tf.layers.batchNormalization({ inputShape: [2], momentum: 0.75 }),
            tf.layers.dense({ units: 2, useBias: false, activation: 'softmax' }),
          ],
        }),
      );
      // Scale, offset, kernel; then moving mean and moving variance.
      const weights = Float32Array.of(1, 1, 0, 0, 1, 0, 0, 1, 10, 20, 1, 1);
      const batch = {
        size: 2,
        inputs: Float32Array.of(1, 2, 3, 6),
        labels: Int32Array.of(0, 1),
        random: key,
      };

      test('come out as their change times the samples', async () => {
        const engine = await openHere(normalized);
        engine.loadWeights(weights);
        const { state } = contributionOf(engine.layout);
        const out = await contribute(engine, batch);
        // Means of the batch 2 and 4: (2 - 10) / 4 = -2 and (4 - 20) / 4 = -4, for two samples.
        expect(relativeError(out.subarray(state.offset, state.offset + 2), [-4, -8])).toBeLessThan(1e-6);
        // Variances of the batch 1 and 4: (1 - 1) / 4 and (4 - 1) / 4, for two samples.
        const variances = out.subarray(state.offset + 2, state.offset + 4);
        expect(relativeError(variances, [0, 1.5])).toBeLessThan(1e-6);
      });

      test('are put back: the next microbatch and an evaluation see the loaded ones', async () => {
        const engine = await openHere(normalized);
        engine.loadWeights(weights);
        const evaluate = async (): Promise<number> =>
          (await engine.evaluate(batch.size, batch.inputs, batch.labels)).lossSum;
        const [loss, first] = [await evaluate(), await contribute(engine, batch)];
        expect(digestOf(await contribute(engine, batch))).toBe(digestOf(first));
        expect(await evaluate()).toBe(loss);
      });
    });

    describe('an evaluation', () => {
      test('gives the losses, the classes and how many are right', async () => {
        const engine = await openHere(
          jobOf((tf) =>
            tf.sequential({
              layers: [
                tf.layers.dense({
                  inputShape: [2],
                  units: 2,
                  useBias: false,
                  activation: 'softmax',
                }),
              ],
            }),
          ),
        );
        engine.loadWeights(Float32Array.of(1, 0, 0, 1));
        const result = await engine.evaluate(3, Float32Array.of(2, 1, 0, 3, 1, 0), Int32Array.of(0, 1, 1));
        expect([...result.predictions]).toEqual([0, 1, 0]);
        expect(result.correct).toBe(2);
        // -log softmax: log(1 + e^-1) + log(1 + e^-3) + log(1 + e^1)
        expect(result.lossSum).toBeCloseTo(0.3132617 + 0.0485874 + 1.3132617, 5);
      });
    });

    test('samples of the wrong size are refused', async () => {
      const engine = await cnn();
      await expect(contribute(engine, { ...noisyBatch(2, 3072, 10), size: 3 })).rejects.toThrow(RangeError);
      await expect(engine.evaluate(2, new Float32Array(5), new Int32Array(2))).rejects.toThrow(RangeError);
    });

    test('no tensor is left over by 300 gradients, evaluations and loads', async () => {
      const engine = await openHere(
        jobOf((tf) =>
          tf.sequential({
            layers: [
              tf.layers.conv2d({
                inputShape: [8, 8, 1],
                filters: 4,
                kernelSize: 3,
                activation: 'relu',
              }),
              tf.layers.batchNormalization(),
              tf.layers.maxPooling2d({ poolSize: 2 }),
              tf.layers.flatten(),
              tf.layers.dropout({ rate: 0.3 }),
              tf.layers.dense({ units: 3, activation: 'softmax' }),
            ],
          }),
        ),
      );
      const weights = await engine.initialWeights(1);
      const batch = noisyBatch(4, 64, 3);
      const out = new Float32Array(contributionOf(engine.layout).size);
      let before = engine.memory();
      for (let step = 0; step <= 300; step++) {
        if (step === 1) before = engine.memory(); // with what a first step makes once for all
        engine.loadWeights(weights);
        await engine.gradient({ ...batch, random: { seed: 1, step, microbatch: 0 } }, out);
        await engine.evaluate(batch.size, batch.inputs, batch.labels);
      }
      expect(engine.memory()).toEqual(before);
    });

    test('its fingerprint is the same from every engine of its kind, and tells models and microbatch sizes apart', async () => {
      const fingerprint = await fingerprintOf(await cnn(), [32, 32, 3], 10, 16);
      expect(fingerprint).toMatch(/^[0-9a-f]{64}$/);
      expect(await fingerprintOf(await cnn(), [32, 32, 3], 10, 16)).toBe(fingerprint);
      expect(await fingerprintOf(await cnn(), [32, 32, 3], 10, 15)).not.toBe(fingerprint);
    });
  });
}
