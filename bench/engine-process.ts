// A measuring process (measure.ts) of one way to train the tutorial's CNN in Node: `stock` (TensorFlow.js's own eager
// `variableGrads` and `tf.train.adam`, on the native backend as @tensorflow/tfjs-node ships it), and Lockstep's engines:
// `eager`, `graph`, `mixed`, `wasm`, and on an NVIDIA GPU `stock-gpu`, `gpu`, `gpu-mixed`. Run by bench/engine.ts and bench/gpu.ts
// with the engine's environment set.
//
// A step is what training does with data at hand: each microbatch's gradient, their sum, Adam. The learning rate is tiny, so that
// the model never fits its noise: gradients of a trained-out model shrink to denormals, which are slower.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { existsSync } from 'node:fs';
import { findGpus } from '../deploy/setup/nvidia.ts';
import { findTensorflow, type TensorflowDevice } from '../deploy/setup/tensorflow.ts';
import cifar10Cnn from '../jobs/cifar10-cnn.ts';
import type { JobDefinition } from '../jobs/contract.ts';
import { LockstepError } from '../protocol/errors.ts';
import { alignedFloats } from '../worker/data/shell/aligned.ts';
import { contributionOf, type Engine } from '../worker/engine/engine.ts';
import type { GpuDevice } from '../worker/engine/tensorflow/device.ts';
import { loadTensorflow, registerBackend, type NativeBinding } from '../worker/engine/tensorflow/library.ts';
import { openTensorflow } from '../worker/engine/tensorflow/open.ts';
import { runsPerSecond, type Greeting, type WindowRequest } from './measure.ts';

const LEARNING_RATE = 1e-5;
/** Images that the steps take turns with: enough for the largest batch, which is a GPU's. */
const IMAGES = process.argv[2]?.includes('gpu') === true ? 8192 : 1024;
const IMAGE_FLOATS = 32 * 32 * 3;
const CLASSES = 10;
const MATMUL_SIZE = 1024;
/** TensorFlow's number of the type; the binding has no name for it. */
const BFLOAT16 = 14;

const noise = (i: number): number => ((Math.imul(i + 1, 0x9e3779b1) >>> 8) % 65_536) / 65_536;
// Where training has them.
const PIXELS = alignedFloats(IMAGES * IMAGE_FLOATS);
for (let i = 0; i < PIXELS.length; i++) PIXELS[i] = noise(i);
const LABELS = Int32Array.from({ length: IMAGES }, (_, i) => Math.floor(noise(i + 7_777_777) * CLASSES));

interface Samples {
  readonly inputs: Float32Array;
  readonly labels: Int32Array;
}

/** The first of the `size` samples of piece number `piece`, which starts over when the images are used up. */
const placeOf = (size: number, piece: number): number => (piece % Math.floor(IMAGES / size)) * size;

function samplesOf(size: number, piece: number): Samples {
  const first = placeOf(size, piece);
  return {
    inputs: PIXELS.subarray(first * IMAGE_FLOATS, (first + size) * IMAGE_FLOATS),
    labels: LABELS.subarray(first, first + size),
  };
}

interface System {
  readonly about: string;
  /** Images or GFLOP a second. */
  rate(request: WindowRequest): Promise<number>;
}

function addInto(into: Float32Array, from: Float32Array): void {
  for (let i = 0; i < into.length; i++) into[i] = (into[i] ?? 0) + (from[i] ?? 0);
}

function lockstep(engine: Engine, matmulRate?: (seconds: number) => Promise<number>): System {
  const { layout } = engine;
  const { optimizer } = cifar10Cnn;
  const { size: length } = contributionOf(layout);
  const sum = new Float32Array(length);
  const one = new Float32Array(length);
  const slots = optimizer.slots.map(() => new Float32Array(layout.trainableSize));
  let step = 0;
  let weights: Float32Array | undefined;
  const gradients = async (batch: number, microbatch: number): Promise<void> => {
    step += 1;
    const pieces = batch / microbatch;
    for (let i = 0; i < pieces; i++) {
      const random = { seed: 1, step, microbatch: i };
      const into = i === 0 ? sum : one;
      await engine.gradient({ size: microbatch, ...samplesOf(microbatch, step * pieces + i), random }, into);
      if (i > 0) addInto(sum, one);
    }
  };
  const { name, library, device, settings } = engine.info;
  return {
    about: `${name}, ${library}, ${device}, ${Object.entries(settings).flat().join(' ')}`,
    async rate({ work, batch, microbatch, seconds }) {
      if (work === 'matmul') return matmulRate?.(seconds) ?? Number.NaN;
      weights ??= await engine.initialWeights(1);
      const current = weights;
      const run = async (): Promise<void> => {
        await gradients(batch, microbatch);
        if (work === 'gradient') return;
        engine.apply({ sum, samples: batch, step, learningRate: LEARNING_RATE, optimizer, weights: current, slots });
      };
      return batch * (await runsPerSecond(run, seconds));
    },
  };
}

async function openLockstep(
  mode: 'eager' | 'graph',
  precision: 'float32' | 'mixed_bfloat16',
  gpu?: GpuDevice,
): Promise<System> {
  const { bindingPath, libraryVersion } = findTensorflow(gpu === undefined ? 'cpu' : 'gpu');
  const on = gpu === undefined ? {} : { gpu };
  const engine = await openTensorflow({
    job: cifar10Cnn,
    bindingPath,
    libraryVersion,
    seed: 1,
    mode,
    precision,
    ...on,
  });
  const { binding } = (await loadTensorflow(bindingPath, libraryVersion)).backend;
  return lockstep(engine, async (seconds) => matmul(binding, precision === 'float32' ? null : BFLOAT16, seconds));
}

/** GFLOP a second of a square matrix product, in float32 or cast to another type: about what a core can do at all. */
async function matmul(binding: NativeBinding, castTo: number | null, seconds: number): Promise<number> {
  const n = MATMUL_SIZE;
  const typed = (name: string, value: number) => ({ name, type: binding.TF_ATTR_TYPE, value });
  const no = (name: string) => ({ name, type: binding.TF_ATTR_BOOL, value: false });
  const matrix = (): number => {
    const id = binding.createTensor([n, n], binding.TF_FLOAT, PIXELS.slice(0, n * n));
    if (castTo === null) return id;
    const attributes = [typed('SrcT', binding.TF_FLOAT), typed('DstT', castTo), no('Truncate')];
    const [cast] = binding.executeOp('Cast', attributes, [id], 1);
    binding.deleteTensor(id);
    if (cast === undefined) throw new Error('Cast has no output');
    return cast.id;
  };
  const [a, b] = [matrix(), matrix()];
  const attributes = [no('transpose_a'), no('transpose_b'), typed('T', castTo ?? binding.TF_FLOAT)];
  const product = (): void => {
    for (const { id } of binding.executeOp('MatMul', attributes, [a, b], 1)) binding.deleteTensor(id);
  };
  const rate = await runsPerSecond(product, seconds);
  for (const id of [a, b]) binding.deleteTensor(id);
  return (rate * 2 * n ** 3) / 1e9;
}

/** What a TensorFlow.js user writes. Its images lie in the library's memory before the clock runs, which favours it a little. */
async function openStock(device: TensorflowDevice): Promise<System> {
  const { bindingPath } = findTensorflow(device);
  const binding = createRequire(import.meta.url)(bindingPath) as NativeBinding;
  const { tf, version } = await registerBackend(binding, bindingPath);
  const model = cifar10Cnn.model(tf);
  const adam = tf.train.adam(LEARNING_RATE);
  const pixels = tf.tensor4d(PIXELS, [IMAGES, 32, 32, 3]);
  const labels = tf.oneHot(tf.tensor1d(LABELS, 'int32'), CLASSES);
  let piece = 0;
  const gradients = (size: number, pieces: number): ReturnType<typeof tf.variableGrads>['grads'] => {
    piece += 1;
    const first = placeOf(size, piece);
    const x = pixels.slice([first, 0, 0, 0], [size, -1, -1, -1]);
    const y = labels.slice([first, 0], [size, -1]);
    return tf.variableGrads(() => {
      const predicted = model.apply(x, { training: true }) as typeof x;
      const loss = tf.metrics.categoricalCrossentropy(y, predicted).mean();
      return (pieces === 1 ? loss : loss.div(pieces)).asScalar();
    }).grads;
  };
  const step = (batch: number, microbatch: number): void => {
    tf.tidy(() => {
      const pieces = batch / microbatch;
      const sum = gradients(microbatch, pieces);
      for (let i = 1; i < pieces; i++) {
        for (const [name, gradient] of Object.entries(gradients(microbatch, pieces))) {
          sum[name] = sum[name]?.add(gradient) ?? gradient;
        }
      }
      adam.applyGradients(Object.entries(sum).map(([name, tensor]) => ({ name, tensor })));
    });
  };
  return {
    about: `TensorFlow.js ${tf.version['tfjs']} on TensorFlow ${version}`,
    async rate({ batch, microbatch, seconds }) {
      const run = (): void => {
        step(batch, microbatch);
      };
      return batch * (await runsPerSecond(run, seconds));
    },
  };
}

interface WasmRoom {
  openWasm(options: { job: JobDefinition; seed: number }): Promise<Engine>;
}

/** Null where this checkout has no wasm engine. */
async function openWasm(): Promise<System | null> {
  const place = new URL('../worker/engine/wasm/open.ts', import.meta.url);
  if (!existsSync(place)) return null;
  const room = (await import(place.href)) as WasmRoom;
  return lockstep(await room.openWasm({ job: cifar10Cnn, seed: 1 }));
}

/** The one GPU that bench/gpu.ts left visible. Throws E_ENGINE_UNAVAILABLE. */
async function theGpu(): Promise<GpuDevice> {
  const list = await findGpus();
  const [gpu] = list.found ? list.gpus : [];
  if (gpu !== undefined) return gpu;
  throw new LockstepError('E_ENGINE_UNAVAILABLE', list.found ? 'there is no GPU' : list.because);
}

async function open(name: string): Promise<System | null> {
  switch (name) {
    case 'stock':
      return openStock('cpu');
    case 'stock-gpu':
      return openStock('gpu');
    case 'gpu':
      return openLockstep('graph', 'float32', await theGpu());
    case 'gpu-mixed':
      return openLockstep('graph', 'mixed_bfloat16', await theGpu());
    case 'eager':
      return openLockstep('eager', 'float32');
    case 'graph':
      return openLockstep('graph', 'float32');
    case 'mixed':
      return openLockstep('graph', 'mixed_bfloat16');
    case 'wasm':
      return openWasm();
    default:
      throw new Error(`no such system: ${name}`);
  }
}

const say = (message: Greeting | { rate: number }): void => {
  process.stdout.write(`${JSON.stringify(message)}\n`);
};

async function main(name: string): Promise<void> {
  let system: System | null;
  try {
    system = await open(name);
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error;
    say({ missing: error.message });
    return;
  }
  if (system === null) {
    say({ missing: `there is no engine "${name}" here` });
    return;
  }
  say({ about: system.about });
  for await (const line of createInterface({ input: process.stdin })) {
    say({ rate: await system.rate(JSON.parse(line) as WindowRequest) });
  }
}

await main(process.argv[2] ?? '');
