// TensorFlow.js on a GPU device of Dawn's. TensorFlow.js looks for the browser's `navigator.gpu` and, where it finds no adapter,
// trains on the processor without a word; so the device is opened here and the backend is made of it by hand.
//
// One device a process, shared by the engines that are open in it, destroyed when the last of them closes: only then can the
// process end. A GPU reports its errors late and goes on with zeros, so each piece of work is enclosed by WebGPU's error scopes.

import { createRequire } from 'node:module';
import type * as TensorFlow from '@tensorflow/tfjs';
import type { Tf } from '../../../jobs/contract.ts';
import { LockstepError } from '../../../protocol/errors.ts';
import { type ChosenAdapter, chooseAdapter } from './adapter.ts';
import { type Dawn, type GpuAdapterInfo, type GpuDevice, loadDawn } from './dawn.ts';
import { replacePrograms } from './kernels.ts';

export interface WebgpuBackend {
  readonly tf: Tf;
  readonly chosen: ChosenAdapter;
  /** Versions of the two packages that compute, e.g. `4.22.0`. */
  readonly version: string;
  /** Runs work on the GPU; throws E_WORKER_FAILED when the GPU reports an error in it, or is lost. */
  guard<T>(work: () => Promise<T>): Promise<T>;
  /** To be called once by each who opened it. */
  release(): void;
}

interface Shared {
  readonly backend: Omit<WebgpuBackend, 'release'>;
  readonly wish: string;
  readonly close: () => void;
  users: number;
}

const BACKEND = 'webgpu';
/** What TensorFlow.js's kernels are written for: as much as the adapter has. */
const LIMITS = [
  'maxComputeWorkgroupStorageSize',
  'maxComputeWorkgroupsPerDimension',
  'maxStorageBufferBindingSize',
  'maxBufferSize',
  'maxComputeWorkgroupSizeX',
  'maxComputeInvocationsPerWorkgroup',
];
const ERROR_SCOPES = ['validation', 'out-of-memory', 'internal'] as const;

const require = createRequire(import.meta.url);
let shared: Shared | undefined;

export interface BackendWish {
  readonly dawnPath: string;
  readonly adapter: string | null;
  readonly allowSoftware: boolean;
}

/** Makes the GPU TensorFlow.js's backend. Throws E_ENGINE_UNAVAILABLE. */
export async function openBackend(asked: BackendWish): Promise<WebgpuBackend> {
  const wish = JSON.stringify([asked.dawnPath, asked.adapter, asked.allowSoftware]);
  shared ??= await open(asked, wish);
  const own = shared;
  if (own.wish !== wish) {
    throw new LockstepError('E_ENGINE_UNAVAILABLE', `this process already runs on '${own.backend.chosen.name}'`, {
      remedy: 'Use one process an adapter.',
    });
  }
  own.users++;
  let isReleased = false;
  return {
    ...own.backend,
    release: () => {
      if (isReleased) return;
      isReleased = true;
      if (--own.users > 0) return;
      shared = undefined;
      own.close();
    },
  };
}

async function open({ dawnPath, adapter: name, allowSoftware }: BackendWish, wish: string): Promise<Shared> {
  const dawn = loadDawn(dawnPath);
  const chosen = await chooseAdapter(dawn, name, allowSoftware);
  const { adapter } = chosen;
  const requiredLimits = Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit] ?? 0]));
  const device = await adapter.requestDevice({ requiredLimits });
  try {
    const { tf, version } = await register(dawn, device, adapter.info);
    const close = (): void => {
      tf.removeBackend(BACKEND);
      device.destroy();
    };
    return { backend: { tf, chosen, version, guard: guardOf(device) }, wish, users: 0, close };
  } catch (error) {
    device.destroy();
    throw error;
  }
}

/** Makes `device` TensorFlow.js's backend, and makes sure that it is. */
async function register(dawn: Dawn, device: GpuDevice, info: GpuAdapterInfo): Promise<{ tf: Tf; version: string }> {
  const tf = require('@tensorflow/tfjs') as Tf;
  // Before `navigator.gpu` is there, or the package registers a backend of its own choice.
  const { WebGPUBackend } = require('@tensorflow/tfjs-backend-webgpu') as {
    WebGPUBackend: new (device: GpuDevice, info: GpuAdapterInfo) => TensorFlow.KernelBackend;
  };
  const { version } = require('@tensorflow/tfjs-backend-webgpu/package.json') as { version: string };
  // Small tensors would be computed in JavaScript until they first reach the GPU: the first microbatch after a load would
  // have other bits than the next.
  tf.env().set('WEBGPU_CPU_FORWARD', false);
  Object.assign(globalThis, dawn.globals);
  const backend = withNavigator(() => new WebGPUBackend(device, info));
  replacePrograms(backend);
  tf.registerBackend(BACKEND, () => backend);
  if (!(await tf.setBackend(BACKEND)) || tf.getBackend() !== BACKEND || tf.backend() !== backend) {
    throw new LockstepError('E_ENGINE_UNAVAILABLE', 'TensorFlow.js did not accept the WebGPU backend', {
      remedy: 'Use another engine.',
    });
  }
  return { tf, version };
}

/** The backend's constructor wants to see `navigator.gpu`, and nothing else does. */
function withNavigator<T>(make: () => T): T {
  const kept = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  Object.defineProperty(globalThis, 'navigator', { value: { gpu: {} }, configurable: true });
  try {
    return make();
  } finally {
    if (kept === undefined) Reflect.deleteProperty(globalThis, 'navigator');
    else Object.defineProperty(globalThis, 'navigator', kept);
  }
}

function guardOf(device: GpuDevice): WebgpuBackend['guard'] {
  const lost = device.lost.then(({ message }) => {
    throw failed(`the GPU is lost: ${message}`);
  });
  // Heard of in the next piece of work; when the device is destroyed by us there is none.
  lost.catch(() => {});
  return async (work) => {
    for (const scope of ERROR_SCOPES) device.pushErrorScope(scope);
    const result = work();
    await Promise.allSettled([Promise.race([result, lost])]);
    // What the GPU reports goes before what its results made of the work.
    const reports = Promise.all(ERROR_SCOPES.map(async () => device.popErrorScope()));
    const error = (await Promise.race([reports, lost])).find((report) => report !== null);
    if (error !== undefined) throw failed(`the GPU reports: ${error?.message}`);
    return result;
  };
}

function failed(message: string): LockstepError {
  return new LockstepError('E_WORKER_FAILED', message, {
    remedy: 'Take a smaller microbatch when it is out of memory; update its driver when it is not.',
  });
}
