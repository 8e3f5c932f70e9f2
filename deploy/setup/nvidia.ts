// The NVIDIA GPUs of this machine, as its driver's own tool lists them, and which of them a process may use. What nvidia-smi
// prints is parsed by pure functions, tested on recorded output; a machine that has none costs a failed lookup.
//
// With MIG on, a GPU is cut into instances, and CUDA sees at most one instance a process: each is a device here.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { LockstepError } from '../../protocol/errors.ts';

export interface Gpu {
  /** As the driver counts, from 0; null for a MIG instance, which only its UUID names. */
  readonly index: number | null;
  /** `GPU-...` or `MIG-...`. */
  readonly uuid: string;
  /** e.g. `NVIDIA H100 80GB HBM3`, or `NVIDIA A100-SXM4-40GB, MIG 3g.20gb`. */
  readonly name: string;
  /** e.g. `9.0`. */
  readonly computeCapability: string;
  readonly memoryMiB: number;
}

export type GpuList =
  | { readonly found: true; readonly driver: string; readonly gpus: readonly Gpu[] }
  | { readonly found: false; readonly because: string; readonly remedy: string };

const FIELDS = ['index', 'uuid', 'name', 'compute_cap', 'memory.total', 'driver_version', 'mig.mode.current'] as const;
/** The first driver that runs CUDA 12: TensorFlow's GPU library needs it. */
const OLDEST_DRIVER = 525;
const TIMEOUT_MS = 20_000;
const DRIVER_REMEDY = `Install NVIDIA's driver, ${OLDEST_DRIVER} or later.`;

/**
 * Parses `nvidia-smi --query-gpu=... --format=csv,noheader,nounits` and `nvidia-smi -L`.
 * Throws E_ENGINE_UNAVAILABLE when a line cannot be understood: better than to train on fewer GPUs than there are.
 */
export function parseGpus(csv: string, list: string): { readonly driver: string; readonly gpus: readonly Gpu[] } {
  const instances = parseMigInstances(list);
  let driver = '';
  const gpus: Gpu[] = [];
  for (const line of csv.split('\n').filter((text) => text.trim() !== '')) {
    const fields = line.split(',').map((field) => field.trim());
    const [index = '', uuid = '', name = '', computeCapability = '', memory = '', version = '', mig = ''] = fields;
    if (fields.length !== FIELDS.length || !/^\d+$/.test(index) || !uuid.startsWith('GPU-')) {
      throw new LockstepError('E_ENGINE_UNAVAILABLE', `nvidia-smi lists a GPU as "${line.trim()}"`, {
        remedy: 'Look at what `nvidia-smi` says, or use another --engine.',
      });
    }
    driver = version;
    const whole = { index: Number(index), uuid, name, computeCapability, memoryMiB: Number(memory) || 0 };
    if (mig !== 'Enabled') gpus.push(whole);
    for (const { profile, uuid: instance } of instances.get(uuid) ?? []) {
      const memoryMiB = 1024 * Number(/\.(\d+)gb/.exec(profile)?.[1] ?? 0);
      gpus.push({ ...whole, index: null, uuid: instance, name: `${name}, MIG ${profile}`, memoryMiB });
    }
  }
  return { driver, gpus };
}

/** MIG instances by the UUID of their GPU, from `nvidia-smi -L`. */
function parseMigInstances(list: string): Map<string, { profile: string; uuid: string }[]> {
  const byGpu = new Map<string, { profile: string; uuid: string }[]>();
  let current: { profile: string; uuid: string }[] = [];
  for (const line of list.split('\n')) {
    const gpu = /^GPU \d+:.*\(UUID: (GPU-[^)]+)\)/.exec(line)?.[1];
    const [, profile, uuid] = /^\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)/.exec(line) ?? [];
    if (gpu !== undefined) byGpu.set(gpu, (current = []));
    if (profile !== undefined && uuid !== undefined) current.push({ profile, uuid });
  }
  return byGpu;
}

/**
 * The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order; all when it is unset. It names them by index or by (the beginning
 * of) their UUID. Throws E_ENGINE_UNAVAILABLE for one that is not there, which CUDA itself would pass over in silence.
 */
export function visibleGpus(gpus: readonly Gpu[], visible: string | undefined): readonly Gpu[] {
  if (visible === undefined) return gpus;
  const names = visible.split(',').map((name) => name.trim());
  if (names.length === 1 && ['', '-1', 'NoDevFiles', 'none'].includes(names[0] ?? '')) return [];
  return names.map((name) => {
    const gpu = gpus.find(({ index, uuid }) =>
      /^\d+$/.test(name) ? index === Number(name) : name.length > 4 && uuid.startsWith(name),
    );
    if (gpu === undefined) {
      const there = gpus.map(({ index, uuid }) => (index === null ? uuid : `${index} (${uuid})`)).join(', ');
      throw new LockstepError('E_ENGINE_UNAVAILABLE', `CUDA_VISIBLE_DEVICES names "${name}", which is not here`, {
        remedy: `There are: ${there}. Correct CUDA_VISIBLE_DEVICES, or unset it.`,
      });
    }
    return gpu;
  });
}

/** The GPU of the worker with this local rank: each its own, in turn where there are more workers than GPUs. */
export function gpuOf(gpus: readonly Gpu[], localRank: number): Gpu | null {
  return gpus[localRank % Math.max(1, gpus.length)] ?? null;
}

const run = promisify(execFile);

/** Asks the driver; only what CUDA_VISIBLE_DEVICES in `environment` leaves. Throws as `visibleGpus` does. */
export async function findGpus(
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Promise<GpuList> {
  const ask = async (args: readonly string[]): Promise<string> =>
    (await run('nvidia-smi', [...args], { timeout: TIMEOUT_MS, env: { ...environment } })).stdout;
  let csv: string;
  let list: string;
  try {
    csv = await ask([`--query-gpu=${FIELDS.join(',')}`, '--format=csv,noheader,nounits']);
    list = await ask(['-L']);
  } catch (error) {
    const { code, stdout, stderr } = error as { code?: unknown; stdout?: string; stderr?: string };
    if (code === 'ENOENT') {
      return { found: false, because: 'no NVIDIA driver (nvidia-smi is not on the PATH)', remedy: DRIVER_REMEDY };
    }
    const words = `${stdout ?? ''} ${stderr ?? ''}`.trim().split('\n')[0] ?? '';
    return { found: false, because: `nvidia-smi fails: ${words || String(error)}`, remedy: 'Repair the driver.' };
  }
  const { driver, gpus } = parseGpus(csv, list);
  if (gpus.length === 0) return { found: false, because: 'nvidia-smi lists no GPU', remedy: 'Look at `nvidia-smi`.' };
  if (Number.parseInt(driver, 10) < OLDEST_DRIVER) {
    return { found: false, because: `the NVIDIA driver ${driver} is too old for CUDA 12`, remedy: DRIVER_REMEDY };
  }
  const usable = visibleGpus(gpus, environment['CUDA_VISIBLE_DEVICES']);
  return usable.length > 0
    ? { found: true, driver, gpus: usable }
    : { found: false, because: 'CUDA_VISIBLE_DEVICES hides every GPU', remedy: 'Unset CUDA_VISIBLE_DEVICES.' };
}
