import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import type * as TensorFlow from '@tensorflow/tfjs';
import type { Tf } from '../../../jobs/contract.ts';
import { contributionOf } from '../../../worker/engine/engine.ts';
import { loadTensorflow } from '../../../worker/engine/tensorflow/library.ts';
import { openTensorflow as open } from '../../../worker/engine/tensorflow/open.ts';
import { createTracedEngine } from '../../../worker/engine/tensorflow/traced-engine.ts';
import { noise, Stream } from '../../oracles/formula.ts';
import { describeEngineContract } from './contract.ts';
import { jobOf, tutorialCnn } from './models.ts';
import { findTensorflow } from '../../../deploy/setup/tensorflow.ts';
import { openTensorflow } from './native-library.ts';

describeEngineContract('tensorflow', openTensorflow);
// The weights on the device, inputs as bits, one vector back, and deterministic operations only: none of which needs a GPU.
describeEngineContract("tensorflow, the GPU's way", async (job, seed) => {
  await openTensorflow(job, seed).then((engine) => engine.close());
  const { bindingPath, libraryVersion } = findTensorflow();
  const library = await loadTensorflow(bindingPath, libraryVersion);
  const info = { name: 'tensorflow', library: '', device: '', threads: 1, settings: {} };
  return createTracedEngine({ ...library, onGpu: true }, info, job, seed, 'float32');
});
describeEngineContract('tensorflow eager', async (job, seed) => openTensorflow(job, seed, 'eager'));

describe('a softmax at the end of a model is taken off for the loss, wherever it stands', () => {
  const inputs = Float32Array.from(noise(Stream.pixels, 12), (u) => 2 * u - 1);
  const labels = Int32Array.of(0, 2, 1);

  async function gradientOf(build: (tf: Tf) => TensorFlow.LayersModel, scale: number): Promise<Float32Array> {
    const engine = await openTensorflow(jobOf(build), 1);
    engine.loadWeights(Float32Array.from(noise(Stream.weights, engine.layout.size), (u) => (2 * u - 1) * scale));
    const out = new Float32Array(contributionOf(engine.layout).size);
    await engine.gradient({ size: 3, inputs, labels, random: { seed: 1, step: 0, microbatch: 0 } }, out);
    engine.close();
    return out;
  }
  const dense = (tf: Tf, activation?: 'softmax'): TensorFlow.layers.Layer =>
    tf.layers.dense({ inputShape: [4], units: 3, ...(activation && { activation }) });

  const endings: Record<string, (tf: Tf) => TensorFlow.LayersModel> = {
    'in a dense layer': (tf) => tf.sequential({ layers: [dense(tf, 'softmax')] }),
    'as an activation layer': (tf) =>
      tf.sequential({ layers: [dense(tf), tf.layers.activation({ activation: 'softmax' })] }),
    'as a softmax layer': (tf) => tf.sequential({ layers: [dense(tf), tf.layers.softmax()] }),
    'in a model within a functional model': (tf) => {
      const input = tf.input({ shape: [4] });
      const inner = tf.sequential({ layers: [dense(tf, 'softmax')] });
      return tf.model({ inputs: input, outputs: inner.apply(input) as TensorFlow.SymbolicTensor });
    },
  };

  for (const [where, build] of Object.entries(endings)) {
    test(where, async () => {
      // Weights of +-300 make probabilities of exactly 0 and 1, whose clipped loss would be at most 16.2 a sample.
      const out = await gradientOf(build, 300);
      expect(out[15]).toBeGreaterThan(100);
      expect(out.every(Number.isFinite)).toBe(true);
      expect(out).toEqual(await gradientOf(endings['in a dense layer'] as typeof build, 300));
    });
  }

  test('and left on where another layer uses it too', async () => {
    const shared = (tf: Tf): TensorFlow.LayersModel => {
      const input = tf.input({ shape: [4] });
      const softmax = tf.layers.softmax();
      const first = softmax.apply(dense(tf).apply(input));
      const last = softmax.apply(tf.layers.dense({ units: 3 }).apply(first)) as TensorFlow.SymbolicTensor;
      return tf.model({ inputs: input, outputs: last });
    };
    // Three samples of at most -log(1e-7) = 16.12 each, a little more where rows are divided by their sums.
    const out = await gradientOf(shared, 300);
    expect(out[27]).toBeLessThan(3 * 16.2);
  });
});

test('says what really runs: library, device, threads, and all that may change bits', async () => {
  const { info } = await openTensorflow(jobOf(tutorialCnn), 1);
  expect(info.name).toBe('tensorflow');
  expect(info.library).toBe('TensorFlow 2.21.0');
  expect(info.device).toMatch(/^CPU \(.+\)$/);
  expect(info.threads).toBe(1);
  expect(info.settings).toMatchObject({ mode: 'graph', precision: 'float32', oneDNN: 'on' });
  expect(info.settings['instructionSet']).toMatch(/\w/);
});

test('its topology and weights make a model that TensorFlow.js loads, softmax and all', async () => {
  const engine = await openTensorflow(jobOf(tutorialCnn), 4);
  const weights = await engine.initialWeights(4);
  engine.loadWeights(weights);
  const tf = createRequire(import.meta.url)('@tensorflow/tfjs') as Tf;
  const model = await tf.loadLayersModel(
    tf.io.fromMemory({
      modelTopology: JSON.parse(JSON.stringify(engine.topology)) as object,
      weightSpecs: engine.layout.entries.map(({ name, shape }) => ({
        name,
        shape: [...shape],
        dtype: 'float32' as const,
      })),
      weightData: weights.buffer as ArrayBuffer,
    }),
  );
  const inputs = Float32Array.from(noise(Stream.pixels, 5 * 3072));
  const output = model.predict(tf.tensor(inputs, [5, 32, 32, 3])) as TensorFlow.Tensor;
  const sums = output.sum(1).dataSync();
  for (const sum of sums) expect(sum).toBeCloseTo(1, 5);
  const { predictions } = await engine.evaluate(5, inputs, new Int32Array(5));
  expect([...output.argMax(1).dataSync()]).toEqual([...predictions]);
});

describe('opening is refused', () => {
  const options = () => ({
    job: jobOf(tutorialCnn),
    ...findTensorflow(),
    seed: 1,
    mode: 'graph' as const,
    precision: 'float32' as const,
  });

  for (const [name, value] of [
    ['TF_NUM_INTRAOP_THREADS', undefined],
    ['OMP_NUM_THREADS', 'many'],
    ['TF_ENABLE_ONEDNN_OPTS', undefined],
  ] as const) {
    test(`with ${name} ${value === undefined ? 'unset' : `set to ${value}`}`, async () => {
      await openTensorflow(jobOf(tutorialCnn), 1); // sets the environment
      const kept = process.env[name];
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
      await expect(open(options())).rejects.toMatchObject({
        code: 'E_ENGINE_UNAVAILABLE',
        message: expect.stringContaining(name) as string,
        remedy: expect.stringContaining('Set ') as string,
      });
      process.env[name] = kept;
    });
  }

  test('when the library is not the version that was asked for', async () => {
    await expect(open({ ...options(), libraryVersion: '2.9.1' })).rejects.toMatchObject({
      code: 'E_ENGINE_UNAVAILABLE',
      message: expect.stringContaining('2.21.0, not 2.9.1') as string,
    });
  });

  test('when the addon is missing', async () => {
    const script = fileURLToPath(new URL('fingerprint-process.ts', import.meta.url));
    const output = runProcess(script, { binding: '/nowhere/tfjs_binding.node' });
    expect(output).toContain('E_ENGINE_UNAVAILABLE: the TensorFlow addon /nowhere/tfjs_binding.node is missing');
  });

  test('for a model with two outputs, or with an input of unknown size', async () => {
    const two = jobOf((tf) => {
      const input = tf.input({ shape: [4] });
      const heads = [0, 1].map(() => tf.layers.dense({ units: 2 }).apply(input) as TensorFlow.SymbolicTensor);
      return tf.model({ inputs: input, outputs: heads });
    });
    await expect(openTensorflow(two, 1)).rejects.toMatchObject({ code: 'E_JOB_INVALID' });
    const unknown = jobOf((tf) =>
      tf.sequential({ layers: [tf.layers.globalAveragePooling1d({ inputShape: [null, 4] })] }),
    );
    await expect(openTensorflow(unknown, 1)).rejects.toMatchObject({ code: 'E_JOB_INVALID' });
  });
});

describe('a fingerprint of another process', () => {
  const script = fileURLToPath(new URL('fingerprint-process.ts', import.meta.url));
  const fingerprint = (changed: Record<string, string> = {}): string =>
    runProcess(script, { binding: findTensorflow().bindingPath, ...changed });

  test('is the same with the same settings, and differs without oneDNN and with two threads', async () => {
    const here = fingerprint();
    expect(here).toMatch(/^[0-9a-f]{64}$/);
    expect(fingerprint()).toBe(here);
    expect(fingerprint({ TF_ENABLE_ONEDNN_OPTS: '0' })).not.toBe(here);
    expect(fingerprint({ TF_NUM_INTRAOP_THREADS: '2', OMP_NUM_THREADS: '2' })).not.toBe(here);
    // Which thread calls an operation is no part of its result.
    expect(fingerprint({ TF_NUM_INTEROP_THREADS: '2' })).toBe(here);
  });
});

function runProcess(script: string, { binding, ...changed }: Record<string, string>): string {
  return execFileSync(process.execPath, ['--import', 'tsx', script, binding ?? ''], {
    env: { ...process.env, ...changed },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  }).trim();
}

test('TensorFlow that finds no GPU is not passed off as one: the engine for it does not open', async () => {
  await openTensorflow(jobOf(tutorialCnn), 1).then((engine) => engine.close());
  const { bindingPath, libraryVersion } = findTensorflow();
  const gpu = { name: 'NVIDIA H100 80GB HBM3', computeCapability: '9.0' };
  const opened = open({
    job: jobOf(tutorialCnn),
    bindingPath,
    libraryVersion,
    seed: 1,
    mode: 'graph',
    precision: 'float32',
    gpu,
  });
  await expect(opened).rejects.toMatchObject({
    code: 'E_ENGINE_UNAVAILABLE',
    message: 'TensorFlow 2.21.0 finds no GPU, though there is NVIDIA H100 80GB HBM3',
  });
});
