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

const SMALL = ['--train-samples', '1000', '--test-samples', '250', '--seed', '7'];
const whole = ['--max-steps', String(STEPS)];
let digestOfBf16: string | null = null;

it.each(['bf16', 'fp16'] as const)(
  'gradients in %s give the same bits for any number of workers, at half the traffic, and are named',
  async (form) => {
    const compressed = [...SMALL, '--gradient-compression', form, ...whole];
    const [one, two] = await Promise.all([
      trainWell(`${form}-1`, ...compressed, '--workers', '1'),
      trainWell(`${form}-2`, ...compressed, '--workers', '2'),
    ]);
    expect(one).toMatchObject({ gradientCompression: form, digest: expect.stringMatching(/^[0-9a-f]{64}$/) as string });
    const [run = ''] = readFileSync(join(scratch.dir(`${form}-1`), 'journal.jsonl'), 'utf8').split('\n');
    expect(JSON.parse(run)).toMatchObject({ kind: 'run', config: { gradientCompression: form } });

    expect([two.digest, two.testLoss]).toEqual([one.digest, one.testLoss]);
    // 122,570 parameters; in float32 it would be twice that.
    expect((two.traffic[0]?.bytes ?? 0) / (STEPS * 2 * 2 * 122_570)).toBeCloseTo(1, 1);
    if (form === 'bf16') digestOfBf16 = one.digest;
  },
);

it('a run with compressed gradients goes on with other workers to the same bits, and not without compression', async () => {
  await trainWell('broken', ...SMALL, '--gradient-compression', 'bf16', '--workers', '3', '--max-steps', '11');
  const more = ['--resume', ...whole];
  const other = await train('broken', ...SMALL, ...more, '--gradient-compression', 'none');
  expect([other.code, other.stderr]).toEqual([
    2,
    expect.stringContaining("--gradient-compression none differs from the run's bf16"),
  ]);
  const resumed = await trainWell('broken', ...more, '--workers', '2');
  expect(resumed).toMatchObject({ digest: digestOfBf16, resumedFromStep: 11, gradientCompression: 'bf16' });
});
