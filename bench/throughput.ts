// The whole job, all-reduce and data included, on the same machine beside Keras's `fit` of the same program, and beside
// PyTorch's DistributedDataParallel in as many one-thread processes, on random data in memory, which favours it. Images a second of
// steady training, without evaluation. Interleaved; medians.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { dataSetDirectory } from '../deploy/setup/dataset.ts';
import { cifar10 } from '../jobs/datasets/cifar10.ts';
import { interleaved, median } from './measure.ts';
import { NOT_INSTALLED, PEERS, peersPython } from './peers.ts';
import type { BenchOptions } from './run.ts';
import { comparison, type Row } from './table.ts';

const ENTRY = fileURLToPath(new URL('../deploy/lockstep.mjs', import.meta.url));
const SAMPLES = 12_800;

/** Images a second of the whole job. @param prefix what goes before the command: `taskset` and a core; @param more other flags */
export async function ours(
  workers: number,
  augment: 'on' | 'off',
  microbatches: number | undefined,
  prefix: readonly string[] = [],
  more: readonly string[] = [],
): Promise<number> {
  const flags = ['--workers', String(workers), '--augment', augment, '--epochs', '3'];
  if (microbatches !== undefined) flags.push('--microbatches', String(microbatches));
  return trained([...flags, '--train-samples', String(SAMPLES), ...more], prefix, (run) =>
    bestEpoch(readFileSync(join(run, 'report.json'), 'utf8')),
  );
}

/** Trains the main job without an evaluation; returns what `read` makes of the run's directory, which is removed then. */
export async function trained<T>(
  flags: readonly string[],
  prefix: readonly string[],
  read: (run: string) => T,
): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-bench-'));
  try {
    const place = ['--test-samples', '0', '--listen', '127.0.0.1:0', '--run-dir', join(directory, 'run')];
    const command = [...prefix, process.execPath, ENTRY, 'train', 'cifar10-cnn', ...flags, ...place];
    const child = spawn(command[0] ?? '', command.slice(1), { stdio: ['ignore', 'ignore', 'pipe'] });
    let errors = '';
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
    const [status] = (await once(child, 'close')) as [number | null];
    if (status !== 0) throw new Error(`training failed: ${errors}`);
    return read(join(directory, 'run'));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function keras(python: string, augment: 'on' | 'off'): number {
  const flags = [
    '--data',
    dataSetDirectory(cifar10),
    '--augment',
    augment,
    '--epochs',
    '3',
    '--train-samples',
    String(SAMPLES),
  ];
  const { status, stdout, stderr } = spawnSync(
    python,
    [join(PEERS, 'keras_seed.py'), ...flags, '--test-samples', '250'],
    { encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(`keras_seed.py failed: ${stderr}`);
  return bestEpoch(stdout.trim().split('\n').at(-1) ?? '');
}

const isPowerOfTwo = (n: number): boolean => (n & (n - 1)) === 0;

/** Of a report with its epochs: the first one traces graphs and warms up, the best of the others is a system's own pace. */
function bestEpoch(report: string): number {
  const { byEpoch } = JSON.parse(report) as { byEpoch: { imagesPerSecond: number }[] };
  return Math.max(...byEpoch.slice(1).map((e) => e.imagesPerSecond));
}

const LAYOUTS = ['nchw', 'channels_last'] as const;

export function torchDdp(python: string, processes: number, layout: string): number {
  const flags = ['--processes', String(processes), '--layout', layout];
  const { stdout, stderr } = spawnSync(python, [join(PEERS, 'torch_ddp.py'), ...flags], { encoding: 'utf8' });
  // Gloo's threads sometimes abort when the process group is taken down, after the result is out.
  if (!stdout.trim().endsWith('}')) throw new Error(`torch_ddp.py failed: ${stderr}`);
  return (JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as { imagesPerSecond: number }).imagesPerSecond;
}

export async function throughput(options: BenchOptions): Promise<Row[]> {
  const { repeats = 3, microbatches } = options;
  const withKeras = peersPython('keras', 'tensorflow');
  const withTorch = peersPython('torch');
  const cores = availableParallelism();
  const rows: Row[] = [];
  for (const augment of ['off', 'on'] as const) {
    const runs: Record<string, () => number | Promise<number>> = {
      all: () => ours(cores, augment, microbatches),
      one: () => ours(1, augment, microbatches),
    };
    // As few microbatches as there are workers: a job's own choice, and each is as large as can be.
    if (microbatches === undefined && isPowerOfTwo(cores)) runs['few'] = () => ours(cores, augment, cores);
    if (withKeras !== null) runs['keras'] = () => keras(withKeras, augment);
    // It has no augmentation of its own.
    if (withTorch !== null && augment === 'off') {
      for (const layout of LAYOUTS) runs[layout] = () => torchDdp(withTorch, cores, layout);
    }
    const rates = new Map<string, number[]>();
    for (const name of interleaved(Object.keys(runs), repeats)) {
      const rate = (await runs[name]?.()) ?? Number.NaN;
      process.stderr.write(`augmentation ${augment}, ${name}: ${rate.toFixed(0)} images/s\n`);
      rates.set(name, [...(rates.get(name) ?? []), rate]);
    }
    const rateOf = (name: string): number | null => {
      const found = rates.get(name);
      return found === undefined ? null : median(found);
    };
    for (const [title, name] of [
      [`${cores} workers`, 'all'],
      [`${cores} workers, ${cores} microbatches`, 'few'],
      ['1 worker', 'one'],
    ] as const) {
      if (runs[name] === undefined) continue;
      const about = { case: `cifar10-cnn, ${title}, augmentation ${augment}`, unit: 'images/s', repeats };
      const rate = rateOf(name) ?? Number.NaN;
      const kerasRate = rateOf('keras');
      rows.push(comparison(about, rate, kerasRate, 'Keras fit, all cores', NOT_INSTALLED));
      if (name === 'one' || augment === 'on') continue;
      for (const layout of LAYOUTS) {
        const peerName = `PyTorch DDP over Gloo, ${cores} processes, ${layout}`;
        rows.push(comparison(about, rate, rateOf(layout), peerName, NOT_INSTALLED));
      }
    }
  }
  return rows;
}
