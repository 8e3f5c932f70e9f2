// One process of bench/pipeline.ts: microbatches of the tutorial's CNN, one after the other, by an engine on the main thread, or
// (`--thread`) on one of its own that the main thread asks by shared memory. Prints a line of JSON: milliseconds a microbatch (median),
// and how long the main thread's event loop was blocked (99th percentile, milliseconds).

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { findTensorflow } from '../deploy/setup/tensorflow.ts';
import cifar10Cnn from '../jobs/cifar10-cnn.ts';
import { contributionOf } from '../worker/engine/engine.ts';
import { openTensorflow } from '../worker/engine/tensorflow/open.ts';
import { median } from './measure.ts';

const MICROBATCH = 16;
const WARM_UP = 50;
const CALLS = 600;
/** Not in the library of types that this Node's own bring along. */
const later = Atomics as typeof Atomics & {
  waitAsync(words: Int32Array, index: number, value: number): { async: boolean; value: Promise<string> | string };
};
const ASKED = 0;
const DONE = 1;

/** One microbatch on the calling thread. */
async function openStep(): Promise<() => Promise<void>> {
  const { bindingPath, libraryVersion } = findTensorflow();
  const job = { job: cifar10Cnn, seed: 1, mode: 'graph', precision: 'float32' } as const;
  const engine = await openTensorflow({ ...job, bindingPath, libraryVersion });
  const inputs = Float32Array.from({ length: MICROBATCH * 32 * 32 * 3 }, (_, i) => ((i * 7919) % 256) / 255);
  const labels = Int32Array.from({ length: MICROBATCH }, (_, i) => i % 10);
  const out = new Float32Array(contributionOf(engine.layout).size);
  let step = 0;
  return async () => {
    const random = { seed: 1, step: step++, microbatch: 0 };
    await engine.gradient({ size: MICROBATCH, inputs, labels, random }, out);
  };
}

/** The same by a thread; the main thread waits for its word without being blocked. */
async function openThread(): Promise<() => Promise<void>> {
  const words = new Int32Array(new SharedArrayBuffer(8));
  // It keeps the process until its end.
  const thread = new Worker(new URL('step-thread.mjs', import.meta.url), { workerData: words, execArgv: [] });
  thread.on('error', (error) => {
    throw error;
  });
  let asked = 0;
  return async () => {
    asked++;
    Atomics.store(words, ASKED, asked);
    Atomics.notify(words, ASKED);
    while (Atomics.load(words, DONE) < asked) {
      const waiting = later.waitAsync(words, DONE, asked - 1);
      if (waiting.async) await waiting.value;
    }
  };
}

async function serve(words: Int32Array): Promise<void> {
  const step = await openStep();
  for (let done = 0; ; done++) {
    while (Atomics.load(words, ASKED) === done) Atomics.wait(words, ASKED, done);
    await step();
    Atomics.store(words, DONE, done + 1);
    Atomics.notify(words, DONE);
  }
}

async function measure(): Promise<void> {
  const step = await (process.argv.includes('--thread') ? openThread() : openStep());
  for (let i = 0; i < WARM_UP; i++) await step();
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const times: number[] = [];
  for (let i = 0; i < CALLS; i++) {
    const began = performance.now();
    await step();
    times.push(performance.now() - began);
    // What a worker does between two microbatches: it listens once.
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
  delay.disable();
  process.stdout.write(`${JSON.stringify({ ms: median(times), blockedMs: delay.percentile(99) / 1e6 })}\n`);
  process.exit(0);
}

if (isMainThread) await measure();
else if (workerData instanceof Int32Array) await serve(workerData);
