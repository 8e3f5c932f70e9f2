// Opens the `webgpu` engine in this process: TensorFlow.js, eagerly, on any GPU with a Vulkan, Metal or Direct3D 12 driver.
//
// Deliberately not here: a graph. TensorFlow.js's WebGPU backend runs one operation after the other; they are queued, so that
// JavaScript runs ahead of the GPU, and only the gradients' way to the host waits.

import type { JobDefinition } from '../../../jobs/contract.ts';
import { createEagerEngine } from '../eager-engine.ts';
import type { Engine, EngineInfo } from '../engine.ts';
import { drawsFrom } from '../model/chance.ts';
import { composedCrossEntropy } from '../model/loss.ts';
import { type AdapterName, chooseAdapter } from './adapter.ts';
import { openBackend, type WebgpuBackend } from './backend.ts';
import { loadDawn } from './dawn.ts';

export interface WebgpuOptions {
  readonly job: JobDefinition;
  /** The run's seed: the model starts with `initialWeights(seed)`. */
  readonly seed: number;
  /** Dawn's Node addon (set-up fetches it), and its version. */
  readonly dawnPath: string;
  readonly dawnVersion: string;
  /** The adapter's name or a part of it; null: Dawn's choice. One process uses one adapter. */
  readonly adapter: string | null;
  /** Take a rasteriser on the processor, too. */
  readonly allowSoftware: boolean;
}

/** Throws E_ENGINE_UNAVAILABLE or E_JOB_INVALID. */
export async function openWebgpu(options: WebgpuOptions): Promise<Engine> {
  const { job, seed } = options;
  const backend = await openBackend(options);
  try {
    const { tf } = backend;
    const engine = await createEagerEngine(
      {
        tf,
        info: describe(backend, options.dawnVersion),
        crossEntropy: composedCrossEntropy(tf),
        drawsFrom: (random) => drawsFrom(tf, random),
      },
      job,
      seed,
    );
    return {
      ...engine,
      gradient: async (microbatch, out, buckets) =>
        backend.guard(async () => engine.gradient(microbatch, out, buckets)),
      evaluate: async (size, inputs, labels) => backend.guard(async () => engine.evaluate(size, inputs, labels)),
      close: () => {
        engine.close();
        backend.release();
      },
    };
  } catch (error) {
    backend.release();
    throw error;
  }
}

/**
 * Which adapter `openWebgpu` would take, without opening it. One that is named may be a rasteriser.
 * Throws E_ENGINE_UNAVAILABLE.
 */
export async function probeWebgpu(dawnPath: string, adapter: string | null): Promise<AdapterName> {
  const { name, backend } = await chooseAdapter(loadDawn(dawnPath), adapter, adapter !== null);
  return { name, backend };
}

function describe({ chosen, version }: WebgpuBackend, dawnVersion: string): EngineInfo {
  const { name, backend, adapter } = chosen;
  const { vendor, architecture, description } = adapter.info;
  return {
    name: 'webgpu',
    library: `TensorFlow.js WebGPU ${version} on Dawn ${dawnVersion}`,
    device: description === '' ? name : `${name} (${description})`,
    threads: 1,
    settings: { mode: 'eager', precision: 'float32', backend, vendor, architecture },
  };
}
