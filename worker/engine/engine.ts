// The seam between training and whatever computes gradients. An engine holds one replica of the model on one device and turns
// a microbatch into the sums of its gradients. It knows nothing of ranks, links, epochs or files.
//
// Buffers belong to the caller; an engine copies in and out and keeps no view of them.

import type { Optimizer } from '../../jobs/contract.ts';

/** One weight tensor's place in the flat float32 vector of all weights. */
export interface WeightEntry {
  readonly name: string;
  readonly shape: readonly number[];
  /** Offset and length in floats. */
  readonly offset: number;
  readonly length: number;
  readonly trainable: boolean;
}

/** Weights in model order: all trainable ones first, then the others (moving statistics). */
export interface WeightLayout {
  readonly entries: readonly WeightEntry[];
  /** Floats in all weights, and in the trainable prefix. */
  readonly size: number;
  readonly trainableSize: number;
}

export interface EngineInfo {
  /** The rung of the ladder: `tensorflow`, `tensorflow-gpu`, `webgpu`, `wasm`. */
  readonly name: string;
  /** Library and version that really ran, e.g. `TensorFlow 2.21.0`. */
  readonly library: string;
  /** The device it really ran on, e.g. `CPU (Intel Xeon ...)`. */
  readonly device: string;
  readonly threads: number;
  /** Everything else that may change bits: oneDNN on or off, instruction set, mode, precision. */
  readonly settings: Readonly<Record<string, string>>;
}

/**
 * What a microbatch contributes to the step, as one flat float32 vector to be summed over microbatches:
 *
 *     [ gradient of the summed loss: trainableSize | change of the other weights x n: size - trainableSize | summed loss | correct ]
 *
 * Sums, not means: they are divided by the sample count once, at the end.
 */
export interface Contribution {
  readonly gradient: { readonly offset: 0; readonly length: number };
  readonly state: { readonly offset: number; readonly length: number };
  readonly loss: number;
  readonly correct: number;
  readonly size: number;
}

export function contributionOf(layout: WeightLayout): Contribution {
  const state = layout.size - layout.trainableSize;
  return {
    gradient: { offset: 0, length: layout.trainableSize },
    state: { offset: layout.trainableSize, length: state },
    loss: layout.size,
    correct: layout.size + 1,
    size: layout.size + 2,
  };
}

export interface Microbatch {
  /** Samples in it, at least 1. */
  readonly size: number;
  /** float32 [size, ...inputShape], row-major. */
  readonly inputs: Float32Array;
  /** Class labels, [size]. */
  readonly labels: Int32Array;
  /** Key of whatever chance the model's layers use (dropout, noise). */
  readonly random: { readonly seed: number; readonly step: number; readonly microbatch: number };
}

export interface Evaluation {
  /** Sum of the losses of the samples (without regularization), summed in float64 in sample order. */
  readonly lossSum: number;
  readonly correct: number;
  /** Predicted class of each sample. */
  readonly predictions: Int32Array;
}

/** A contiguous run of the contribution vector. */
export interface Bucket {
  readonly offset: number;
  readonly length: number;
}

export const DEFAULT_BUCKET_BYTES = 1 << 20;

/**
 * Cuts the contribution vector into buckets of about `bytes`, in the order in which the backward pass finishes them: the last
 * tensors of the model first, whole tensors only. What is not a gradient (state changes, loss, correct) is the last bucket.
 * Together they cover the vector once.
 */
export function bucketsOf(layout: WeightLayout, bytes = DEFAULT_BUCKET_BYTES): Bucket[] {
  const buckets: Bucket[] = [];
  let end = layout.trainableSize;
  for (const { offset, trainable } of layout.entries.toReversed()) {
    if (!trainable || (end - offset) * Float32Array.BYTES_PER_ELEMENT < bytes) continue;
    buckets.push({ offset, length: end - offset });
    end = offset;
  }
  if (end > 0) buckets.push({ offset: 0, length: end });
  const { trainableSize } = layout;
  buckets.push({ offset: trainableSize, length: contributionOf(layout).size - trainableSize });
  return buckets;
}

/** The mean gradient's way into the weights; all vectors are the caller's. */
export interface Update {
  /** The step's sums, at least `contributionOf(layout).size` floats. */
  readonly sum: Float32Array;
  /** As long as the trainable weights: left holding the mean gradient. Without it, the gradient part of `sum` is. */
  readonly mean?: Float32Array;
  /** Samples in the global batch. */
  readonly samples: number;
  /** Counts from 1. */
  readonly step: number;
  readonly learningRate: number;
  readonly optimizer: Optimizer;
  /** All weights, in layout order: changed in place. */
  readonly weights: Float32Array;
  /** The optimizer's vectors, each as long as the trainable weights: changed in place. */
  readonly slots: readonly Float32Array[];
}

/**
 * Calls are made one after the other: the next one when the last one's promise is settled.
 */
export interface Engine {
  readonly info: EngineInfo;
  readonly layout: WeightLayout;
  /** The model's `model.json` topology (TensorFlow.js layers format), for export. */
  readonly topology: unknown;
  /** The initial weights: a function of the run's seed alone. */
  initialWeights(seed: number): Promise<Float32Array>;
  /** Copies `weights` (all of them, in layout order) onto the device. */
  loadWeights(weights: Float32Array): void;
  /**
   * Computes one microbatch's contribution into `out` (of `contributionOf(layout).size` floats); leaves the weights as they
   * were. `ready` hears of each bucket, by its index, as soon as it lies in `out`.
   */
  gradient(
    microbatch: Microbatch,
    out: Float32Array,
    buckets?: { readonly list: readonly Bucket[]; ready(index: number): void },
  ): Promise<void>;
  /** Divides by the sample count, updates the weights, and loads them; returns the gradient's Euclidean norm. Throws E_NOT_FINITE. */
  apply(update: Update): number;
  /** Loss and predictions in inference mode. `inputs` float32 [size, ...inputShape]. */
  evaluate(size: number, inputs: Float32Array, labels: Int32Array): Promise<Evaluation>;
  /** Tensors held in this process and their bytes, for leak checks. */
  memory(): { tensors: number; bytes: number };
  close(): void;
}
