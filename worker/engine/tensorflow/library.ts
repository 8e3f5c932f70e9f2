// Loads TensorFlow.js on top of a native TensorFlow library that Lockstep chose itself: the binding's path is handed in, and
// the loader of @tensorflow/tfjs-node, which looks for a prebuilt addon of an older library, is never run.
//
// Cost: about a second and 300 MB of address space, once a process. TensorFlow.js is one global per process; so is this.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import type * as TensorFlow from '@tensorflow/tfjs';
import type { Tf } from '../../../jobs/contract.ts';
import { LockstepError } from '../../../protocol/errors.ts';
import { useDeterministicGradients } from './deterministic-gradients.ts';
import { useNativeGradients } from './native-gradients.ts';

export type NativeArray = Float32Array | Int32Array | Uint8Array;

/** What an operation returns for each of its outputs; the tensor is native and belongs to the caller. */
export interface OutputTensor {
  readonly id: number;
  readonly shape: readonly number[];
  readonly dtype: number;
}

/** The part of the native addon that Lockstep calls itself. */
export interface NativeBinding {
  readonly TF_Version: string;
  readonly TF_FLOAT: number;
  readonly TF_INT32: number;
  readonly TF_BOOL: number;
  readonly TF_UINT8: number;
  readonly TF_ATTR_TYPE: number;
  readonly TF_ATTR_STRING: number;
  readonly TF_ATTR_INT: number;
  readonly TF_ATTR_FLOAT: number;
  readonly TF_ATTR_BOOL: number;
  readonly TF_ATTR_SHAPE: number;
  /** Makes a tensor of `values`, copied or, where aligned to 64 bytes, shared; returns its id. */
  createTensor(shape: readonly number[], type: number, values: NativeArray): number;
  deleteTensor(id: number): void;
  /** Whether TensorFlow found a GPU that it can use. */
  isUsingGpuDevice(): boolean;
  /** How many native tensors there are in this process. */
  getNumOfTensors(): number;
  /** A copy of the tensor's values. */
  tensorDataSync(id: number): NativeArray;
  executeOp(
    operation: string,
    attributes: readonly OpAttribute[],
    inputs: readonly number[],
    outputs: number,
  ): OutputTensor[];
  loadSavedModel(directory: string, tags: string): number;
  runSavedModel(session: number, inputs: readonly number[], inputNames: string, outputNames: string): OutputTensor[];
  deleteSavedModel(session: number): void;
}

export interface OpAttribute {
  readonly name: string;
  readonly type: number;
  readonly value: number | string | boolean | ArrayLike<number>;
}

/** The part of tfjs-node's backend that Lockstep calls itself. */
export interface NativeBackend {
  binding: NativeBinding;
  readonly tensorMap: {
    get(dataId: TensorFlow.DataId): { id: number; values: unknown; refCount: number; dtype: number } | undefined;
  };
  /** Native ids; what JavaScript wrote and nobody used yet is sent to TensorFlow first. */
  getInputTensorIds(tensors: readonly TensorFlow.Tensor[]): number[];
  executeSingleOutput(
    name: string,
    attributes: readonly OpAttribute[],
    inputs: readonly TensorFlow.Tensor[],
  ): TensorFlow.Tensor;
  executeMultipleOutputs(
    name: string,
    attributes: readonly OpAttribute[],
    inputs: readonly TensorFlow.Tensor[],
    outputs: number,
  ): TensorFlow.Tensor[];
}

export interface TensorflowLibrary {
  readonly tf: Tf;
  readonly backend: NativeBackend;
  readonly bindingPath: string;
  /** e.g. `2.21.0`, as the library itself says. */
  readonly version: string;
  /** Whether TensorFlow found a GPU that it can use: it computes there then. */
  readonly onGpu: boolean;
}

const require = createRequire(import.meta.url);
let loaded: TensorflowLibrary | undefined;

/**
 * Loads the addon at `bindingPath` and makes it TensorFlow.js's backend. Throws E_ENGINE_UNAVAILABLE when the addon is
 * missing or doesn't load, when the library is not `expectedVersion` (null: any), or when this process already runs another one.
 */
export async function loadTensorflow(bindingPath: string, expectedVersion: string | null): Promise<TensorflowLibrary> {
  if (loaded === undefined) loaded = await load(bindingPath);
  if (loaded.bindingPath !== bindingPath) {
    throw unavailable(`this process already runs the library at ${loaded.bindingPath}, not ${bindingPath}`);
  }
  if (expectedVersion !== null && loaded.version !== expectedVersion) {
    throw unavailable(`the addon ${bindingPath} runs TensorFlow ${loaded.version}, not ${expectedVersion}`);
  }
  return loaded;
}

function unavailable(message: string, cause?: unknown): LockstepError {
  return new LockstepError('E_ENGINE_UNAVAILABLE', message, {
    remedy: 'Run `npm run setup` to install it again.',
    cause,
  });
}

async function load(bindingPath: string): Promise<TensorflowLibrary> {
  if (!existsSync(bindingPath)) throw unavailable(`the TensorFlow addon ${bindingPath} is missing`);
  let binding: NativeBinding;
  try {
    binding = require(bindingPath) as NativeBinding;
  } catch (cause) {
    throw unavailable(`the TensorFlow addon ${bindingPath} does not load: ${String(cause)}`, cause);
  }
  const library = await registerBackend(binding, bindingPath);
  useNativeGradients(library.tf, library.backend);
  if (library.onGpu) useDeterministicGradients(library.tf);
  return library;
}

/** Makes the loaded addon TensorFlow.js's backend, and changes nothing else. */
export async function registerBackend(binding: NativeBinding, bindingPath: string): Promise<TensorflowLibrary> {
  restoreRemovedNodeFunctions();
  const tf = require('@tensorflow/tfjs') as Tf;
  require('@tensorflow/tfjs-node/dist/register_all_kernels');
  const { NodeJSKernelBackend } = require('@tensorflow/tfjs-node/dist/nodejs_kernel_backend') as {
    NodeJSKernelBackend: new (binding: NativeBinding, packageName: string) => TensorFlow.KernelBackend & NativeBackend;
  };
  const backend = new NodeJSKernelBackend(binding, '@tensorflow/tfjs-node');
  tf.registerBackend('tensorflow', () => backend);
  if (!(await tf.setBackend('tensorflow'))) throw unavailable('TensorFlow.js did not accept the native backend');
  return { tf, backend, bindingPath, version: binding.TF_Version, onGpu: binding.isUsingGpuDevice() };
}

/** tfjs-node calls two helpers of `node:util` that Node 23 took away. */
function restoreRemovedNodeFunctions(): void {
  const util = require('node:util') as Record<string, unknown>;
  util['isNullOrUndefined'] ??= (value: unknown) => value === null || value === undefined;
  util['isArray'] ??= Array.isArray;
}
