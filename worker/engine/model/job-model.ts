// A job's model on the TensorFlow.js backend that is set: its weights' layout, its losses, their gradients. Only tensors in and
// tensors out; when they are computed, and how they come to the host, is the engine's affair.
//
// A gradient is the gradient of the SUM of the samples' losses. Regularization losses of the model are added to every
// sample's loss, so that dividing the sum by the batch's sample count leaves them in once.

import type * as TensorFlow from '@tensorflow/tfjs';
import type { JobDefinition, Tf } from '../../../jobs/contract.ts';
import { LockstepError } from '../../../protocol/errors.ts';
import { RandomUse, randomStream } from '../../../protocol/random.ts';
import type { WeightLayout } from '../engine.ts';
import { withMathRandom } from './chance.ts';
import { createForwardPass, type CrossEntropy, type Forward } from './loss.ts';
import { regularizersOf } from './regularizers.ts';
import { layoutOf, modelVariables, readVariables } from './weights.ts';

type Tensor = TensorFlow.Tensor;

export interface Inference {
  /** float32 [n]. */
  readonly losses: Tensor;
  /** Class of each sample, int32 [n]. */
  readonly predictions: Tensor;
}

export interface Gradients extends Inference {
  /** Of the trainable weights, in layout order, each in its weight's shape; null where the loss does not depend on it. */
  readonly gradients: readonly (Tensor | null)[];
}

export interface JobModel {
  readonly layout: WeightLayout;
  readonly topology: unknown;
  /** Shape of one sample, and its floats. */
  readonly inputShape: readonly number[];
  readonly inputSize: number;
  /** In layout order. */
  readonly variables: readonly TensorFlow.Variable[];
  /** In training mode, from inputs float32 [n, ...inputShape] and labels int32 [n]. Changes non-trainable weights in place. */
  gradients(inputs: Tensor, labels: TensorFlow.Tensor1D): Gradients;
  /** In inference mode; losses without regularization. */
  infer(inputs: Tensor, labels: TensorFlow.Tensor1D): Inference;
  readonly initialWeights: (seed: number) => Promise<Float32Array>;
  readonly dispose: () => void;
}

/** Builds the model with the initial weights of `seed`. Throws E_JOB_INVALID when it can't be trained by the contract. */
export function createJobModel(tf: Tf, job: JobDefinition, seed: number, crossEntropy: CrossEntropy): JobModel {
  const build = (buildSeed: number): TensorFlow.LayersModel => {
    const random = randomStream(buildSeed, RandomUse.initialWeights);
    return withMathRandom(random.uniform, () => job.model(tf));
  };
  const model = build(seed);
  const inputShape = checkModel(job, model);
  const layout = layoutOf(model);
  const { trainable, other } = modelVariables(model);
  const forward = createForwardPass(tf, crossEntropy, model, job.loss);
  const regularizers = regularizersOf(model);

  const predictionsOf = ({ output }: Forward): Tensor => {
    const rows = output.shape[0] ?? 0;
    const scores = output.reshape([rows, output.size / rows]);
    return scores.shape[1] === 1 ? scores.greater(0.5).cast('int32').reshape([rows]) : scores.argMax(1);
  };

  return {
    layout,
    topology: model.toJSON(undefined, false),
    inputShape,
    inputSize: inputShape.reduce((product, dimension) => product * dimension, 1),
    variables: [...trainable, ...other],

    gradients: (inputs, labels) => {
      let predictions: Tensor | undefined;
      const losses = (): Tensor => {
        const pass = forward(inputs, labels, true);
        predictions = tf.keep(predictionsOf(pass));
        return regularizers.reduce((total, penalty) => total.add(penalty()), pass.losses as Tensor);
      };
      // The slope of every sample's loss is 1: the gradient of their sum.
      const slope = tf.ones([inputs.shape[0] ?? 0]);
      const { value, grads } = withTapeFreed(tf, () => tf.engine().gradients(losses, trainable, slope, true));
      // Kept through the end of the gradient's own scope; from here on, of the caller's.
      const kept = predictions as Tensor;
      const own = kept.clone();
      kept.dispose();
      return {
        losses: value,
        predictions: own,
        gradients: trainable.map((_, i) => (grads[i] as Tensor | null | undefined) ?? null),
      };
    },

    infer: (inputs, labels) => {
      const pass = forward(inputs, labels, false);
      return { losses: pass.losses, predictions: predictionsOf(pass) };
    },

    initialWeights: async (initialSeed) => {
      const fresh = build(initialSeed);
      const { trainable: first, other: rest } = modelVariables(fresh);
      const weights = await readVariables([...first, ...rest], layout);
      fresh.dispose();
      return weights;
    },

    dispose: () => {
      model.dispose();
    },
  };
}

/** Runs a gradient. TensorFlow.js keeps what it saved for the backward pass when one throws: here it is let go. */
function withTapeFreed<T>(tf: Tf, gradient: () => T): T {
  try {
    return gradient();
  } catch (error) {
    const { state } = tf.engine() as unknown as { state: { activeTape: { saved?: readonly Tensor[] }[] | null } };
    for (const { saved = [] } of state.activeTape ?? []) saved.forEach((tensor) => tensor.dispose());
    state.activeTape = null;
    throw error;
  }
}

/** The shape of one sample; throws E_JOB_INVALID when the model can't be trained by this contract. */
function checkModel(job: JobDefinition, model: TensorFlow.LayersModel): number[] {
  if (model.inputs.length !== 1 || model.outputs.length !== 1) {
    throw new LockstepError(
      'E_JOB_INVALID',
      `the model of job '${job.name}' has ${model.inputs.length} inputs and ${model.outputs.length} outputs`,
      { remedy: 'Give a model with one input and one output.' },
    );
  }
  const [, ...shape] = model.inputs[0]?.shape ?? [];
  if (shape.some((dimension) => dimension === null)) {
    throw new LockstepError(
      'E_JOB_INVALID',
      `the input [${shape.join(', ')}] of job '${job.name}' is not of fixed size`,
      {
        remedy: 'Give the first layer an inputShape without null.',
      },
    );
  }
  return shape as number[];
}
