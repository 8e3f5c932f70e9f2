// The loss of each sample, and the model's forward pass up to it. Without a softmax to take off, the model's output is taken
// for probabilities and clipped as Keras clips them (keras.losses.sparse_categorical_crossentropy with from_logits=False, epsilon 1e-7).

import type * as TensorFlow from '@tensorflow/tfjs';
import type { JobDefinition, Tf } from '../../../jobs/contract.ts';
import { LockstepError } from '../../../protocol/errors.ts';
import { findSoftmaxEnd } from './softmax-end.ts';

type Tensor = TensorFlow.Tensor;
type Tensor1D = TensorFlow.Tensor1D;

const PROBABILITY_FLOOR = 1e-7;

export interface Forward {
  /** What the classes are read from: logits where the model ends in softmax, else its output. float32 [n, classes]. */
  readonly output: Tensor;
  /** float32 [n]. */
  readonly losses: Tensor1D;
}

/** Logits float32 [n, classes], labels int32 [n], to float32 [n]; differentiable in the logits. */
export type CrossEntropy = (logits: Tensor, labels: Tensor1D) => Tensor1D;

export type ForwardPass = (inputs: Tensor, labels: Tensor1D, training: boolean) => Forward;

/** Ties a model to its loss. Throws E_JOB_INVALID when the two don't fit. */
export function createForwardPass(
  tf: Tf,
  crossEntropy: CrossEntropy,
  model: TensorFlow.LayersModel,
  loss: JobDefinition['loss'],
): ForwardPass {
  const run = (inputs: Tensor, training: boolean): Tensor => model.apply(inputs, { training }) as Tensor;

  if (loss !== 'sparseCategoricalCrossentropy') {
    return (inputs, labels, training) => {
      const output = run(inputs, training);
      const losses = loss.perSample(tf, labels, output);
      if (losses.shape.length !== 1 || losses.shape[0] !== labels.shape[0]) {
        throw new LockstepError(
          'E_JOB_INVALID',
          `the loss '${loss.name}' returned shape [${losses.shape.join(', ')}] for ${labels.shape[0]} samples`,
          { remedy: 'Return one float32 value a sample: shape [n].' },
        );
      }
      return { output, losses };
    };
  }

  const [output] = model.outputs;
  if (output?.shape.length !== 2) {
    throw new LockstepError(
      'E_JOB_INVALID',
      `sparseCategoricalCrossentropy needs a model with output [n, classes], not [${output?.shape.join(', ') ?? ''}]`,
      {
        remedy: 'End the model in a dense layer with one unit a class, or give a loss of your own.',
      },
    );
  }
  const withLogits = findSoftmaxEnd(model);
  if (withLogits !== undefined) {
    return (inputs, labels, training) =>
      withLogits(() => {
        const logits = run(inputs, training);
        return { output: logits, losses: crossEntropy(logits, labels) };
      });
  }
  return (inputs, labels, training) => {
    const probabilities = run(inputs, training);
    const clipped = tf.clipByValue(probabilities, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR);
    return { output: probabilities, losses: crossEntropy(tf.log(clipped), labels) };
  };
}

/** Softmax and cross-entropy, composed of operations that every backend has. */
export function composedCrossEntropy(tf: Tf): CrossEntropy {
  return (logits, labels) => {
    const chosen = tf.oneHot(labels, logits.shape[1] ?? 0).cast('float32');
    return tf.neg(tf.sum(tf.logSoftmax(logits).mul(chosen), 1));
  };
}
