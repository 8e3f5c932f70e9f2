// The part of WebGPU, and of Dawn's Node addon, that Lockstep calls itself. The rest is between TensorFlow.js and Dawn.

import { createRequire } from 'node:module';
import { LockstepError } from '../../../protocol/errors.ts';

export interface GpuAdapterInfo {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  /** Name and version of the driver. */
  readonly description: string;
  /** True for a rasteriser that runs on the processor. */
  readonly isFallbackAdapter: boolean;
}

export interface GpuError {
  readonly message: string;
}

export interface GpuDevice {
  /** Settles when the device is lost; with the reason `destroyed` when we destroyed it. */
  readonly lost: Promise<{ readonly reason: string; readonly message: string }>;
  pushErrorScope(filter: 'validation' | 'out-of-memory' | 'internal'): void;
  popErrorScope(): Promise<GpuError | null>;
  destroy(): void;
}

export interface GpuAdapter {
  readonly info: GpuAdapterInfo;
  readonly limits: Readonly<Record<string, number>>;
  requestDevice(descriptor: { readonly requiredLimits: Readonly<Record<string, number>> }): Promise<GpuDevice>;
}

export interface Gpu {
  requestAdapter(options: { readonly powerPreference: 'high-performance' }): Promise<GpuAdapter | null>;
}

/** Dawn's Node addon. */
export interface Dawn {
  /** @param flags `backend=NAME`, `adapter=PART OF A NAME`. While its result is referred to, the process does not end. */
  create(flags: readonly string[]): Gpu;
  /** WebGPU's classes and constants, meant to be global. */
  readonly globals: Readonly<Record<string, unknown>>;
}

/** Loads the addon; throws E_ENGINE_UNAVAILABLE. */
export function loadDawn(dawnPath: string): Dawn {
  try {
    return createRequire(import.meta.url)(dawnPath) as Dawn;
  } catch (cause) {
    const words = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
    throw new LockstepError('E_ENGINE_UNAVAILABLE', `Dawn's addon ${dawnPath} does not load: ${words}`, {
      remedy: 'Run `npm run setup -- --engine webgpu`.',
      cause,
    });
  }
}
