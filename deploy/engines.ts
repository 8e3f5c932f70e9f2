// What of the engine ladder works on this machine, and the choice from it. It looks and installs nothing; an engine that set-up
// can install without being asked (`tensorflow`) counts as working. Better rungs are looked at first, and no further than the
// choice needs: a machine with TensorFlow never asks for a GPU's WebGPU driver.

import { LockstepError } from '../protocol/errors.ts';
import { chooseEngine, type EngineChoice, type EngineName, type Finding, LADDER } from './ladder.ts';
import { findPip } from './setup/fetch.ts';
import { findGpus } from './setup/nvidia.ts';
import { findUserBinding, isSupportedPlatform, tensorflowDamage, TENSORFLOW_VERSION } from './setup/tensorflow.ts';
import { findWebgpu, webgpuDamage } from './setup/webgpu.ts';

const SETUP_GPU = 'Run `npm run setup -- --engine tensorflow-gpu` (3.4 GB).';
const SETUP_WEBGPU = 'Run `npm run setup -- --engine webgpu`.';

/** By engine; `adapter` is the one of WebGPU's that was named. */
const PROBES: Readonly<Record<EngineName, (adapter: string | null) => Promise<Finding>>> = {
  'tensorflow-gpu': async () => {
    const list = await findGpus();
    if (!list.found) return { available: false, ...list };
    const [first] = list.gpus;
    const gpus = `${list.gpus.length} x ${first?.name ?? ''} (compute capability ${first?.computeCapability ?? ''}, driver ${list.driver})`;
    if (tensorflowDamage('gpu') === null) {
      return { available: true, detail: `TensorFlow ${TENSORFLOW_VERSION} on ${gpus}, traced into one graph` };
    }
    return findUserBinding() === null
      ? { available: false, because: `it is not set up, though there are ${gpus}`, remedy: SETUP_GPU }
      : { available: true, detail: `@tensorflow/tfjs-node-gpu's own TensorFlow on ${gpus}, traced into one graph` };
  },

  tensorflow: async () => {
    const detail = `TensorFlow ${TENSORFLOW_VERSION} on the CPU, traced into one graph`;
    if (tensorflowDamage() === null) return { available: true, detail };
    if (!isSupportedPlatform()) {
      return {
        available: false,
        because: `there is no TensorFlow library for ${process.platform} on ${process.arch}`,
        remedy: 'Use Linux on x86-64.',
      };
    }
    // Its library comes as a Python wheel; without a compiler, so does one.
    return (await findPip()) === null
      ? {
          available: false,
          because: "it is not installed, and Python's pip is missing",
          remedy: 'apt-get install python3-pip',
        }
      : { available: true, detail };
  },

  webgpu: async (adapter) => {
    if (webgpuDamage() !== null) return { available: false, because: 'it is not set up', remedy: SETUP_WEBGPU };
    // Only here: the worker's code is much to load for a launcher.
    const { probeWebgpu } = await import('../worker/main.ts');
    try {
      const { name, backend } = await probeWebgpu(findWebgpu().dawnPath, adapter);
      return { available: true, detail: `TensorFlow.js on ${name} (${backend})` };
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      return { available: false, because: error.message, remedy: error.remedy ?? '' };
    }
  },

  wasm: async () => ({ available: true, detail: 'TensorFlow.js in WebAssembly, on the CPU: several times slower' }),
};

/** Every rung, best first, looked at whether it is needed or not. */
export async function examineEngines(): Promise<{ readonly name: EngineName; readonly finding: Finding }[]> {
  const found = [];
  for (const name of LADDER) found.push({ name, finding: await PROBES[name](null) });
  return found;
}

/** Chooses. Throws E_ENGINE_UNAVAILABLE where the wish cannot be met. */
export async function chooseEngineHere(wish: string, adapter: string | null = null): Promise<EngineChoice> {
  const name = LADDER.find((engine) => engine === wish) ?? 'auto';
  const unseen: Finding = { available: false, because: 'not looked for', remedy: '' };
  const findings: Record<EngineName, Finding> = {
    'tensorflow-gpu': unseen,
    tensorflow: unseen,
    webgpu: unseen,
    wasm: unseen,
  };
  if (name !== 'auto') findings[name] = await PROBES[name](adapter);
  if (!findings[name === 'auto' ? 'wasm' : name].available) {
    for (const engine of LADDER) {
      findings[engine] = await PROBES[engine](adapter);
      if (findings[engine].available) break;
    }
  }
  return chooseEngine(name, findings);
}
