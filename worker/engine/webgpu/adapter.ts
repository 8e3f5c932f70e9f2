// Which GPU: the one that was asked for by (a part of) its name, or the one that Dawn calls the fastest. A rasteriser that
// computes on the processor is taken only where that is allowed in so many words: it is a hundred times slower than a GPU.
//
// Dawn tells its adapters in one way only: in the words of the error for an adapter that it does not have.

import { LockstepError } from '../../../protocol/errors.ts';
import type { Dawn, Gpu, GpuAdapter, GpuAdapterInfo } from './dawn.ts';

export interface AdapterName {
  /** As the driver gives it, e.g. `NVIDIA L4`. */
  readonly name: string;
  /** `vulkan`, `metal` or `d3d12`. */
  readonly backend: string;
}

export interface ChosenAdapter extends AdapterName {
  /** To be kept as long as the adapter or its device is used: Dawn ends with it. */
  readonly gpu: Gpu;
  readonly adapter: GpuAdapter;
  readonly isSoftware: boolean;
}

const NO_SUCH_ADAPTER = 'no adapter has this name';
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|microsoft basic render|\bwarp\b/i;

/** The adapters that Dawn sees; none on a machine without a driver. */
export async function listAdapters(dawn: Dawn): Promise<AdapterName[]> {
  try {
    await dawn.create([`adapter=${NO_SUCH_ADAPTER}`]).requestAdapter({ powerPreference: 'high-performance' });
    return [];
  } catch (error) {
    return parseAdapters(error instanceof Error ? error.message : String(error));
  }
}

/** Reads lines of the form ` * backend: 'vulkan', name: 'NVIDIA L4'`, each adapter once. */
export function parseAdapters(text: string): AdapterName[] {
  const found = new Map<string, AdapterName>();
  for (const [line, backend = '', name = ''] of text.matchAll(/^ *\* backend: '(.*?)', name: '(.*)'$/gm)) {
    found.set(line, { name, backend });
  }
  return [...found.values()];
}

/** True for a rasteriser on the processor. */
export function isSoftware(info: GpuAdapterInfo): boolean {
  const { vendor, architecture, device, description } = info;
  return info.isFallbackAdapter || SOFTWARE.test([vendor, architecture, device, description].join(' '));
}

/**
 * @param wish the adapter's name, or a part of it that no other one has; null: any
 * Throws E_ENGINE_UNAVAILABLE when there is none, not that one, or only a rasteriser where that is not allowed.
 */
export async function chooseAdapter(dawn: Dawn, wish: string | null, allowSoftware: boolean): Promise<ChosenAdapter> {
  const names = await listAdapters(dawn);
  if (names.length === 0) {
    throw unavailable(
      'there is no GPU that WebGPU can use',
      "Install the GPU's driver (on Linux its Vulkan part too, and the Vulkan loader: `apt-get install libvulkan1`), or use another engine.",
    );
  }
  const list = names.map(({ name }) => `'${name}'`).join(', ');
  if (wish !== null) {
    const named = findByName(names, wish);
    if (named === null) {
      throw unavailable(`no single adapter is called '${wish}'; there is ${list}`, 'Give one of these names.');
    }
    const chosen = await openAdapter(dawn, names, named);
    if (chosen === null) throw unavailable(`the adapter '${named.name}' could not be opened`, 'Try another one.');
    return allowed(chosen, allowSoftware);
  }
  const first = await openAdapter(dawn, names, null);
  if (first !== null && !first.isSoftware) return first;
  // The fastest is a rasteriser, or has gone: a GPU that Dawn ranks below it will do.
  for (const named of names) {
    const other = await openAdapter(dawn, names, named);
    if (other !== null && !other.isSoftware) return other;
  }
  if (first === null) throw unavailable(`no adapter could be opened; there is ${list}`, 'Use another engine.');
  return allowed(first, allowSoftware);
}

/** The adapter of that very name, else the only one whose name contains it, in whatever case. */
function findByName(names: readonly AdapterName[], wish: string): AdapterName | null {
  const exact = names.find(({ name }) => name === wish);
  const [part, ...more] = names.filter(({ name }) => name.toLowerCase().includes(wish.toLowerCase()));
  return exact ?? (more.length === 0 ? (part ?? null) : null);
}

async function openAdapter(
  dawn: Dawn,
  names: readonly AdapterName[],
  named: AdapterName | null,
): Promise<ChosenAdapter | null> {
  const flags = named === null ? [] : [`backend=${named.backend}`, `adapter=${named.name}`];
  const gpu = dawn.create(flags);
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (adapter === null) return null;
  const { info } = adapter;
  // WebGPU shows a simplified name: small letters, and hyphens for the rest.
  const simplified = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  const own = named ?? names.find(({ name }) => simplified(name) === info.device) ?? names[0];
  return {
    gpu,
    adapter,
    name: own?.name ?? info.device,
    backend: own?.backend ?? 'unknown',
    isSoftware: isSoftware(info),
  };
}

function allowed(chosen: ChosenAdapter, allowSoftware: boolean): ChosenAdapter {
  if (!chosen.isSoftware || allowSoftware) return chosen;
  throw unavailable(
    `the adapter '${chosen.name}' is no GPU but a rasteriser that computes on the processor`,
    "Install the GPU's own driver, use another engine, or name it with --adapter.",
  );
}

function unavailable(message: string, remedy: string): LockstepError {
  return new LockstepError('E_ENGINE_UNAVAILABLE', message, { remedy });
}
