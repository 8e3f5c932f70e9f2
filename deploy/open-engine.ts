// From the name of an engine to the engine itself, open in this process: finds what set-up installed for it on this machine.

import type { JobDefinition } from '../jobs/contract.ts';
import { LockstepError } from '../protocol/errors.ts';
import type { RunConfig } from '../protocol/run-config.ts';
import { type Engine, openTensorflow, openWasm, openWebgpu } from '../worker/main.ts';
import { gpuEnvironment } from '../worker/engine/environment.ts';
import { findGpus, type Gpu, gpuOf } from './setup/nvidia.ts';
import { findTensorflow, findUserBinding, tensorflowDamage } from './setup/tensorflow.ts';
import { findWebgpu } from './setup/webgpu.ts';

/** Of the WebGPU adapters that were named (`--adapter A,B`), the one for this process: one each, in turn. */
export function adapterOf(env: Readonly<Record<string, string | undefined>>): string | null {
  const names = (env['LOCKSTEP_ADAPTER'] ?? '').split(',').filter((name) => name !== '');
  const localRank = Number.parseInt(env['LOCAL_RANK'] ?? '0', 10);
  return names[localRank % names.length] ?? null;
}

/**
 * Leaves this process the GPU of its LOCAL_RANK and no other, and sets what TensorFlow reads when it is loaded.
 * Throws E_ENGINE_UNAVAILABLE.
 */
async function takeGpu(): Promise<Gpu> {
  const list = await findGpus();
  const gpu = list.found ? gpuOf(list.gpus, Number.parseInt(process.env['LOCAL_RANK'] ?? '0', 10)) : null;
  if (!list.found || gpu === null) {
    const because = list.found ? 'there is no GPU' : list.because;
    throw new LockstepError('E_ENGINE_UNAVAILABLE', `the engine tensorflow-gpu cannot run here: ${because}`, {
      ...(!list.found && { remedy: list.remedy }),
    });
  }
  Object.assign(process.env, gpuEnvironment(gpu.uuid));
  return gpu;
}

/** Throws E_ENGINE_UNAVAILABLE, E_NOT_SUPPORTED or E_JOB_INVALID. */
export async function openEngine(
  job: JobDefinition,
  config: Pick<RunConfig, 'engine' | 'engineMode' | 'precision' | 'seed'>,
): Promise<Engine> {
  const { engine, engineMode: mode, precision, seed } = config;
  switch (engine) {
    case 'tensorflow': {
      const { bindingPath, libraryVersion } = findTensorflow();
      return openTensorflow({ job, seed, bindingPath, libraryVersion, mode, precision });
    }
    case 'tensorflow-gpu': {
      const gpu = await takeGpu();
      const own = tensorflowDamage('gpu') === null ? null : findUserBinding();
      const library = own === null ? findTensorflow('gpu') : { bindingPath: own, libraryVersion: null };
      const { bindingPath, libraryVersion } = library;
      return openTensorflow({ job, seed, bindingPath, libraryVersion, mode, precision, gpu });
    }
    case 'webgpu': {
      const { dawnPath, dawnVersion } = findWebgpu();
      const adapter = adapterOf(process.env);
      // A rasteriser is taken when it was named, and only then.
      return openWebgpu({ job, seed, dawnPath, dawnVersion, adapter, allowSoftware: adapter !== null });
    }
    case 'wasm':
      return openWasm({ job, seed });
    default:
      throw new LockstepError('E_NOT_SUPPORTED', `this version of Lockstep has no engine ${engine}`);
  }
}
