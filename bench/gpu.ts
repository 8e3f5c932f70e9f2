// One training step of the tutorial's CNN on an NVIDIA GPU, gradient and Adam, side by side: Lockstep in float32 (with and without
// TensorFloat-32) and mixed_bfloat16, TensorFlow.js as it comes, PyTorch. Each keeps its images in the host's memory, so that they
// travel step by step. The first GPU that is visible; one process at a time works on it.
//
// Cost: some two minutes with three repeats. Every system's process stays until the end, with its share of the GPU's memory.

import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { findGpus } from '../deploy/setup/nvidia.ts';
import { LockstepError } from '../protocol/errors.ts';
import { engineEnvironment, gpuEnvironment } from '../worker/engine/environment.ts';
import { interleaved, median, startMeasuring, type Measuring, type WindowRequest } from './measure.ts';
import { NOT_INSTALLED, PEERS, peersPython } from './peers.ts';
import type { BenchOptions } from './run.ts';
import { comparison, type Row } from './table.ts';

const WINDOW_SECONDS = 0.5;
const WARM_UP_SECONDS = 0.1;
const BATCHES = [64, 256, 1024, 4096] as const;
/** What one microbatch of the default four is at a batch of 64, and the whole cut into them. */
const CUT = { batch: 64, microbatch: 16 } as const;

interface System {
  readonly name: string;
  readonly runs: { readonly engine: string } | { readonly torch: readonly string[] };
  readonly environment?: Readonly<Record<string, string>>;
  /** The gradient alone as well. */
  readonly gradient?: boolean;
  /** Whole batches only. */
  readonly wholeOnly?: boolean;
}

const SYSTEMS = {
  gpu: { name: 'Lockstep', runs: { engine: 'gpu' }, gradient: true },
  exact: { name: 'Lockstep, TensorFloat-32 off', runs: { engine: 'gpu' }, environment: { NVIDIA_TF32_OVERRIDE: '0' } },
  mixed: { name: 'Lockstep, mixed_bfloat16', runs: { engine: 'gpu-mixed' }, gradient: true },
  stock: {
    name: 'TensorFlow.js eager (tfjs-node)',
    runs: { engine: 'stock-gpu' },
    // As it comes.
    environment: { TF_DETERMINISTIC_OPS: '0' },
  },
  torch: { name: 'PyTorch', runs: { torch: [] } },
  torchLast: { name: 'PyTorch, channels_last', runs: { torch: ['--layout', 'channels_last'] } },
  torchGraph: {
    name: 'PyTorch, channels_last, CUDA graph',
    runs: { torch: ['--layout', 'channels_last', '--graph'] },
    wholeOnly: true,
  },
  torchAutocast: {
    name: 'PyTorch, channels_last, autocast to bfloat16',
    runs: { torch: ['--layout', 'channels_last', '--autocast'] },
  },
} as const satisfies Record<string, System>;

type Key = keyof typeof SYSTEMS;
const KEYS = Object.keys(SYSTEMS) as Key[];

type Task = Omit<WindowRequest, 'seconds'> & { readonly system: Key };

function tasksOf(system: Key): Task[] {
  const { gradient = false, wholeOnly = false }: System = SYSTEMS[system];
  const whole = BATCHES.map((batch) => ({ batch, microbatch: batch }));
  return [
    ...[...whole, ...(wholeOnly ? [] : [CUT])].map((shape) => ({ system, work: 'step' as const, ...shape })),
    ...(gradient ? whole.map((shape) => ({ system, work: 'gradient' as const, ...shape })) : []),
  ];
}

const nameOf = ({ system, work, batch, microbatch }: Task): string => `${system} ${work} ${batch}/${microbatch}`;

function rowsOf(rateOf: (task: Task) => number | null, repeats: number): Row[] {
  const rows: Row[] = [];
  for (const { batch, microbatch } of [...BATCHES.map((size) => ({ batch: size, microbatch: size })), CUT]) {
    const rate = (system: Key, work: Task['work'] = 'step'): number | null =>
      rateOf({ system, work, batch, microbatch });
    const title = (system: Key): string =>
      `${SYSTEMS[system].name}, batch ${batch}${batch === microbatch ? '' : ` in microbatches of ${microbatch}`}`;
    const add = (case_: string, ours: number | null, peer: number | null, peerName: string): void => {
      if (ours === null) return;
      rows.push(comparison({ case: case_, unit: 'images/s', repeats }, ours, peer, peerName, NOT_INSTALLED));
    };
    for (const peer of ['stock', 'torch', 'torchLast', 'torchGraph', 'exact'] as const) {
      if (batch !== microbatch && peer === 'torchGraph') continue;
      add(title('gpu'), rate('gpu'), rate(peer), SYSTEMS[peer].name);
    }
    add(title('mixed'), rate('mixed'), rate('gpu'), SYSTEMS.gpu.name);
    add(title('mixed'), rate('mixed'), rate('torchAutocast'), SYSTEMS.torchAutocast.name);
    if (batch !== microbatch) continue;
    for (const ours of ['gpu', 'mixed'] as const) {
      add(`${title(ours)}, gradient without Adam`, rate(ours, 'gradient'), rate(ours), 'the same, whole step');
    }
  }
  return rows;
}

const ENGINE_PROCESS = fileURLToPath(new URL('engine-process.ts', import.meta.url));

const tell = (line: string): void => {
  process.stderr.write(`${line}\n`);
};

function commandOf({ runs }: System): readonly string[] | null {
  if ('engine' in runs) return [process.execPath, '--import', import.meta.resolve('tsx'), ENGINE_PROCESS, runs.engine];
  const python = peersPython('torch');
  return python === null ? null : [python, join(PEERS, 'torch_speed.py'), '--device', 'cuda', ...runs.torch];
}

async function start(system: System, gpuName: string): Promise<Measuring | null> {
  const command = commandOf(system);
  if (command === null) {
    tell(`${system.name}: ${NOT_INSTALLED}`);
    return null;
  }
  const environment = { ...engineEnvironment(1), ...gpuEnvironment(gpuName), ...system.environment };
  const measuring = await startMeasuring(command, environment);
  if ('missing' in measuring) {
    tell(`${system.name}: ${measuring.missing}`);
    return null;
  }
  tell(`${system.name}: ${measuring.about}`);
  return measuring;
}

/** Throws E_ENGINE_UNAVAILABLE where there is no GPU. */
export async function gpu(options: BenchOptions): Promise<Row[]> {
  const { repeats = 3 } = options;
  const list = await findGpus();
  const [first] = list.found ? list.gpus : [];
  if (!list.found || first === undefined) {
    throw new LockstepError('E_ENGINE_UNAVAILABLE', `no GPU to measure on: ${list.found ? 'none' : list.because}`);
  }
  tell(`${first.name}, compute capability ${first.computeCapability}, driver ${list.driver}`);
  const processes = new Map<Key, Measuring>();
  try {
    const started = KEYS.map(async (key) => {
      const measuring = await start(SYSTEMS[key], first.uuid);
      if (measuring !== null) processes.set(key, measuring);
    });
    await Promise.all(started);
    const tasks = [...processes.keys()].flatMap(tasksOf).toSorted((x, y) => x.batch - y.batch);
    const rates = new Map<string, number[]>();
    const measure = async (task: Task, seconds: number): Promise<number> =>
      (await processes.get(task.system)?.rate({ ...task, seconds })) ?? Number.NaN;
    for (const task of tasks) await measure(task, WARM_UP_SECONDS);
    for (const task of interleaved(tasks, repeats)) {
      const name = nameOf(task);
      rates.set(name, [...(rates.get(name) ?? []), await measure(task, WINDOW_SECONDS)]);
    }
    return rowsOf((task) => {
      const found = rates.get(nameOf(task));
      return found === undefined ? null : median(found);
    }, repeats);
  } finally {
    for (const measuring of processes.values()) measuring.stop();
  }
}
