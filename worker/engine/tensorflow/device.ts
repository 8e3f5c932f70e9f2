// What the tensorflow engine runs on, and everything that may change the bits that it computes.

import { readFileSync } from 'node:fs';
import { arch, cpus } from 'node:os';
import type { EngineInfo } from '../engine.ts';
import type { EngineEnvironment } from '../environment.ts';
import type { TensorflowLibrary } from './library.ts';

export type EngineMode = 'graph' | 'eager';
export type Precision = 'float32' | 'mixed_bfloat16';

/** The one GPU that this process sees. */
export interface GpuDevice {
  /** e.g. `NVIDIA H100 80GB HBM3`. */
  readonly name: string;
  /** e.g. `9.0`. */
  readonly computeCapability: string;
}

export function describeEngine(
  library: TensorflowLibrary,
  environment: EngineEnvironment,
  mode: EngineMode,
  precision: Precision,
  gpu: GpuDevice | null,
): EngineInfo {
  const common = { library: `TensorFlow ${library.version}`, threads: environment.threads };
  if (gpu !== null) {
    return {
      ...common,
      name: 'tensorflow-gpu',
      device: `GPU (${gpu.name}, compute capability ${gpu.computeCapability})`,
      settings: {
        mode,
        precision,
        deterministicOps: process.env['TF_DETERMINISTIC_OPS'] === '1' ? 'on' : 'off',
        // TensorFlow's own default, which this variable of NVIDIA's overrules: 10 bits of mantissa in products of float32.
        tensorFloat32: process.env['NVIDIA_TF32_OVERRIDE'] === '0' ? 'off' : 'on',
      },
    };
  }
  return {
    ...common,
    name: 'tensorflow',
    device: `CPU (${cpus()[0]?.model.trim() ?? arch()})`,
    settings: {
      mode,
      precision,
      oneDNN: environment.oneDnn ? 'on' : 'off',
      instructionSet: instructionSet(),
    },
  };
}

/** The widest vector instructions that oneDNN may choose kernels by, widest first. */
const INSTRUCTION_SETS = [
  'amx_tile',
  'avx512_bf16',
  'avx512_vnni',
  'avx512f',
  'avx_vnni',
  'avx2',
  'avx',
  'sse4_1',
  'sve',
  'asimd',
];

function instructionSet(): string {
  const limit = process.env['ONEDNN_MAX_CPU_ISA'];
  const limited = limit === undefined ? '' : ` (limited to ${limit})`;
  try {
    const flags = new Set(
      readFileSync('/proc/cpuinfo', 'utf8')
        .match(/^(?:flags|Features)\s*:(.*)$/m)?.[1]
        ?.split(' '),
    );
    return `${INSTRUCTION_SETS.find((name) => flags.has(name)) ?? arch()}${limited}`;
  } catch {
    return `${arch()}${limited}`; // not Linux: the processor's family is all we know
  }
}
