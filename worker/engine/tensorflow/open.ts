// Opens the `tensorflow` engine in this process: traced into graphs, or eager where that is asked for.

import type { JobDefinition } from '../../../jobs/contract.ts';
import { LockstepError } from '../../../protocol/errors.ts';
import { createEagerEngine } from '../eager-engine.ts';
import type { Engine } from '../engine.ts';
import { readEngineEnvironment } from '../environment.ts';
import { describeEngine, type EngineMode, type GpuDevice, type Precision } from './device.ts';
import { loadTensorflow, type TensorflowLibrary } from './library.ts';
import { crossEntropyOf, statelessDraws } from './operations.ts';
import { keepSignalsAway } from './signals.ts';
import { createTracedEngine } from './traced-engine.ts';

export interface TensorflowOptions {
  readonly job: JobDefinition;
  /** The compiled native addon (set-up makes it). */
  readonly bindingPath: string;
  /** The TensorFlow version that must really be loaded, e.g. `2.21.0`; null: whichever the addon brings. */
  readonly libraryVersion: string | null;
  /** The run's seed: the model starts with `initialWeights(seed)`. */
  readonly seed: number;
  readonly mode: EngineMode;
  readonly precision: Precision;
  /** The GPU to run on: `tensorflow-gpu`. Left out: the CPU. */
  readonly gpu?: GpuDevice;
}

/**
 * Opens the engine in this process; the environment must hold `engineEnvironment()`'s variables, and for a GPU `gpuEnvironment()`'s.
 * Throws E_ENGINE_UNAVAILABLE or E_JOB_INVALID.
 */
export async function openTensorflow(options: TensorflowOptions): Promise<Engine> {
  const { job, seed, mode, precision } = options;
  const environment = readEngineEnvironment(process.env);
  keepSignalsAway();
  const library = await loadTensorflow(options.bindingPath, options.libraryVersion);
  const gpu = options.gpu ?? null;
  if (gpu !== null) checkGpu(library, gpu);
  const info = describeEngine(library, environment, mode, precision, gpu);
  if (mode === 'graph') return createTracedEngine(library, info, job, seed, precision);
  if (precision !== 'float32') {
    throw new LockstepError(
      'E_NOT_SUPPORTED',
      `--precision ${precision} needs the traced graph: --engine-mode eager has float32 only`,
      {
        remedy: 'Leave out --engine-mode, or --precision.',
      },
    );
  }
  const { tf } = library;
  const crossEntropy = crossEntropyOf(library);
  const drawsFrom = (random: { uint32(): number }): ReturnType<typeof statelessDraws> =>
    statelessDraws(library, tf.tensor1d(Int32Array.of(random.uint32(), random.uint32()), 'int32'));
  return createEagerEngine({ tf, info, crossEntropy, drawsFrom }, job, seed);
}

/** TensorFlow goes on without a word on the CPU when a library of CUDA's is missing: here that is an error. */
function checkGpu({ onGpu, version }: TensorflowLibrary, gpu: GpuDevice): void {
  if (onGpu) return;
  throw new LockstepError('E_ENGINE_UNAVAILABLE', `TensorFlow ${version} finds no GPU, though there is ${gpu.name}`, {
    remedy: 'See why by `npx lockstep doctor`; repair it by `npm run setup -- --engine tensorflow-gpu`.',
  });
}
