// What the tensorflow engine runs on, and everything that may change the bits that it computes.

import { readFileSync } from 'node:fs';
import { arch, cpus } from 'node:os';
import type { EngineInfo } from '../engine.ts';
import type { EngineEnvironment } from '../environment.ts';
import type { TensorflowLibrary } from './library.ts';

export type EngineMode = 'graph' | 'eager';
export type Precision = 'float32' | 'mixed_bfloat16';

export function describeEngine(
  library: TensorflowLibrary,
  environment: EngineEnvironment,
  mode: EngineMode,
  precision: Precision,
): EngineInfo {
  return {
    name: 'tensorflow',
    library: `TensorFlow ${library.version}`,
    device: `CPU (${cpus()[0]?.model.trim() ?? arch()})`,
    threads: environment.threads,
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
