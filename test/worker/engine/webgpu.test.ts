// The webgpu engine on SwiftShader, at some 10 images a second. The engines' whole contract passes there too, in two minutes;
// this is the part of it where a backend can go wrong: gradients, repeatable bits, state, and what only a GPU does.

import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type * as TensorFlow from '@tensorflow/tfjs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ensureWebgpu, findWebgpu } from '../../../deploy/setup/webgpu.ts';
import type { JobDefinition, Tf } from '../../../jobs/contract.ts';
import { digestOf } from '../../../worker/engine/digest.ts';
import { createEagerEngine } from '../../../worker/engine/eager-engine.ts';
import { contributionOf, type Engine, type Microbatch } from '../../../worker/engine/engine.ts';
import { drawsFrom } from '../../../worker/engine/model/chance.ts';
import { composedCrossEntropy } from '../../../worker/engine/model/loss.ts';
import { isSoftware, parseAdapters } from '../../../worker/engine/webgpu/adapter.ts';
import { openWebgpu } from '../../../worker/engine/webgpu/open.ts';
import { formulaBatch, formulaWeights, noise, readOracle, Stream } from '../../oracles/formula.ts';
import { jobOf, tutorialCnn } from './models.ts';
import { NO_ADAPTER, swiftShaderEnvironment, useSwiftShader } from './webgpu-software.ts';

const tf = createRequire(import.meta.url)('@tensorflow/tfjs') as Tf;
const key = { seed: 1, step: 0, microbatch: 0 };

const opened: Engine[] = [];
async function open(job: JobDefinition): Promise<Engine> {
  const engine = await openWebgpu({ job, seed: 1, ...findWebgpu(), adapter: null, allowSoftware: true });
  opened.push(engine);
  return engine;
}

async function contribute(engine: Engine, microbatch: Microbatch): Promise<Float32Array> {
  const out = new Float32Array(contributionOf(engine.layout).size).fill(Number.NaN);
  await engine.gradient(microbatch, out);
  return out;
}

const tiny = (units: number): JobDefinition =>
  jobOf(() => tf.sequential({ layers: [tf.layers.dense({ inputShape: [4], units })] }));

/** Of the library's own plain JavaScript backend. */
const expected = new Map<string, Float32Array>();

const { layers } = tf;
const ended = (...stack: TensorFlow.layers.Layer[]): TensorFlow.LayersModel =>
  tf.sequential({ layers: [...stack, layers.dense({ units: 3, activation: 'softmax' })] });

/** Models by the operation that they are here for, with the shape of a sample; ids where it is whole numbers. */
const MODELS: Record<string, { shape: number[]; ids?: true; build: () => TensorFlow.LayersModel }> = {
  'a product with a long inner dimension': {
    shape: [2500],
    build: () => ended(layers.dense({ inputShape: [2500], units: 40, activation: 'relu' })),
  },
  'the same of odd sizes': {
    shape: [2003],
    build: () => ended(layers.dense({ inputShape: [2003], units: 41 })),
  },
  'an embedding that meets its rows often': {
    shape: [40],
    ids: true,
    build: () => ended(layers.embedding({ inputDim: 10, outputDim: 4, inputLength: 40 }), layers.flatten()),
  },
  'a recurrent layer with a mask': {
    shape: [3],
    ids: true,
    build: () =>
      ended(
        layers.embedding({ inputDim: 10, outputDim: 4, inputLength: 3, maskZero: true }),
        layers.lstm({ units: 4, recurrentInitializer: 'glorotUniform' }),
      ),
  },
  'convolutions, depthwise and strided, with normalization and dropout': {
    shape: [8, 8, 3],
    build: () =>
      ended(
        layers.separableConv2d({ inputShape: [8, 8, 3], filters: 4, kernelSize: 3, useBias: false }),
        layers.batchNormalization(),
        layers.conv2d({ filters: 5, kernelSize: 3, strides: 2, padding: 'same', activation: 'elu' }),
        layers.averagePooling2d({ poolSize: 2 }),
        layers.dropout({ rate: 0.3 }),
        layers.flatten(),
      ),
  },
  attention: {
    shape: [6, 4],
    build: () => {
      const input = tf.input({ shape: [6, 4] });
      // No bias: the slope of the keys' is zero, which leaves nothing to compare but rounding.
      const dense = (): TensorFlow.SymbolicTensor =>
        layers.dense({ units: 4, useBias: false }).apply(input) as TensorFlow.SymbolicTensor;
      const scores = layers
        .softmax({ axis: -1 })
        .apply(layers.dot({ axes: [2, 2] }).apply([dense(), dense()])) as TensorFlow.SymbolicTensor;
      const mixed = layers.dot({ axes: [2, 1] }).apply([scores, dense()]) as TensorFlow.SymbolicTensor;
      const normal = layers.layerNormalization().apply(layers.add().apply([mixed, input]));
      const output = layers.dense({ units: 3, activation: 'softmax' }).apply(layers.flatten().apply(normal));
      return tf.model({ inputs: input, outputs: output as TensorFlow.SymbolicTensor });
    },
  },
};

/** x exp(w) + w: computes with a weight alone before the weight meets anything that lies on the GPU. */
class Scaled extends layers.Layer {
  static readonly className = 'Scaled';
  private scale: TensorFlow.LayerVariable | undefined;

  override build(): void {
    this.scale = this.addWeight('scale', [20], 'float32', tf.initializers.randomUniform({ minval: -1, maxval: 1 }));
    this.built = true;
  }

  override call(inputs: TensorFlow.Tensor | TensorFlow.Tensor[]): TensorFlow.Tensor {
    const [x] = Array.isArray(inputs) ? inputs : [inputs];
    const w = this.scale?.read();
    if (x === undefined || w === undefined) throw new Error('not built');
    return x.mul(w.exp()).add(w);
  }

  override computeOutputShape(shape: TensorFlow.Shape): TensorFlow.Shape {
    return shape;
  }
}

/** A gradient of five samples at weights that leave no part of it near zero. */
async function contributionOfModel(name: string, engine: Engine): Promise<Float32Array> {
  const { shape, ids } = MODELS[name] ?? { shape: [] };
  const width = shape.reduce((product, dimension) => product * dimension, 1);
  const weights = Float32Array.from(noise(Stream.weights, engine.layout.size), (u) => u - 0.5);
  for (const { name: of, offset, length } of engine.layout.entries) {
    if (/variance|gamma/.test(of)) for (let i = 0; i < length; i++) weights[offset + i] = 1;
  }
  engine.loadWeights(weights);
  const inputs = Float32Array.from(noise(Stream.pixels, 5 * width), (u) =>
    ids === true ? Math.floor(10 * u) : 2 * u - 1,
  );
  return contribute(engine, { size: 5, inputs, labels: Int32Array.of(0, 1, 2, 0, 1), random: key });
}

// One engine stays open throughout: the device closes with the last one, and its compiled kernels go with it.
let lasting: Engine | undefined;
beforeAll(async () => {
  await tf.setBackend('cpu');
  for (const [name, { build }] of Object.entries(MODELS)) {
    const plain = await createEagerEngine(
      {
        tf,
        info: { name: '', library: '', device: '', threads: 1, settings: {} },
        crossEntropy: composedCrossEntropy(tf),
        drawsFrom: (random) => drawsFrom(tf, random),
      },
      jobOf(build),
      1,
    );
    expected.set(name, await contributionOfModel(name, plain));
    plain.close();
  }
  useSwiftShader();
  await ensureWebgpu(
    () => {},
    () => {},
  );
  lasting = await open(tiny(2));
  opened.pop();
});
afterEach(() => {
  for (const engine of opened.splice(0)) engine.close();
});
afterAll(() => lasting?.close());

/** The largest difference of a tensor, over the tensor's largest expected value; of all tensors the worst. */
function worstError({ layout }: Engine, actual: Float32Array, wanted: Float32Array): number {
  expect(actual.length).toBe(wanted.length);
  const errors = layout.entries.map(({ offset, length }) => {
    const scale = wanted.slice(offset, offset + length).reduce((max, value) => Math.max(max, Math.abs(value)), 1e-6);
    let worst = 0;
    for (let i = offset; i < offset + length; i++) {
      const error = Math.abs((actual[i] as number) - (wanted[i] as number));
      worst = Number.isNaN(error) ? Number.POSITIVE_INFINITY : Math.max(worst, error);
    }
    return worst / scale;
  });
  return Math.max(...errors);
}

test("the tutorial CNN's gradient, loss and right answers are Keras's", async () => {
  const { gradient } = readOracle('cnn');
  const engine = await open(jobOf(tutorialCnn));
  engine.loadWeights(formulaWeights(engine.layout.entries.map(({ shape }) => shape)));
  const out = await contribute(engine, { size: gradient.samples, ...formulaBatch(gradient.samples, 0), random: key });
  expect(engine.layout.entries.map(({ shape }) => shape)).toEqual(gradient.tensors.map(({ shape }) => shape));
  engine.layout.entries.forEach(({ offset, length }, k) => {
    const probe = gradient.tensors[k];
    const values = out.subarray(offset, offset + length).filter((_, i) => i % (probe?.stride ?? 1) === 0);
    const scale = Math.max(...(probe?.values ?? []).map(Math.abs));
    const errors = [...values].map((value, i) => Math.abs(value - (probe?.values[i] ?? Number.NaN)) / scale);
    expect(errors.length).toBe(probe?.values.length);
    expect(Math.max(...errors)).toBeLessThan(2e-5);
  });
  const { loss, correct } = contributionOf(engine.layout);
  expect(Math.abs((out[loss] ?? Number.NaN) / gradient.loss - 1)).toBeLessThan(1e-6);
  expect(out[correct]).toBe(gradient.correct);
});

describe("gradients are those of TensorFlow.js's plain backend, with the same bits each time, for", () => {
  for (const name of Object.keys(MODELS)) {
    test(name, async () => {
      const engine = await open(jobOf((MODELS[name] as { build: () => TensorFlow.LayersModel }).build));
      const first = await contributionOfModel(name, engine);
      expect(worstError(engine, first, expected.get(name) as Float32Array)).toBeLessThan(1e-5);
      for (let i = 0; i < 3; i++) expect(digestOf(await contributionOfModel(name, engine))).toBe(digestOf(first));
    });
  }
});

test('a microbatch has the same bits right after a load and later, when all small tensors lie on the GPU', async () => {
  const engine = await open(
    jobOf(() =>
      tf.sequential({ layers: [new Scaled({ inputShape: [20] }), layers.activation({ activation: 'softmax' })] }),
    ),
  );
  const batch = {
    // More than the 1000 floats up to which TensorFlow.js would stay in JavaScript altogether.
    size: 60,
    inputs: Float32Array.from(noise(Stream.pixels, 1200)),
    labels: Int32Array.from({ length: 60 }, (_, i) => i % 20),
    random: key,
  };
  for (let seed = 0; seed < 5; seed++) {
    engine.loadWeights(await engine.initialWeights(seed));
    const first = await contribute(engine, batch);
    expect(digestOf(await contribute(engine, batch))).toBe(digestOf(first));
  }
});

test('moving statistics come out as their change times the samples, and are put back', async () => {
  const engine = await open(
    jobOf(() =>
      tf.sequential({
        layers: [
          layers.batchNormalization({ inputShape: [2], momentum: 0.75 }),
          layers.dense({ units: 2, useBias: false, activation: 'softmax' }),
        ],
      }),
    ),
  );
  // Scale, offset, kernel; then moving mean and moving variance.
  engine.loadWeights(Float32Array.of(1, 1, 0, 0, 1, 0, 0, 1, 10, 20, 1, 1));
  const batch = { size: 2, inputs: Float32Array.of(1, 2, 3, 6), labels: Int32Array.of(0, 1), random: key };
  const { offset, length } = contributionOf(engine.layout).state;
  // Means of the batch 2 and 4: (2 - 10) / 4 and (4 - 20) / 4, for two samples; variances 1 and 4: 0 and (4 - 1) / 4.
  for (let time = 0; time < 2; time++) {
    const state = [...(await contribute(engine, batch)).subarray(offset, offset + length)];
    [-4, -8, 0, 1.5].forEach((value, i) => expect(state[i]).toBeCloseTo(value, 5));
  }
});

test('no tensor is left over by gradients, evaluations and loads', async () => {
  const engine = await open(tiny(3));
  const weights = await engine.initialWeights(1);
  const batch = { size: 2, inputs: new Float32Array(8).fill(0.5), labels: Int32Array.of(0, 1), random: key };
  const before = engine.memory();
  for (let step = 0; step < 20; step++) {
    engine.loadWeights(weights);
    await contribute(engine, batch);
    await engine.evaluate(2, batch.inputs, batch.labels);
  }
  expect(engine.memory()).toEqual(before);
});

test('an error that the GPU reports fails the gradient in which it happened, and only that one', async () => {
  let isBad = true;
  const engine = await open(
    jobOf(() => tf.sequential({ layers: [layers.dense({ inputShape: [4], units: 1 })] }), {
      name: 'with a buffer of no possible use',
      perSample: (_, labels, output) => {
        const { device } = tf.backend() as unknown as { device: { createBuffer(wish: object): void } };
        if (isBad) device.createBuffer({ size: 4, usage: 0xffff });
        return output.reshape<TensorFlow.Tensor1D>([-1]).sub(labels.toFloat());
      },
    }),
  );
  const batch = { size: 2, inputs: new Float32Array(8), labels: Int32Array.of(0, 1), random: key };
  await expect(contribute(engine, batch)).rejects.toMatchObject({
    code: 'E_WORKER_FAILED',
    message: expect.stringContaining('the GPU reports') as string,
  });
  isBad = false;
  expect((await contribute(engine, batch)).every(Number.isFinite)).toBe(true);
});

test('an operation that would add floats in an order left to chance is refused by name', async () => {
  const engine = await open(
    jobOf(() => tf.sequential({ layers: [layers.dense({ inputShape: [4], units: 4 })] }), {
      name: 'with a scatter',
      perSample: (_, labels, output) => {
        const sums = tf.scatterND(tf.tensor2d([[0], [0]], [2, 1], 'int32'), tf.ones([2]), [2]);
        return output.sum<TensorFlow.Tensor1D>(1).add(labels.toFloat()).add(sums.sum());
      },
    }),
  );
  const batch = { size: 2, inputs: new Float32Array(8), labels: Int32Array.of(0, 1), random: key };
  await expect(contribute(engine, batch)).rejects.toMatchObject({
    code: 'E_NOT_SUPPORTED',
    message: expect.stringContaining('scatter') as string,
  });
});

test('a second adapter in one process is refused', async () => {
  const other = openWebgpu({ job: tiny(2), seed: 1, ...findWebgpu(), adapter: 'swiftshader', allowSoftware: true });
  await expect(other).rejects.toMatchObject({
    code: 'E_ENGINE_UNAVAILABLE',
    remedy: 'Use one process an adapter.',
  });
});

describe('an adapter', () => {
  test("is read from Dawn's list", () => {
    const text =
      "no suitable backends found\nAvailable adapters:\n * backend: 'vulkan', name: 'NVIDIA L4'\n * backend: 'vulkan', name: 'llvmpipe (LLVM 15.0.7, 256 bits)'\n";
    expect(parseAdapters(text)).toEqual([
      { backend: 'vulkan', name: 'NVIDIA L4' },
      { backend: 'vulkan', name: 'llvmpipe (LLVM 15.0.7, 256 bits)' },
    ]);
    expect(parseAdapters('no suitable backends found\nNo adapters')).toEqual([]);
  });

  test('is a rasteriser by its own word or by its name', () => {
    const gpu = { vendor: 'nvidia', architecture: 'ada', device: 'nvidia-l4', description: 'NVIDIA: 550.90' };
    expect(isSoftware({ ...gpu, isFallbackAdapter: false })).toBe(false);
    expect(isSoftware({ ...gpu, isFallbackAdapter: true })).toBe(true);
    const mesa = { vendor: 'mesa', architecture: '', device: 'llvmpipe-llvm-15-0-7-256-bits-', description: '' };
    expect(isSoftware({ ...mesa, isFallbackAdapter: false })).toBe(true);
  });
});

describe('a process of its own', () => {
  const script = fileURLToPath(new URL('webgpu-process.ts', import.meta.url));
  const run = (environment: Readonly<Record<string, string>>, ...args: string[]): unknown =>
    JSON.parse(
      execFileSync(process.execPath, ['--import', 'tsx', script, ...args], {
        env: { ...process.env, ...environment },
        encoding: 'utf8',
        timeout: 30_000,
        stdio: ['ignore', 'pipe', 'ignore'],
      }),
    );

  test('says what it really runs on, and ends when its engine is closed', () => {
    for (const name of ['', 'Subzero']) {
      expect(run(swiftShaderEnvironment(), name, 'software')).toEqual({
        name: 'webgpu',
        library: 'TensorFlow.js WebGPU 4.22.0 on Dawn 0.6.2',
        device: expect.stringMatching(/^SwiftShader Device \(Subzero\) \(SwiftShader driver [\d.]+\)$/) as string,
        threads: 1,
        settings: {
          mode: 'eager',
          precision: 'float32',
          backend: 'vulkan',
          vendor: 'google',
          architecture: 'swiftshader',
        },
      });
    }
  });

  const refused = (environment: Readonly<Record<string, string>>, args: string[], sentence: string): void => {
    expect(run(environment, ...args)).toEqual({
      code: 'E_ENGINE_UNAVAILABLE',
      message: expect.stringContaining(sentence) as string,
      remedy: expect.stringMatching(/\w/) as string,
    });
  };

  test('is refused a rasteriser that was not allowed, also by name', () => {
    const sentence = "the adapter 'SwiftShader Device (Subzero)' is no GPU but a rasteriser";
    refused(swiftShaderEnvironment(), [], sentence);
    refused(swiftShaderEnvironment(), ['SwiftShader Device (Subzero)'], sentence);
  });

  test('is refused an adapter that is not there, and told those that are', () => {
    refused(
      swiftShaderEnvironment(),
      ['GeForce', 'software'],
      "no single adapter is called 'GeForce'; there is 'SwiftShader Device (Subzero)'",
    );
  });

  test('is refused where there is no adapter at all, even when software is allowed', () => {
    refused(NO_ADAPTER, ['', 'software'], 'there is no GPU that WebGPU can use');
  });
});
