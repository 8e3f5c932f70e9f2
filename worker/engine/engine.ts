// The seam between training and whatever computes gradients. An engine holds one replica of the model on one device and turns
// a microbatch into the sums of its gradients. It knows nothing of ranks, links, epochs or files.
//
// Buffers belong to the caller; an engine copies in and out and keeps no view of them.

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

export interface Engine {
  readonly info: EngineInfo;
  readonly layout: WeightLayout;
  /** The model's `model.json` topology (TensorFlow.js layers format), for export. */
  readonly topology: unknown;
  /** The initial weights: a function of the run's seed alone. */
  initialWeights(seed: number): Float32Array;
  /** Copies `weights` (all of them, in layout order) onto the device. */
  loadWeights(weights: Float32Array): void;
  /** Computes one microbatch's contribution into `out` (of `contributionOf(layout).size` floats); leaves the weights as they were. */
  gradient(microbatch: Microbatch, out: Float32Array): void;
  /** Loss and predictions in inference mode. `inputs` float32 [size, ...inputShape]. */
  evaluate(size: number, inputs: Float32Array, labels: Int32Array): Evaluation;
  /** Bytes of tensors held, for leak checks. */
  memory(): { tensors: number; bytes: number };
  close(): void;
}
