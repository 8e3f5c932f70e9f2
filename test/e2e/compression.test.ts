// Compressed gradients with real processes: the promise holds for them, too, and what a run is goes with its checkpoint.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { lockstep, reportIn, Scratch, type Ended } from './lockstep.ts';

const scratch = new Scratch();
afterAll(() => scratch.remove());

const SMALL = ['--train-samples', '1000', '--test-samples', '250', '--seed', '7'];

async function train(name: string, ...flags: string[]): Promise<Ended> {
  const place = ['--listen', '127.0.0.1:0', '--run-dir', scratch.dir(name)];
  return lockstep(['train', 'cifar10-cnn', ...place, ...flags]).ended;
}

async function trainWell(name: string, ...flags: string[]): Promise<ReturnType<typeof reportIn>> {
  const ended = await train(name, ...flags);
  expect([ended.stderr, ended.code]).toEqual(['', 0]);
  return reportIn(scratch.dir(name));
}

describe.each(['bf16', 'fp16'] as const)('gradients in %s', (form) => {
  const compressed = [...SMALL, '--gradient-compression', form];

  it('give the same bits for 1, 2, 3 and 4 workers, at half the traffic, and the report says so', async () => {
    const one = await trainWell(`${form}-1`, ...compressed, '--workers', '1', '--max-steps', '20');
    const plain = await trainWell(`${form}-plain`, ...SMALL, '--workers', '2', '--max-steps', '20');
    expect(one.digest).not.toBe(plain.digest);
    expect([one.gradientCompression, plain.gradientCompression]).toEqual([form, 'none']);
    for (const workers of [2, 3, 4]) {
      const report = await trainWell(
        `${form}-${workers}`,
        ...compressed,
        '--workers',
        String(workers),
        '--max-steps',
        '20',
      );
      expect([workers, report.digest, report.testLoss]).toEqual([workers, one.digest, one.testLoss]);
      if (workers !== 2) continue;
      const [[half], [whole]] = [report.traffic, plain.traffic];
      expect((half?.bytes ?? 0) / (whole?.bytes ?? 0)).toBeCloseTo(0.5, 2);
    }
    const [run = ''] = readFileSync(join(scratch.dir(`${form}-1`), 'journal.jsonl'), 'utf8').split('\n');
    expect(JSON.parse(run)).toMatchObject({ kind: 'run', config: { gradientCompression: form } });
  });

  it('go on to the same bits after a break, with another number of workers, and not in another form', async () => {
    const whole = await trainWell(`${form}-whole`, ...compressed, '--workers', '4', '--max-steps', '20');
    const name = `${form}-broken`;
    await trainWell(name, ...compressed, '--workers', '3', '--max-steps', '11');
    const other = await train(name, '--resume', '--max-steps', '20', '--gradient-compression', 'none');
    expect([other.code, other.stderr]).toEqual([
      2,
      expect.stringContaining(`--gradient-compression none differs from the run's ${form}`),
    ]);
    const resumed = await trainWell(name, '--resume', '--workers', '2', '--max-steps', '20');
    expect(resumed).toMatchObject({ digest: whole.digest, resumedFromStep: 11, gradientCompression: form });
  });
});
