// One training of the tutorial's CNN on CIFAR-10 with compressed gradients, in this process: the training loop itself, on the
// collective as it is or on a compressor that is only simulated. Prints one line of JSON, a `Trained`.
//
//     compression-process.ts --form none|bf16|fp16|powersgd-R|topk-PERCENT --epochs N --samples N
//
// Any number of workers gives the same accuracy, so one is enough.

import { parseArgs } from 'node:util';
import { dataSetDirectory } from '../deploy/setup/dataset.ts';
import { findTensorflow } from '../deploy/setup/tensorflow.ts';
import job from '../jobs/cifar10-cnn.ts';
import { stepsPerEpoch, type BatchPlan } from '../protocol/batch-plan.ts';
import { inPlace } from '../worker/collective/shell/in-place.ts';
import { BatchLoader } from '../worker/data/batch-loader.ts';
import { contributionOf, type Engine } from '../worker/engine/engine.ts';
import { openTensorflow } from '../worker/engine/tensorflow/open.ts';
import { aloneContext, train, type Collective } from '../worker/train.ts';
import { powerSgd, topK, type Compressor } from './compressors.ts';

const SEED = 1;
const MICROBATCHES = 4;
/** For which bytes are counted. */
const WORKERS = 2;

export interface Trained {
  /** After each epoch. */
  readonly accuracies: readonly number[];
  /** That one of two workers sends a step. */
  readonly bytes: number;
  /** Exchanges a step that wait for one another. */
  readonly rounds: number;
}

function compressorOf(form: string, engine: Engine): Compressor | null {
  const [name, size = ''] = form.split('-');
  if (name === 'powersgd') return powerSgd(engine.layout, Number(size));
  return name === 'topk' ? topK(engine.layout, Number(size) / 100, MICROBATCHES) : null;
}

/** A collective of one rank whose sum goes through `compressor`; what is no gradient is summed in float32. */
function simulated(compressor: Compressor, engine: Engine): Collective {
  const { size } = contributionOf(engine.layout);
  const length = size + 1;
  const { trainableSize } = engine.layout;
  const vectors = Array.from({ length: MICROBATCHES }, () => new Float32Array(length));
  let present: Float32Array[] = [];
  const sum = new Float32Array(length);
  return {
    rank: 0,
    worldSize: 1,
    buckets: [{ offset: 0, length }],
    residuals: new Map(),
    slot: async (index) => {
      const vector = vectors[index] ?? new Float32Array(length);
      present.push(vector);
      return vector;
    },
    ready: () => {},
    absent: async () => {},
    allReduce: async () => {
      sum.fill(0);
      for (const vector of present)
        for (let i = trainableSize; i < length; i++) sum[i] = (sum[i] ?? 0) + (vector[i] ?? 0);
      compressor.sum(present, sum);
      present = [];
      return { sum, waitSeconds: 0, reduceSeconds: 0, traffic: [], marks: null };
    },
  };
}

async function main(): Promise<Trained> {
  const { values } = parseArgs({
    options: {
      form: { type: 'string', default: 'none' },
      epochs: { type: 'string', default: '1' },
      samples: { type: 'string', default: '50000' },
    },
  });
  const { bindingPath, libraryVersion } = findTensorflow();
  const engine = await openTensorflow({
    job,
    bindingPath,
    libraryVersion,
    seed: SEED,
    mode: 'graph',
    precision: 'float32',
  });
  const data = job.data.open(dataSetDirectory(job.data));
  const plan: BatchPlan = {
    samples: Number(values.samples),
    globalBatch: job.batchSize,
    microbatches: MICROBATCHES,
    seed: SEED,
  };
  const { trainableSize } = engine.layout;
  const length = contributionOf(engine.layout).size + 1;
  const compressor = compressorOf(values.form, engine);
  const half = values.form === 'bf16' || values.form === 'fp16' ? values.form : null;
  const collective =
    compressor === null
      ? inPlace(
          {
            worldSize: 1,
            hosts: ['here'],
            generation: 1,
            rank: 0,
            firstStep: 0,
            microbatches: MICROBATCHES,
            length,
            compression: half === null ? null : { elements: half, floats: trainableSize },
          },
          [],
          new Map(),
        )
      : simulated(compressor, engine);
  const accuracies: number[] = [];
  await train(
    {
      ...aloneContext(plan),
      steps: Number(values.epochs) * stepsPerEpoch(plan),
      learningRate: job.optimizer.learningRate,
      testSamples: data.test.size,
      engine,
      optimizer: job.optimizer,
      loader: new BatchLoader({ plan, split: data.train, inputShape: data.inputShape, augment: null }),
      test: data.test,
      inputShape: data.inputShape,
      collective,
      clock: () => performance.now() / 1000,
      tell: (message) => {
        if (message.kind !== 'evaluation') return;
        const correct = message.chunks.reduce((sum, chunk) => sum + chunk.correct, 0);
        accuracies.push(correct / data.test.size);
        process.stderr.write(`${values.form}: ${(correct / data.test.size).toFixed(4)}\n`);
      },
    },
    {
      step: 0,
      weights: await engine.initialWeights(SEED),
      slots: job.optimizer.slots.map(() => new Float32Array(trainableSize)),
    },
  );
  const whole = (2 * 4 * trainableSize * (WORKERS - 1)) / WORKERS;
  return {
    accuracies,
    bytes: compressor?.bytesSent(WORKERS, MICROBATCHES) ?? (half === null ? whole : whole / 2),
    rounds: compressor?.rounds ?? 1,
  };
}

process.stdout.write(`${JSON.stringify(await main())}\n`);
