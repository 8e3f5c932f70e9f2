// An engine that runs TensorFlow.js eagerly, operation by operation, on whatever backend is set: the plain way, which every
// backend can go. The traced engine is faster where there is a graph to trace into.
//
// Weights that the forward pass itself changes (moving averages) are put back after each microbatch, and their change is
// handed out with the gradient.

import type * as TensorFlow from '@tensorflow/tfjs';
import type { JobDefinition, Tf } from '../../jobs/contract.ts';
import { RandomUse, randomStream, type RandomStream } from '../../protocol/random.ts';
import { applyOnHost } from './apply.ts';
import { checkContribution, checkSamples, checkWeights, countCorrect, sum } from './checks.ts';
import { contributionOf, type Engine, type EngineInfo, type Evaluation, type Microbatch } from './engine.ts';
import { type Draws, withDraws, withMathRandom } from './model/chance.ts';
import { createJobModel } from './model/job-model.ts';
import type { CrossEntropy } from './model/loss.ts';
import { readVariables, writeVariables } from './model/weights.ts';

type Tensor = TensorFlow.Tensor;

export interface EagerBackend {
  readonly tf: Tf;
  readonly info: EngineInfo;
  readonly crossEntropy: CrossEntropy;
  /** Keyed draws of one forward pass. */
  readonly drawsFrom: (random: RandomStream) => Draws;
}

/** Opens the engine with the initial weights of `seed` loaded. Throws E_JOB_INVALID. */
export async function createEagerEngine(backend: EagerBackend, job: JobDefinition, seed: number): Promise<Engine> {
  const { tf } = backend;
  const model = createJobModel(tf, job, seed, backend.crossEntropy);
  const { layout, inputShape, inputSize, variables } = model;
  const contribution = contributionOf(layout);
  const others = layout.entries.flatMap((entry, i) => {
    const variable = variables[i];
    return entry.trainable || variable === undefined ? [] : [{ entry, variable }];
  });

  /** The weights as loaded, and the memory that each non-trainable one had then: one that was changed has other memory. */
  const loaded = new Float32Array(layout.size);
  let loadedIds: unknown[] = [];

  function loadWeights(weights: Float32Array): void {
    checkWeights(layout, weights);
    loaded.set(weights);
    writeVariables(tf, variables, layout, loaded);
    loadedIds = others.map(({ variable }) => variable.dataId);
  }

  /** Writes (new - loaded) x n for the weights that the forward pass changed, and puts them back. */
  async function takeStateChange(samples: number, out: Float32Array): Promise<void> {
    for (const [i, { entry, variable }] of others.entries()) {
      const { offset, length, shape } = entry;
      if (variable.dataId === loadedIds[i]) {
        out.fill(0, offset, offset + length);
        continue;
      }
      const before = loaded.subarray(offset, offset + length);
      const after = await variable.data<'float32'>();
      for (let k = 0; k < length; k++) {
        out[offset + k] = ((after[k] as number) - (before[k] as number)) * samples;
      }
      const values = tf.tensor(before.slice(), [...shape]);
      variable.assign(values);
      values.dispose();
      loadedIds[i] = variable.dataId;
    }
  }

  const tensorsOf = (size: number, inputs: Float32Array, labels: Int32Array): [Tensor, TensorFlow.Tensor1D] => [
    tf.tensor(inputs, [size, ...inputShape]),
    tf.tensor1d(labels, 'int32'),
  ];

  async function read(losses?: Tensor, classes?: Tensor): Promise<{ lossSum: number; predictions: Int32Array }> {
    if (losses === undefined || classes === undefined) throw new TypeError('a pass gave no losses');
    return { lossSum: sum(await losses.data<'float32'>()), predictions: await classes.data<'int32'>() };
  }

  loadWeights(await readVariables(variables, layout));
  return {
    info: backend.info,
    layout,
    topology: model.topology,
    initialWeights: model.initialWeights,
    loadWeights,

    async gradient({ size, inputs, labels, random }: Microbatch, out, buckets) {
      checkSamples(size, inputSize, inputs, labels);
      checkContribution(layout, out);
      const stream = randomStream(random.seed, RandomUse.layers, random.step, random.microbatch);
      const tensors = tf.tidy(() =>
        withMathRandom(stream.uniform, () =>
          withDraws(tf, backend.drawsFrom(stream), () => {
            const { gradients, losses, predictions } = model.gradients(...tensorsOf(size, inputs, labels));
            // No gradient: zeros, filled in below.
            return [losses, predictions, ...gradients.map((gradient) => gradient ?? tf.zeros([0]))];
          }),
        ),
      );
      const [losses, classes, ...gradients] = tensors;
      // All on their way at once: on a GPU each is a journey.
      const values = await Promise.all(gradients.map(async (gradient) => gradient.data<'float32'>()));
      values.forEach((gradient, i) => {
        const { offset = 0, length = 0 } = layout.entries[i] ?? {};
        if (gradient.length === length) out.set(gradient, offset);
        else out.fill(0, offset, offset + length);
      });
      const { lossSum, predictions } = await read(losses, classes);
      out[contribution.loss] = lossSum;
      out[contribution.correct] = countCorrect(predictions, labels);
      tf.dispose(tensors);
      await takeStateChange(size, out);
      buckets?.list.forEach((_, index) => buckets.ready(index));
    },

    apply(update) {
      const norm = applyOnHost(layout, update);
      loadWeights(update.weights);
      return norm;
    },

    async evaluate(size: number, inputs: Float32Array, labels: Int32Array): Promise<Evaluation> {
      checkSamples(size, inputSize, inputs, labels);
      const tensors = tf.tidy(() => {
        const { losses, predictions } = model.infer(...tensorsOf(size, inputs, labels));
        return [losses, predictions];
      });
      const { lossSum, predictions } = await read(...tensors);
      tf.dispose(tensors);
      return { lossSum, correct: countCorrect(predictions, labels), predictions };
    },

    memory: () => {
      const { numTensors, numBytes } = tf.memory();
      return { tensors: numTensors, bytes: numBytes };
    },
    close: model.dispose,
  };
}
