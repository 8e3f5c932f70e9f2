// A job that is all rounding: some dozens of weights whose gradients have irregular mantissas, so that another order of summation,
// a sample too many, or an update applied twice gives other bits. And the answer to it: what the weights are after each step, computed
// by a loop of its own, without ranks, links or generations.

import type { Augmentation, DataSet, JobDefinition, Optimizer, Split } from '../../jobs/contract.ts';
import { adam } from '../../jobs/optimizers.ts';
import {
  batchRange,
  epochPermutation,
  microbatchRange,
  placeOfStep,
  stepsPerEpoch,
  type BatchPlan,
} from '../../protocol/batch-plan.ts';
import { RandomUse, randomStream, type RandomStream } from '../../protocol/random.ts';
import { applyOnHost } from '../../worker/engine/apply.ts';
import type { Engine, Microbatch, Update, WeightLayout } from '../../worker/engine/engine.ts';

const FEATURES = 4;
/** The last one is the sample's number, from 1: no part of what is learned, but what tells who was computed. */
const SHAPE = [FEATURES + 1];
const CLASSES = ['none', 'some', 'many'];

const layout: WeightLayout = {
  entries: [
    { name: 'a', shape: [FEATURES, 4], offset: 0, length: 16, trainable: true },
    { name: 'b', shape: [4], offset: 16, length: 4, trainable: true },
    { name: 'c', shape: [4, 3], offset: 20, length: 12, trainable: true },
    { name: 'mean', shape: [2], offset: 32, length: 2, trainable: false },
  ],
  size: 34,
  trainableSize: 32,
};
const LOSS = layout.size;
const CORRECT = layout.size + 1;
/** A bit of the mantissa. */
const FLIPPED = 1 << 12;
const CONTRIBUTION = layout.size + 2;

/** In [0, 1), with 24 bits. */
function hashed(a: number, b: number, c = 0): number {
  let h =
    Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^
    Math.imul(b + 0x7f4a7c15, 0xc2b2ae35) ^
    Math.imul(c + 0x165667b1, 0x27d4eb2f);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return ((h ^ (h >>> 15)) >>> 8) / 2 ** 24;
}

function split(seed: number, size: number): Split {
  return {
    size,
    read: (index, into) => {
      for (let i = 0; i < FEATURES; i++) into[i] = hashed(seed, index, i) * 2 - 1;
      into[FEATURES] = index + 1;
      return Math.floor(hashed(seed, index, 99) * CLASSES.length);
    },
  };
}

const jitter: Augmentation = {
  name: 'jitter',
  apply: (from, to, _shape, random) => {
    for (let i = 0; i < FEATURES; i++) to[i] = (from[i] ?? 0) * (0.9 + 0.2 * random.uniform());
    to[FEATURES] = from[FEATURES] ?? 0;
  },
};

function initialWeights(seed: number): Float32Array {
  return Float32Array.from({ length: layout.size }, (_, i) =>
    i < layout.trainableSize ? hashed(seed, i, 7) - 0.5 : 0,
  );
}

/** One microbatch's sums, in float32, sample by sample. */
function gradientOf(
  weights: Float32Array,
  size: number,
  inputs: Float32Array,
  labels: Int32Array,
  random: Microbatch['random'],
  out: Float32Array,
): void {
  out.fill(0);
  const { trainableSize } = layout;
  let mean = 0;
  for (let n = 0; n < size; n++) {
    const at = n * (FEATURES + 1);
    let sum = 0;
    for (let i = 0; i < trainableSize; i++)
      sum = Math.fround(sum + Math.fround((weights[i] ?? 0) * (inputs[at + (i % FEATURES)] ?? 0)));
    const error = Math.fround(sum - (labels[n] ?? 0));
    for (let i = 0; i < trainableSize; i++) {
      const kept = hashed(random.seed + random.step, random.microbatch * 64 + n, i) < 0.9 ? 1 : 0;
      out[i] = (out[i] ?? 0) + Math.fround(error * (inputs[at + (i % FEATURES)] ?? 0) * kept * (1 + i / 7));
    }
    out[LOSS] = (out[LOSS] ?? 0) + error * error;
    out[CORRECT] = (out[CORRECT] ?? 0) + (Math.abs(error) < 0.5 ? 1 : 0);
    mean = Math.fround(mean + (inputs[at] ?? 0));
  }
  for (let i = trainableSize; i < layout.size; i++) out[i] = Math.fround(0.1 * (mean - (weights[i] ?? 0) * size * i));
}

export interface ToyJob {
  readonly plan: BatchPlan;
  readonly steps: number;
  readonly epochs: number;
  readonly testSamples: number;
  readonly learningRate: number;
  readonly definition: JobDefinition;
  readonly data: () => DataSet;
}

export function toyJob(options: Pick<ToyJob, 'plan' | 'steps' | 'epochs' | 'testSamples'>): ToyJob {
  const optimizer: Optimizer = adam({ learningRate: 0.01 });
  const data = (): DataSet => ({
    inputShape: SHAPE,
    classes: CLASSES,
    train: split(1, options.plan.samples),
    test: split(2, options.testSamples),
  });
  return {
    ...options,
    learningRate: optimizer.learningRate,
    data,
    definition: {
      name: 'toy',
      model: () => {
        throw new Error('the toy engine has no model');
      },
      data: { name: 'toy', open: data },
      loss: 'sparseCategoricalCrossentropy',
      optimizer,
      augment: jitter,
      batchSize: options.plan.globalBatch,
      epochs: options.epochs,
      microbatches: options.plan.microbatches,
    },
  };
}

/** What is right: by step, from 0 done. */
export interface Answer {
  readonly weights: readonly Float32Array[];
  readonly slots: readonly (readonly Float32Array[])[];
  /** By steps done; NaN before the first. */
  readonly lossSums: readonly number[];
  /** Samples of microbatch m of the step that comes after `done` steps, by their numbers from 1. */
  samplesOf(done: number, microbatch: number): readonly number[];
}

export function answerOf(job: ToyJob): Answer {
  const { plan, steps } = job;
  const { augment, optimizer } = job.definition;
  const { train } = job.data();
  const perEpoch = stepsPerEpoch(plan);
  const orders = Array.from({ length: Math.ceil(steps / perEpoch) }, (_, epoch) => epochPermutation(plan, epoch));
  const samplesOf = (done: number, microbatch: number): number[] => {
    const { epoch, batch } = placeOfStep(plan, done);
    const { start, end } = microbatchRange(plan, batch, microbatch);
    return [...(orders[epoch] ?? [])].slice(start, end).map((sample) => sample + 1);
  };
  const weights = initialWeights(plan.seed);
  const slots = optimizer.slots.map(() => new Float32Array(layout.trainableSize));
  const answer = {
    weights: [weights.slice()],
    slots: [slots.map((slot) => slot.slice())],
    lossSums: [Number.NaN],
    samplesOf,
  };
  for (let done = 0; done < steps; done++) {
    const { epoch, batch } = placeOfStep(plan, done);
    const leaves = Array.from({ length: plan.microbatches }, (_, m): Float32Array | null => {
      const samples = samplesOf(done, m);
      if (samples.length === 0) return null;
      const inputs = new Float32Array(samples.length * (FEATURES + 1));
      const labels = new Int32Array(samples.length);
      for (const [i, number] of samples.entries()) {
        const plain = new Float32Array(FEATURES + 1);
        labels[i] = train.read(number - 1, plain);
        const random: RandomStream = randomStream(plan.seed, RandomUse.augment, epoch, number - 1);
        augment?.apply(plain, inputs.subarray(i * (FEATURES + 1), (i + 1) * (FEATURES + 1)), SHAPE, random);
      }
      const out = new Float32Array(CONTRIBUTION);
      gradientOf(weights, samples.length, inputs, labels, { seed: plan.seed, step: done, microbatch: m }, out);
      return out;
    });
    const sum = treeSum(leaves) ?? new Float32Array(CONTRIBUTION);
    const range = batchRange(plan, batch);
    applyOnHost(layout, {
      sum,
      samples: range.end - range.start,
      step: done + 1,
      learningRate: job.learningRate,
      optimizer,
      weights,
      slots,
    });
    answer.weights.push(weights.slice());
    answer.slots.push(slots.map((slot) => slot.slice()));
    answer.lossSums.push(sum[LOSS] ?? Number.NaN);
  }
  return answer;
}

/** In pairs, and the sums in pairs again; what is absent adds nothing. */
function treeSum(leaves: readonly (Float32Array | null)[]): Float32Array | null {
  if (leaves.length === 1) return leaves[0] ?? null;
  const left = treeSum(leaves.slice(0, leaves.length / 2));
  const right = treeSum(leaves.slice(leaves.length / 2));
  if (left === null || right === null) return left ?? right;
  return left.map((x, i) => Math.fround(x + (right[i] ?? 0)));
}

/** Who looks over a toy engine's shoulder. */
export interface Watcher {
  /** The replica begins with these weights. */
  loaded(weights: Float32Array): void;
  /** A microbatch of the step after `done` steps was computed from these samples. */
  computed(done: number, microbatch: number, samples: readonly number[]): void;
  /** The replica has these weights after `done` steps. */
  applied(done: number, weights: Float32Array, slots: readonly Float32Array[], lossSum: number): void;
}

/**
 * @param isFlipped asked after each update: then a bit of the weights is wrong from now on
 * @param compute takes the time of so many microbatches: until it resolves, or by keeping the process busy
 */
export function toyEngine(
  watcher: Watcher,
  isFlipped: () => boolean,
  compute: (microbatches: number) => Promise<void>,
): Engine {
  const held = new Float32Array(layout.size);
  // Before it is asked for the run's weights it proves what it computes, with others.
  let isProved = false;
  return {
    info: { name: 'toy', library: 'none', device: 'none', threads: 1, settings: {} },
    layout,
    topology: {},
    initialWeights: async (seed) => {
      isProved = true;
      return initialWeights(seed);
    },
    loadWeights: (weights) => {
      held.set(weights);
      if (isProved) watcher.loaded(weights);
    },
    gradient: async (batch, out, buckets) => {
      await compute(1);
      gradientOf(held, batch.size, batch.inputs, batch.labels, batch.random, out);
      const numbers = Array.from({ length: batch.size }, (_, i) => batch.inputs[i * (FEATURES + 1) + FEATURES] ?? 0);
      // A probe's samples have no number.
      if (numbers.every((number) => Number.isInteger(number) && number > 0)) {
        watcher.computed(batch.random.step, batch.random.microbatch, numbers);
      }
      const count = buckets?.list.length ?? 0;
      for (let index = 0; index < count; index++) {
        buckets?.ready(index);
        if (index + 1 < count) await compute(0.1);
      }
    },
    evaluate: async (size, inputs, labels) => {
      await compute(1);
      let lossSum = 0;
      for (let n = 0; n < size; n++)
        lossSum += (inputs[n * (FEATURES + 1)] ?? 0) ** 2 + (labels[n] ?? 0) * (held[0] ?? 0);
      return { lossSum, correct: size >> 1, predictions: new Int32Array(size) };
    },
    apply: (update: Update) => {
      const norm = applyOnHost(layout, update);
      if (isFlipped()) {
        const bits = new Uint32Array(update.weights.buffer, update.weights.byteOffset, 1);
        bits[0] = (bits[0] ?? 0) ^ FLIPPED;
      }
      held.set(update.weights);
      watcher.applied(update.step, update.weights, update.slots, update.sum[LOSS] ?? Number.NaN);
      return norm;
    },
    memory: () => ({ tensors: 0, bytes: 0 }),
    close: () => {},
  };
}
