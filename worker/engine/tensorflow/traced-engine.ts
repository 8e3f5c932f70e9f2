// The `tensorflow` engine: a microbatch's losses and gradients as one TensorFlow graph, traced from the job's model once for
// each shape and run as one native call; evaluation likewise. No TensorFlow.js runs in a step.
//
// Cost, tutorial CNN: bench/RESULTS.md, `npm run bench -- engine`. Memory: the weights twice (ours and TensorFlow's), a graph
// a shape.

import type * as TensorFlow from '@tensorflow/tfjs';
import type { JobDefinition } from '../../../jobs/contract.ts';
import { RandomUse, randomStream } from '../../../protocol/random.ts';
import { applyOnHost } from '../apply.ts';
import { checkContribution, checkSamples, checkWeights, countCorrect, sum } from '../checks.ts';
import { contributionOf, type Engine, type EngineInfo, type Evaluation, type Microbatch } from '../engine.ts';
import { biasGradients } from '../graph/bias-gradients.ts';
import { plainMatrixProducts } from '../graph/matrix-products.ts';
import { mixedBfloat16 } from '../graph/mixed-bfloat16.ts';
import { reluAfterPooling } from '../graph/relu-after-pooling.ts';
import { type GraphPass, trace } from '../graph/trace.ts';
import { withDraws } from '../model/chance.ts';
import { createJobModel } from '../model/job-model.ts';
import { tidily } from '../model/tidy.ts';
import { readVariables } from '../model/weights.ts';
import type { Precision } from './device.ts';
import type { NativeArray, TensorflowLibrary } from './library.ts';
import { crossEntropyOf, statelessDraws } from './operations.ts';
import { deviceStore, type Feed, hostStore, type WeightedProgram } from './weight-store.ts';

type Tensor = TensorFlow.Tensor;

interface GradientProgram extends WeightedProgram {
  /** Places, in layout order, of the weights whose gradient is an output; the others' is zero. */
  readonly gradients: readonly number[];
  /** Places of the weights that the forward pass changed, whose new values are outputs. */
  readonly updates: readonly number[];
}

/** Opens the engine with the initial weights of `seed` loaded. Throws E_JOB_INVALID; the first gradient may throw E_TRACE. */
export async function createTracedEngine(
  library: TensorflowLibrary,
  info: EngineInfo,
  job: JobDefinition,
  seed: number,
  precision: Precision,
): Promise<Engine> {
  const { tf, backend, onGpu } = library;
  const { binding } = backend;
  const model = createJobModel(tf, job, seed, crossEntropyOf(library));
  const { layout, inputShape, inputSize } = model;
  const contribution = contributionOf(layout);
  const pass: GraphPass = (nodes) => {
    const plain = reluAfterPooling(plainMatrixProducts(nodes));
    return biasGradients(precision === 'mixed_bfloat16' ? mixedBfloat16(plain) : plain);
  };

  // ---- weights

  /** The weights as loaded: the engine's own, since native tensors may share this memory. */
  const loaded = new Float32Array(layout.size);
  const slices = layout.entries.map(({ offset, length }) => loaded.subarray(offset, offset + length));
  const store = onGpu ? deviceStore(binding, loaded) : hostStore(binding, layout, slices);

  function loadWeights(weights: Float32Array): void {
    checkWeights(layout, weights);
    loaded.set(weights);
    store.changed();
  }

  // ---- programs, one a shape

  const gradientPrograms = new Map<number, GradientProgram>();
  const inferencePrograms = new Map<number, WeightedProgram>();
  const samples = (size: number): { inputs: Tensor; labels: TensorFlow.Tensor1D } => ({
    inputs: tf.zeros([size, ...inputShape]),
    labels: tf.zeros([size], 'int32'),
  });

  function gradientProgram(size: number): GradientProgram {
    const known = gradientPrograms.get(size);
    if (known !== undefined) return known;
    const program = tidily(tf, (): GradientProgram => {
      const { inputs, labels } = samples(size);
      const key = tf.zeros<TensorFlow.Rank.R1>([2], 'int32');
      let places: number[] = [];
      const traced = trace(library, {
        inputs: { inputs, labels, key },
        variables: model.variables,
        body: () => {
          const { losses, predictions, gradients } = withDraws(tf, statelessDraws(library, key), () =>
            model.gradients(inputs, labels),
          );
          places = gradients.flatMap((gradient, place) => (gradient === null ? [] : [place]));
          return [losses, predictions, ...gradients.filter((gradient) => gradient !== null)];
        },
      });
      const updates = traced.updates.map(({ variable }) => variable);
      return { ...store.compile(traced, pass), gradients: places, updates };
    });
    gradientPrograms.set(size, program);
    return program;
  }

  function inferenceProgram(size: number): WeightedProgram {
    const known = inferencePrograms.get(size);
    if (known !== undefined) return known;
    const program = tidily(tf, () => {
      const { inputs, labels } = samples(size);
      const body = (): Tensor[] => {
        const { losses, predictions } = model.infer(inputs, labels);
        return [losses, predictions];
      };
      const traced = trace(library, { inputs: { inputs, labels }, variables: model.variables, body });
      return store.compile(traced, pass);
    });
    inferencePrograms.set(size, program);
    return program;
  }

  const batchOf = (size: number, inputs: Float32Array, labels: Int32Array): Feed[] => [
    { shape: [size, ...inputShape], values: inputs },
    { shape: [size], values: labels },
  ];

  loadWeights(await readVariables(model.variables, layout));
  return {
    info,
    layout,
    topology: model.topology,
    initialWeights: model.initialWeights,
    loadWeights,

    async gradient({ size, inputs, labels, random }: Microbatch, out, buckets) {
      checkSamples(size, inputSize, inputs, labels);
      checkContribution(layout, out);
      const program = gradientProgram(size);
      const stream = randomStream(random.seed, RandomUse.layers, random.step, random.microbatch);
      const key = Int32Array.of(stream.uint32(), stream.uint32());
      const keyed = { shape: [2], values: key };
      const [losses, predictions, ...rest] = program.run([...batchOf(size, inputs, labels), keyed]);
      if (program.gradients.length + program.updates.length < layout.entries.length) out.fill(0);
      program.gradients.forEach((place, i) => out.set(floatsOf(rest[i]), layout.entries[place]?.offset));
      program.updates.forEach((place, i) => {
        const entry = layout.entries[place];
        const before = slices[place];
        if (entry === undefined || before === undefined) return;
        const after = floatsOf(rest[program.gradients.length + i]);
        for (let k = 0; k < entry.length; k++) {
          out[entry.offset + k] = ((after[k] as number) - (before[k] as number)) * size;
        }
      });
      out[contribution.loss] = sum(floatsOf(losses));
      out[contribution.correct] = countCorrect(classesOf(predictions), labels);
      buckets?.list.forEach((_, index) => buckets.ready(index));
    },

    apply(update) {
      const norm = applyOnHost(layout, update);
      loadWeights(update.weights);
      return norm;
    },

    async evaluate(size, inputs, labels): Promise<Evaluation> {
      checkSamples(size, inputSize, inputs, labels);
      const [losses, classes] = inferenceProgram(size).run(batchOf(size, inputs, labels));
      const predictions = classesOf(classes);
      return { lossSum: sum(floatsOf(losses)), correct: countCorrect(predictions, labels), predictions };
    },

    // Counted by the library itself, so that one which nobody here remembers counts too.
    memory: () => ({
      tensors: tf.memory().numTensors + binding.getNumOfTensors(),
      bytes: tf.memory().numBytes + loaded.byteLength,
    }),
    close: () => {
      for (const program of [...gradientPrograms.values(), ...inferencePrograms.values()]) program.close();
      store.close();
      model.dispose();
    },
  };
}

// A program's outputs come in the order of its trace.
const floatsOf = (values?: NativeArray): Float32Array => values as Float32Array;
const classesOf = (values?: NativeArray): Int32Array => values as Int32Array;
