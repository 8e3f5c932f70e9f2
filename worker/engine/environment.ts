// The environment that a TensorFlow process needs before the library is loaded. TensorFlow reads these variables once, when it
// starts its thread pools, and its sums depend on them: with other settings the same gradient has other bits. So the launcher
// puts them into the worker's environment, and the engine refuses to open when they are not there, rather than compute
// something that no other worker agrees with.
//
// One intra-op thread per process is what makes results repeatable and is also the fastest way to fill a machine with
// workers; other thread counts work but give other bits.

import { LockstepError } from '../../protocol/errors.ts';

const THREAD_VARIABLES = ['TF_NUM_INTRAOP_THREADS', 'OMP_NUM_THREADS'] as const;
/** TensorFlow's word for: run the operations on the thread that asks for them, in its order. */
const ON_THE_CALLERS_THREAD = '-1';

/** Environment variables for a process that will open the `tensorflow` engine with `threads` threads. */
export function engineEnvironment(threads = 1): Record<string, string> {
  const environment: Record<string, string> = {
    // oneDNN's kernels are the fast ones; said outright because the library's default differs between machines.
    TF_ENABLE_ONEDNN_OPTS: '1',
    // Keeps the backward convolutions' kernels from step to step instead of making them anew in each: 8 % of a microbatch of 16
    // images, for some 10 MB.
    TF_MKL_OPTIMIZE_PRIMITIVE_MEMUSE: '0',
    // Errors only: the informational lines of every worker would bury the run's own.
    TF_CPP_MIN_LOG_LEVEL: '2',
    // A step is one call after another, so handing each to another thread and back gains nothing and costs a worker that has one
    // core to itself 6 % of its step, and two that fill a machine 14 to 30 %. The bits are the same.
    TF_NUM_INTEROP_THREADS: ON_THE_CALLERS_THREAD,
  };
  for (const name of THREAD_VARIABLES) environment[name] = String(threads);
  return environment;
}

/**
 * What a process needs besides, before it loads TensorFlow for a GPU: that one GPU and no other, memory taken as it is needed
 * rather than all at once, and kernels that give the same bits every time.
 * @param gpu its UUID or index, as CUDA names it
 */
export function gpuEnvironment(gpu: string): Record<string, string> {
  return {
    CUDA_VISIBLE_DEVICES: gpu,
    // Operations wait for the device in a thread of their own.
    TF_NUM_INTEROP_THREADS: '1',
    TF_FORCE_GPU_ALLOW_GROWTH: 'true',
    TF_DETERMINISTIC_OPS: '1',
    // cuBLAS repeats its bits only with a workspace of fixed size (NVIDIA's manual, "Results reproducibility").
    CUBLAS_WORKSPACE_CONFIG: ':4096:8',
  };
}

export interface EngineEnvironment {
  readonly threads: number;
  readonly oneDnn: boolean;
}

/** The thread count and the oneDNN setting that `environment` asks for; throws E_ENGINE_UNAVAILABLE when it asks for none. */
export function readEngineEnvironment(environment: Readonly<Record<string, string | undefined>>): EngineEnvironment {
  const asked = THREAD_VARIABLES.map((name) => environment[name] ?? 'unset');
  const threads = Number(asked[0]);
  if (!Number.isInteger(threads) || threads < 1 || asked.some((value) => value !== asked[0])) {
    const found = THREAD_VARIABLES.map((name, i) => `${name}=${asked[i]}`).join(', ');
    throw new LockstepError(
      'E_ENGINE_UNAVAILABLE',
      `the tensorflow engine needs one fixed thread count, but found ${found}`,
      {
        remedy: `Set ${THREAD_VARIABLES.join(', ')} to 1 before the process starts (engineEnvironment() lists them).`,
      },
    );
  }
  const oneDnn = environment['TF_ENABLE_ONEDNN_OPTS'];
  if (oneDnn !== '0' && oneDnn !== '1') {
    throw new LockstepError(
      'E_ENGINE_UNAVAILABLE',
      `the tensorflow engine needs TF_ENABLE_ONEDNN_OPTS to be 0 or 1, but found ${oneDnn ?? 'it unset'}`,
      { remedy: 'Set TF_ENABLE_ONEDNN_OPTS=1 before the process starts.' },
    );
  }
  return { threads, oneDnn: oneDnn === '1' };
}
