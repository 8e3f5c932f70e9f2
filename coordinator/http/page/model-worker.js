// Runs the newest checkpoint with TensorFlow.js, in a thread of its own: the page stays smooth, and this thread alone may compile
// WebAssembly (its Content-Security-Policy comes with this file). WebAssembly first: float32 on every machine and no GPU; a model with
// an operation that it lacks runs on plain JavaScript.
//
// A request has an `id`; the answer to each carries it. `run` is answered in pieces, as they are ready.

'use strict';

const VENDOR = '/page/vendor/';
const BATCH = 50;
/** Of an image's side: the patch that covers it, and how far it moves at a time; plain JavaScript has time for fewer. */
const PATCH = 0.25;
const STRIDE = { wasm: 1 / 16, cpu: 1 / 8 };

let model = null;
/** [height, width, channels] */
let shape = [];

async function openBackend() {
  importScripts(`${VENDOR}tf.min.js`, `${VENDOR}tf-backend-wasm.min.js`);
  tf.wasm.setWasmPaths(VENDOR);
  await useBackend('wasm');
}

async function useBackend(name) {
  if (!(await tf.setBackend(name))) throw new Error(`TensorFlow.js has no backend ${name} here`);
  await tf.ready();
}

/** Probabilities of the samples, [count x classes]. A model may end in logits: they are no distribution. */
function probabilities(values, count) {
  return tf.tidy(() => {
    const output = model.predict(tf.tensor4d(values, [count, ...shape]));
    if (Array.isArray(output) || output.rank !== 2)
      throw new Error('the model does not answer with a number for each class');
    const sums = output.sum(1);
    const isDistribution =
      output.min().dataSync()[0] >= 0 && sums.sub(1).abs().max().dataSync()[0] < 1e-3 && output.shape[1] > 1;
    return (isDistribution ? output : output.softmax()).dataSync();
  });
}

/** Kernels of the first convolution as [filters][height][width][channels]; null where there are none that can be seen. */
function firstFilters() {
  const layer = model.layers.find((one) => one.getClassName() === 'Conv2D');
  const kernel = layer?.getWeights()[0];
  if (kernel === undefined || (kernel.shape[2] !== 3 && kernel.shape[2] !== 1)) return null;
  return tf.tidy(() => ({ shape: kernel.shape, layer: layer.name, values: kernel.transpose([3, 0, 1, 2]).dataSync() }));
}

async function load({ shape: given, headers }) {
  shape = given;
  if (self.tf === undefined) await openBackend();
  const open = () => tf.loadLayersModel('/model/model.json', { requestInit: { headers } });
  const loaded = await open();
  model?.dispose();
  model = loaded;
  const length = shape.reduce((a, b) => a * b, 1);
  try {
    probabilities(new Float32Array(length), 1);
  } catch (error) {
    if (tf.getBackend() === 'cpu') throw error;
    // An operation without a kernel in WebAssembly.
    await useBackend('cpu');
    model.dispose();
    model = await open();
    probabilities(new Float32Array(length), 1);
  }
  const { step, digest } = model.getUserDefinedMetadata();
  return { step, digest, backend: tf.getBackend(), filters: firstFilters() };
}

/** Tells the probabilities batch by batch; another request may come between two. */
async function run({ values, count }, tell) {
  const length = values.length / count;
  for (let from = 0; from < count; from += BATCH) {
    const some = Math.min(BATCH, count - from);
    tell({ from, count: some, values: probabilities(values.subarray(from * length, (from + some) * length), some) });
    await new Promise((resolve) => {
      setTimeout(resolve);
    });
  }
  return {};
}

/**
 * How much less likely its class becomes where a grey patch covers the image: for each pixel the mean over the patches that cover it.
 */
function explain({ values }) {
  const [height, width, channels] = shape;
  const before = probabilities(values, 1);
  const top = before.indexOf(Math.max(...before));
  const classes = before.length;
  const side = (length, share) => Math.max(1, Math.round(length * share));
  const [patchHeight, patchWidth] = [side(height, PATCH), side(width, PATCH)];
  const starts = (length, patch, stride) => {
    const found = [];
    for (let at = 0; at < length - patch; at += stride) found.push(at);
    return [...found, length - patch];
  };
  const stride = STRIDE[tf.getBackend()] ?? STRIDE.wasm;
  const places = starts(height, patchHeight, side(height, stride)).flatMap((y) =>
    starts(width, patchWidth, side(width, stride)).map((x) => [y, x]),
  );
  const mean = Array.from({ length: channels }, (_, c) => {
    let sum = 0;
    for (let i = c; i < values.length; i += channels) sum += values[i];
    return (sum * channels) / values.length;
  });
  const drops = [];
  for (let from = 0; from < places.length; from += BATCH) {
    const some = places.slice(from, from + BATCH);
    const batch = new Float32Array(some.length * values.length);
    for (const [i, [top_, left]] of some.entries()) {
      const one = batch.subarray(i * values.length, (i + 1) * values.length);
      one.set(values);
      for (let y = top_; y < top_ + patchHeight; y++)
        for (let x = left; x < left + patchWidth; x++)
          for (let c = 0; c < channels; c++) one[(y * width + x) * channels + c] = mean[c];
    }
    const after = probabilities(batch, some.length);
    for (let i = 0; i < some.length; i++) drops.push(before[top] - after[i * classes + top]);
  }
  const heat = new Float32Array(height * width);
  const covered = new Float32Array(height * width);
  for (const [i, [top_, left]] of places.entries())
    for (let y = top_; y < top_ + patchHeight; y++)
      for (let x = left; x < left + patchWidth; x++) {
        heat[y * width + x] += drops[i];
        covered[y * width + x] += 1;
      }
  for (let i = 0; i < heat.length; i++) heat[i] /= Math.max(1, covered[i]);
  return { probabilities: before, top, heat, greatest: Math.max(...drops) };
}

const ANSWERS = { load, run, explain };

self.addEventListener('message', async ({ data: { id, kind, ...request } }) => {
  const tell = (answer) => self.postMessage({ id, kind: 'part', ...answer });
  try {
    self.postMessage({ id, kind: 'done', ...(await ANSWERS[kind](request, tell)) });
  } catch (error) {
    self.postMessage({ id, kind: 'failed', because: error instanceof Error ? error.message : String(error) });
  }
});
