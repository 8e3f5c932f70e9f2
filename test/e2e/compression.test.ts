// Compressed gradients with real processes: the promise holds for them, too, and the form that a run has goes with its checkpoint.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { lockstep, reportIn, Scratch, type Ended } from './lockstep.ts';

const scratch = new Scratch();
afterAll(() => scratch.remove());

const STEPS = 20;

async function train(name: string, ...flags: string[]): Promise<Ended> {
  const place = ['--listen', '127.0.0.1:0', '--run-dir', scratch.dir(name)];
  return lockstep(['train', 'cifar10-cnn', ...place, ...flags]).ended;
}

async function trainWell(name: string, ...flags: string[]): Promise<ReturnType<typeof reportIn>> {
  const ended = await train(name, ...flags);
  expect([ended.stderr, ended.code]).toEqual(['', 0]);
  return reportIn(scratch.dir(name));
}

it.each(['bf16', 'fp16'] as const)(
  'gradients in %s give the same bits for any number of workers and after a break, at half the traffic, and are named',
  async (form) => {
    const small = ['--train-samples', '1000', '--test-samples', '250', '--seed', '7', '--gradient-compression', form];
    const whole = [...small, '--max-steps', String(STEPS)];
    const one = await trainWell(`${form}-1`, ...whole, '--workers', '1');
    expect(one).toMatchObject({ gradientCompression: form, digest: expect.stringMatching(/^[0-9a-f]{64}$/) as string });
    const [run = ''] = readFileSync(join(scratch.dir(`${form}-1`), 'journal.jsonl'), 'utf8').split('\n');
    expect(JSON.parse(run)).toMatchObject({ kind: 'run', config: { gradientCompression: form } });

    const two = await trainWell(`${form}-2`, ...whole, '--workers', '2');
    const four = await trainWell(`${form}-4`, ...whole, '--workers', '4');
    expect([two.digest, two.testLoss, four.digest]).toEqual([one.digest, one.testLoss, one.digest]);
    // 122,570 parameters; in float32 it would be twice that.
    expect((two.traffic[0]?.bytes ?? 0) / (STEPS * 2 * 2 * 122_570)).toBeCloseTo(1, 1);

    const broken = `${form}-broken`;
    await trainWell(broken, ...small, '--workers', '3', '--max-steps', '11');
    const more = ['--resume', '--max-steps', String(STEPS)];
    const other = await train(broken, ...more, '--gradient-compression', 'none');
    expect([other.code, other.stderr]).toEqual([
      2,
      expect.stringContaining(`--gradient-compression none differs from the run's ${form}`),
    ]);
    const resumed = await trainWell(broken, ...more, '--workers', '2');
    expect(resumed).toMatchObject({ digest: one.digest, resumedFromStep: 11, gradientCompression: form });
  },
);
