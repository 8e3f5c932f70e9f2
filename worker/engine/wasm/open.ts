// Opens the `wasm` engine in this process: TensorFlow.js, eagerly, in WebAssembly with SIMD on one thread. It needs nothing but
// Node and its npm packages, runs wherever Node runs, and is the last rung of the ladder: several times slower than TensorFlow.

import { createRequire } from 'node:module';
import { arch, cpus } from 'node:os';
import type { JobDefinition, Tf } from '../../../jobs/contract.ts';
import { LockstepError } from '../../../protocol/errors.ts';
import { createEagerEngine } from '../eager-engine.ts';
import type { Engine } from '../engine.ts';
import { drawsFrom } from '../model/chance.ts';
import { composedCrossEntropy } from '../model/loss.ts';
import { registerTrainingKernels } from './kernels.ts';

const require = createRequire(import.meta.url);
let loaded: Tf | undefined;

/** Makes WASM TensorFlow.js's backend. Throws E_ENGINE_UNAVAILABLE when another backend, or none, would compute. */
async function loadWasm(): Promise<Tf> {
  if (loaded !== undefined) return loaded;
  const tf = require('@tensorflow/tfjs') as Tf;
  const { setThreadsCount } = require('@tensorflow/tfjs-backend-wasm') as {
    setThreadsCount: (threads: number) => void;
  };
  // More threads would add floats in an order of their own.
  tf.env().set('WASM_HAS_MULTITHREAD_SUPPORT', false);
  setThreadsCount(1);
  const accepted = await tf.setBackend('wasm');
  if (!accepted || tf.getBackend() !== 'wasm') {
    throw new LockstepError(
      'E_ENGINE_UNAVAILABLE',
      `TensorFlow.js's WASM backend does not start (${tf.getBackend()} would compute)`,
      {
        remedy: 'Install the npm packages again: npm ci.',
      },
    );
  }
  registerTrainingKernels(tf);
  loaded = tf;
  return tf;
}

/** Throws E_ENGINE_UNAVAILABLE or E_JOB_INVALID. */
export async function openWasm({ job, seed }: { job: JobDefinition; seed: number }): Promise<Engine> {
  const tf = await loadWasm();
  const { version } = require('@tensorflow/tfjs-backend-wasm/package.json') as { version: string };
  const simd = (await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT')) === true;
  const info = {
    name: 'wasm',
    library: `TensorFlow.js WASM ${version}`,
    device: `CPU (${cpus()[0]?.model.trim() ?? arch()})`,
    threads: 1,
    settings: { mode: 'eager', precision: 'float32', simd: simd ? 'on' : 'off' },
  };
  const backend = { tf, info, crossEntropy: composedCrossEntropy(tf) };
  return createEagerEngine({ ...backend, drawsFrom: (random) => drawsFrom(tf, random) }, job, seed);
}
