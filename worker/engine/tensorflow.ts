// The `tensorflow` engine: TensorFlow.js layers run eagerly, operation by operation, on the native TensorFlow library.
//
// A gradient is the gradient of the SUM of the samples' losses. Regularization losses of the model are added to every
// sample's loss, so that dividing the sum by the batch's sample count leaves them in once. Weights that the forward pass
// itself changes (moving averages) are put back after each microbatch, and their change is handed out with the gradient.
//
// Cost, tutorial CNN on one core: 47 native calls a microbatch; at 16 samples some 13 ms, of which 1 ms is JavaScript and a
// quarter is MaxPoolGrad, which TensorFlow's eager kernel is slow at.
// Deliberately absent: fusing those calls into one graph, GPUs, other precisions.

import { arch, cpus } from 'node:os';
import { readFileSync } from 'node:fs';
import type * as TensorFlow from '@tensorflow/tfjs';
import type { JobDefinition } from '../../jobs/contract.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { RandomUse, randomStream } from '../../protocol/random.ts';
import {
  type Engine,
  type EngineInfo,
  type Evaluation,
  type Microbatch,
  type WeightEntry,
  contributionOf,
} from './engine.ts';
import { readEngineEnvironment } from './environment.ts';
import { withLayerRandomness } from './layer-randomness.ts';
import { createForwardPass } from './loss.ts';
import { type TensorflowLibrary, loadTensorflow } from './tensorflow-library.ts';
import { regularizersOf } from './regularizers.ts';
import { layoutOf, modelVariables, readVariables, writeVariable } from './weights.ts';

export interface EngineOptions {
  readonly job: JobDefinition;
  /** The compiled native addon (set-up makes it). */
  readonly bindingPath: string;
  /** The TensorFlow version that must really be loaded, e.g. `2.21.0`. */
  readonly libraryVersion: string;
  /** The run's seed: the model starts with `initialWeights(seed)`. */
  readonly seed: number;
  readonly precision: 'float32';
}

/**
 * Opens the engine in this process; the environment must hold `engineEnvironment()`'s variables.
 * Throws E_ENGINE_UNAVAILABLE or E_JOB_INVALID.
 */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  const { job, seed } = options;
  const environment = readEngineEnvironment(process.env);
  const library = await loadTensorflow(options.bindingPath, options.libraryVersion);
  const { tf, backend } = library;

  const buildModel = (buildSeed: number): TensorFlow.LayersModel =>
    withLayerRandomness(randomStream(buildSeed, RandomUse.initialWeights), () => job.model(tf));
  const model = buildModel(seed);
  const inputShape = checkModel(job, model);
  const layout = layoutOf(model);
  const contribution = contributionOf(layout);
  const { trainable, other } = modelVariables(model);
  const variables = [...trainable, ...other];
  const trainableEntries = layout.entries.slice(0, trainable.length);
  const otherEntries = layout.entries.slice(trainable.length);
  const forward = createForwardPass(tf, backend, model, job.loss);
  const regularizers = regularizersOf(model);
  const inputSize = inputShape.reduce((product, dimension) => product * dimension, 1);

  /** The weights as loaded: the engine's own copy, since native tensors may share this memory. */
  const loaded = new Float32Array(layout.size);
  /** The native memory that each non-trainable weight had when loaded: one that the forward pass changed has other memory. */
  const loadedMemory: unknown[] = [];

  const slice = (entry: WeightEntry): Float32Array => loaded.subarray(entry.offset, entry.offset + entry.length);

  function loadWeights(weights: Float32Array): void {
    if (weights.length !== layout.size) {
      throw new RangeError(`${weights.length} floats for a model of ${layout.size} weights`);
    }
    loaded.set(weights);
    layout.entries.forEach((entry, i) => {
      const variable = variables[i];
      if (variable !== undefined) writeVariable(backend, variable, slice(entry));
    });
    other.forEach((variable, i) => (loadedMemory[i] = variable.dataId));
  }

  /** Writes (new - loaded) x n for the weights that the forward pass changed, and puts them back. */
  function takeStateChange(samples: number, out: Float32Array): void {
    other.forEach((variable, i) => {
      const entry = otherEntries[i];
      if (entry === undefined) return;
      if (variable.dataId === loadedMemory[i]) {
        out.fill(0, entry.offset, entry.offset + entry.length);
        return;
      }
      const before = slice(entry);
      const after = backend.readSync(variable.dataId);
      for (let k = 0; k < entry.length; k++) {
        out[entry.offset + k] = ((after[k] ?? 0) - (before[k] ?? 0)) * samples;
      }
      writeVariable(backend, variable, before);
      loadedMemory[i] = variable.dataId;
    });
  }

  function checkSamples(size: number, inputs: Float32Array, labels: Int32Array): void {
    if (size < 1 || inputs.length !== size * inputSize || labels.length !== size) {
      throw new RangeError(
        `${size} samples of ${inputSize} floats were announced; ${inputs.length} floats and ${labels.length} labels came`,
      );
    }
  }

  function gradient({ size, inputs, labels, random }: Microbatch, out: Float32Array): void {
    checkSamples(size, inputs, labels);
    if (out.length !== contribution.size)
      throw new RangeError(`out holds ${out.length} floats, not ${contribution.size}`);
    const stream = randomStream(random.seed, RandomUse.layers, random.step, random.microbatch);
    let correct = 0;
    withLayerRandomness(stream, () =>
      tf.tidy(() => {
        const x = tf.tensor(inputs, [size, ...inputShape]);
        const y = tf.tensor1d(labels, 'int32');
        const losses = (): TensorFlow.Tensor => {
          const pass = forward(x, y, true);
          correct = countCorrect(classesOf(backend.readSync(pass.output.dataId), size), labels);
          return regularizers.reduce((total, penalty) => total.add(penalty()), pass.losses as TensorFlow.Tensor);
        };
        // The slope of every sample's loss is 1: the gradient of their sum.
        const { value, grads } = tf.engine().gradients(losses, trainable, tf.ones([size]), true);
        trainableEntries.forEach((entry, i) => {
          const grad = grads[i];
          if (grad) out.set(backend.readSync(grad.dataId), entry.offset);
          else out.fill(0, entry.offset, entry.offset + entry.length);
        });
        out[contribution.loss] = sum(backend.readSync(value.dataId));
        out[contribution.correct] = correct;
      }),
    );
    takeStateChange(size, out);
  }

  function evaluate(size: number, inputs: Float32Array, labels: Int32Array): Evaluation {
    checkSamples(size, inputs, labels);
    return tf.tidy(() => {
      const pass = forward(tf.tensor(inputs, [size, ...inputShape]), tf.tensor1d(labels, 'int32'), false);
      const predictions = classesOf(backend.readSync(pass.output.dataId), size);
      return {
        lossSum: sum(backend.readSync(pass.losses.dataId)),
        correct: countCorrect(predictions, labels),
        predictions,
      };
    });
  }

  function initialWeights(initialSeed: number): Float32Array {
    const fresh = buildModel(initialSeed);
    const { trainable: first, other: rest } = modelVariables(fresh);
    const weights = readVariables(backend, [...first, ...rest], layout);
    fresh.dispose();
    return weights;
  }

  loadWeights(readVariables(backend, variables, layout));
  return {
    info: describeEngine(library, environment, options.precision),
    layout,
    topology: model.toJSON(undefined, false),
    initialWeights,
    loadWeights,
    gradient,
    evaluate,
    memory: () => {
      const { numTensors, numBytes } = tf.memory();
      return { tensors: numTensors, bytes: numBytes };
    },
    close: () => {
      model.dispose();
    },
  };
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

function describeEngine(
  library: TensorflowLibrary,
  environment: { threads: number; oneDnn: boolean },
  precision: string,
): EngineInfo {
  return {
    name: 'tensorflow',
    library: `TensorFlow ${library.version}`,
    device: `CPU (${cpus()[0]?.model.trim() ?? arch()})`,
    threads: environment.threads,
    settings: {
      mode: 'eager',
      precision,
      oneDNN: environment.oneDnn ? 'on' : 'off',
      instructionSet: instructionSet(),
    },
  };
}

/** The widest vector instructions that oneDNN may choose kernels by, widest first. */
const INSTRUCTION_SETS = [
  'amx_tile',
  'avx512_bf16',
  'avx512_vnni',
  'avx512f',
  'avx_vnni',
  'avx2',
  'avx',
  'sse4_1',
  'sve',
  'asimd',
];

function instructionSet(): string {
  const limit = process.env['ONEDNN_MAX_CPU_ISA'];
  const limited = limit === undefined ? '' : ` (limited to ${limit})`;
  try {
    const flags = new Set(
      readFileSync('/proc/cpuinfo', 'utf8')
        .match(/^(?:flags|Features)\s*:(.*)$/m)?.[1]
        ?.split(' '),
    );
    return `${INSTRUCTION_SETS.find((name) => flags.has(name)) ?? arch()}${limited}`;
  } catch {
    return `${arch()}${limited}`; // not Linux: the processor's family is all we know
  }
}

/** The class of each row: the first largest value; for a single column, whether it is above one half. */
function classesOf(values: Float32Array, rows: number): Int32Array {
  const columns = values.length / rows;
  const classes = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    const start = row * columns;
    let best = 0;
    if (columns === 1) best = (values[start] ?? 0) > 0.5 ? 1 : 0;
    else for (let k = 1; k < columns; k++) if ((values[start + k] ?? 0) > (values[start + best] ?? 0)) best = k;
    classes[row] = best;
  }
  return classes;
}

function countCorrect(classes: Int32Array, labels: Int32Array): number {
  let correct = 0;
  for (let i = 0; i < labels.length; i++) if (classes[i] === labels[i]) correct++;
  return correct;
}

function sum(values: Float32Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
