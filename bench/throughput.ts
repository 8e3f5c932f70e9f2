// The whole job, all-reduce and data included, beside Keras's `fit` of the same program on the same machine: images a second
// of steady training, without evaluation. Interleaved: ours, Keras, ours, Keras, ...; medians.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { dataSetDirectory } from '../deploy/setup/dataset.ts';
import { cifar10 } from '../jobs/datasets/cifar10.ts';
import { PEERS, peersPython } from './peers.ts';
import type { Row } from './run.ts';

const ENTRY = fileURLToPath(new URL('../deploy/lockstep.mjs', import.meta.url));
const SAMPLES = 12_800;

function ours(workers: number, augment: 'on' | 'off'): number {
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-bench-'));
  try {
    const flags = [
      '--workers',
      String(workers),
      '--augment',
      augment,
      '--epochs',
      '2',
      '--train-samples',
      String(SAMPLES),
    ];
    const place = ['--test-samples', '0', '--listen', '127.0.0.1:0', '--run-dir', join(directory, 'run')];
    const { status, stderr } = spawnSync(process.execPath, [ENTRY, 'train', 'cifar10-cnn', ...flags, ...place], {
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`training failed: ${stderr}`);
    const report = JSON.parse(readFileSync(join(directory, 'run', 'report.json'), 'utf8')) as {
      imagesPerSecond: number;
    };
    return report.imagesPerSecond;
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
  const result = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as { byEpoch: { imagesPerSecond: number }[] };
  // The first epoch traces the graph: the best of the others is Keras's own pace.
  return Math.max(...result.byEpoch.slice(1).map((e) => e.imagesPerSecond));
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

export async function throughput(repeats: number): Promise<Row[]> {
  const python = peersPython();
  const cores = availableParallelism();
  const rows: Row[] = [];
  for (const augment of ['off', 'on'] as const) {
    const one: number[] = [];
    const all: number[] = [];
    const peer: number[] = [];
    for (let i = 0; i < repeats; i++) {
      all.push(ours(cores, augment));
      if (python !== null) peer.push(keras(python, augment));
      one.push(ours(1, augment));
    }
    const kerasRate = python === null ? null : median(peer);
    for (const [name, rates] of [
      [`${cores} workers`, all],
      ['1 worker', one],
    ] as const) {
      const rate = median(rates);
      rows.push({
        case: `cifar10-cnn, ${name}, augmentation ${augment}`,
        ours: rate,
        peer: kerasRate,
        peerName: 'Keras fit, all cores',
        ratio: kerasRate === null ? null : rate / kerasRate,
        unit: 'images/s',
        repeats,
      });
    }
  }
  return rows;
}
