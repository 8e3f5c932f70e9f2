// What is read for a verification: a small run directory as a coordinator writes it, whole and damaged on the disk.

import { appendFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { NO_PROGRESS } from '../../../coordinator/core/progress.ts';
import { placeText } from '../../../coordinator/core/finding.ts';
import { verifyRun } from '../../../coordinator/core/verify.ts';
import { writeCheckpoint } from '../../../coordinator/record/checkpoint.ts';
import { openJournal, type JournalInput } from '../../../coordinator/record/journal.ts';
import { exportModel } from '../../../coordinator/record/model-export.ts';
import { openMetricsLog } from '../../../coordinator/record/metrics-log.ts';
import { readRun } from '../../../coordinator/record/read-run.ts';
import { writeReport } from '../../../coordinator/record/report.ts';
import { openRunDirectory } from '../../../coordinator/record/run-directory.ts';
import type { RunReport } from '../../../protocol/report.ts';
import { runConfigSchema } from '../../../protocol/run-config.ts';
import { temporaryDirectory } from './temporary.ts';

const CONFIG = runConfigSchema.parse({
  run: 'r',
  job: { kind: 'built-in', name: 'j', sha256: '0'.repeat(64) },
  jobName: 'j',
  seed: 1,
  globalBatch: 4,
  microbatches: 4,
  epochs: 1,
  steps: 2,
  learningRate: 0.1,
  augment: false,
  trainSamples: 8,
  testSamples: 0,
  engine: 'e',
  precision: 'float32',
  transport: 'ws',
  checkpointEverySteps: 0,
});
/** SHA-256 of the floats 1 and -2, by Python's hashlib. */
const DIGEST = 'ee4ac73c2bd27756ab82780f27c73a7bc4d3f0bb6acb37e008bc27eccd7e588b';
const T = '2026-11-26T20:00:00.000Z';
const WEIGHTS = new Float32Array([1, -2]);
const LAYOUT = [{ name: 'dense/kernel', shape: [2, 1], offset: 0, length: 2, trainable: true }];

const RECORDS: readonly JournalInput[] = [
  { t: T, kind: 'run', lockstep: '0.1.0', config: CONFIG, resumedFromStep: null },
  { t: T, kind: 'generation', generation: 1, members: ['w0', 'w1'], because: 'b' },
  { t: T, kind: 'commits', generation: 1, from: 1, to: 2, digest: null },
  { t: T, kind: 'epoch', step: 2, epoch: 1, digest: DIGEST, loss: 1, testLoss: null, testAccuracy: null },
  { t: T, kind: 'checkpoint', step: 2, digest: DIGEST, directory: 'checkpoints/step-2' },
  { t: T, kind: 'finished', step: 2, digest: DIGEST },
];

async function runDirectory(): Promise<string> {
  const directory = temporaryDirectory();
  const journal = await openJournal(directory, () => {});
  for (const record of RECORDS) await journal.append(record);
  await journal.close();
  const log = await openMetricsLog(directory, { keepSteps: 0 });
  for (const step of [1, 2])
    log.append({ t: T, step, loss: 0.5, accuracy: 1, gradientNorm: 1, samples: 4, seconds: 1 });
  await log.close();
  await writeCheckpoint(directory, {
    config: CONFIG,
    state: { step: 2, digest: DIGEST, vectors: [{ name: 'weights', data: WEIGHTS }] },
    progress: NO_PROGRESS,
    layout: LAYOUT,
    topology: '{}',
  });
  await exportModel(directory, { topology: '{}', layout: LAYOUT, weights: WEIGHTS });
  const report = { schema: 1, state: 'done', steps: 2, digest: DIGEST, finalLoss: 0.5, reproducible: true };
  await writeReport(directory, report as RunReport);
  return directory;
}

const foundIn = async (directory: string): Promise<string[]> =>
  verifyRun(await readRun(directory)).findings.map((finding) => `${finding.code} ${placeText(finding)}`);
const edit = (path: string, change: (text: string) => string): void =>
  writeFileSync(path, change(readFileSync(path, 'utf8')));

describe('a run directory', () => {
  it('that is whole is read whole', async () => {
    const run = await readRun(await runDirectory());
    expect(run).toMatchObject({ modelDigest: DIGEST, isUnderWay: false, findings: [], notes: [] });
    expect(run.checkpoints).toEqual([{ step: 2, digest: DIGEST, file: 'checkpoints/step-2' }]);
    expect(run.metrics.map(({ line, step }) => [line, step])).toEqual([
      [1, 1],
      [2, 2],
    ]);
    expect(verifyRun(run).findings).toEqual([]);
  });

  it('that a coordinator holds is said to be under way', async () => {
    const path = await runDirectory();
    const held = openRunDirectory(path, true);
    expect((await readRun(path)).isUnderWay).toBe(true);
    await held.release();
  });

  it('that holds no run is refused', async () => {
    await expect(readRun(temporaryDirectory())).rejects.toMatchObject({ code: 'E_RUN_NOT_FOUND' });
  });

  it.each(['journal.jsonl', 'metrics.jsonl'])(
    '%s may end within a line, as a crash leaves it: a note',
    async (file) => {
      for (const tail of ['{"t":"2026', '{"t":"20\u0000\u0000\n']) {
        const directory = await runDirectory();
        appendFileSync(join(directory, file), tail);
        const { findings, notes } = await readRun(directory);
        expect([findings, notes]).toEqual([[], [expect.stringContaining(file)]]);
      }
    },
  );

  it('a journal of another schema is no run that can be read', async () => {
    const directory = await runDirectory();
    edit(join(directory, 'journal.jsonl'), (text) => text.replace('"kind":"run"', '"kind":"run","schema":2'));
    await expect(readRun(directory)).rejects.toMatchObject({ code: 'E_RECORD_VERSION' });
  });

  it.each<[string, (directory: string) => void, string[]]>([
    [
      'a line of the journal that is not JSON',
      (d) =>
        edit(join(d, 'journal.jsonl'), (text) =>
          text.replace('{"t":"2026-11-26T20:00:00.000Z","kind":"epoch"', '{"t":'),
        ),
      ['E_RECORD_DAMAGED journal.jsonl:4', 'E_RECORD_STEPS journal.jsonl:3'],
    ],
    [
      'a record of no known kind',
      (d) => edit(join(d, 'journal.jsonl'), (text) => text.replace('"kind":"generation"', '"kind":"gossip"')),
      [
        'E_RECORD_DAMAGED journal.jsonl:2',
        'E_RECORD_GENERATION journal.jsonl:3',
        'E_RECORD_SAMPLES journal.jsonl:3',
        'E_RECORD_SAMPLES journal.jsonl:3',
        'E_RECORD_SAMPLES journal.jsonl:3',
      ],
    ],
    [
      'a digit of a digest',
      (d) => edit(join(d, 'journal.jsonl'), (text) => text.replace(`"epoch":1,"digest":"e`, `"epoch":1,"digest":"f`)),
      [
        'E_RECORD_DIGEST journal.jsonl:5',
        'E_RECORD_DIGEST journal.jsonl:6',
        'E_RECORD_DIGEST checkpoints/step-2',
        'E_RECORD_DIGEST report.json',
        'E_RECORD_DIGEST model/model.json',
      ],
    ],
    [
      'a number of metrics.jsonl that is gone',
      (d) => edit(join(d, 'metrics.jsonl'), (text) => text.replace('"step":1', '"stop":1')),
      ['E_RECORD_DAMAGED metrics.jsonl:1', 'E_RECORD_STEPS metrics.jsonl:2'],
    ],
    ['metrics.jsonl', (d) => rmSync(join(d, 'metrics.jsonl')), ['E_RECORD_STEPS metrics.jsonl']],
    [
      'a bit of a checkpoint',
      (d) => writeFileSync(join(d, 'checkpoints/step-2/weights.bin'), new Float32Array([1, 2])),
      ['E_CHECKPOINT_CORRUPT checkpoints/step-2'],
    ],
    [
      'a bit of the exported model',
      (d) => writeFileSync(join(d, 'model/group1-shard1of1.bin'), new Float32Array([1, 2])),
      ['E_RECORD_DIGEST model/model.json'],
    ],
    ['a shard of it', (d) => rmSync(join(d, 'model/group1-shard1of1.bin')), ['E_RECORD_DAMAGED model/model.json']],
    [
      'a shard that leads elsewhere',
      (d) => edit(join(d, 'model/model.json'), (text) => text.replace('group1-shard', '../group1-shard')),
      ['E_RECORD_DAMAGED model/model.json'],
    ],
    ['the report', (d) => writeFileSync(join(d, 'report.json'), '{'), ['E_RECORD_DAMAGED report.json']],
    [
      'a version: the report is of another',
      (d) => edit(join(d, 'report.json'), (text) => text.replace('"schema": 1', '"schema": 2')),
      ['E_RECORD_VERSION report.json'],
    ],
    [
      'a version: a checkpoint is of another',
      (d) => edit(join(d, 'checkpoints/step-2/checkpoint.json'), (text) => text.replace('"schema":1', '"schema":2')),
      ['E_RECORD_VERSION checkpoints/step-2'],
    ],
  ])('damage to %s is found', async (_, damage, expected) => {
    const directory = await runDirectory();
    damage(directory);
    expect(await foundIn(directory)).toEqual(expected);
  });
});
