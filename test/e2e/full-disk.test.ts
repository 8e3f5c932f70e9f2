// A run whose disk is full while it trains: it goes on, says so where one looks, and ends in the same bits; what waited is written.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import type { RunView } from '../../protocol/run-view.ts';
import { MAY_MOUNT, SmallDisk } from '../coordinator/record/small-disk.ts';
import { lockstep, reportIn, Scratch } from './lockstep.ts';

const scratch = new Scratch();
afterAll(() => scratch.remove());
const JOB = fileURLToPath(new URL('jobs/two-moons.ts', import.meta.url));

describe.runIf(MAY_MOUNT)('a run directory on a full disk', () => {
  it('is an alarm: steps go on, alarms are in the view and the metrics, and there is the whole record once there is room', async () => {
    const disk = new SmallDisk(2048);
    const directory = join(disk.path, 'run');
    const flags = ['--workers', '2', '--epochs', '4000', '--checkpoint-every', '50', '--listen', '127.0.0.1:0'];
    const run = lockstep(['train', JOB, ...flags, '--run-dir', directory]);
    const [, url = ''] = await run.wrote(/listening\s+(\S+)/);
    await run.wrote(/^\s+2\/4000\s+\d/m);
    const view = async (): Promise<RunView> => (await (await fetch(`${url}/api/run`)).json()) as RunView;
    // A checkpoint that failed gives its room back: filled until nothing fits.
    const alarming = async (): Promise<string[]> => {
      disk.fill();
      return (await view()).alarms.map(({ part }) => part).toSorted();
    };
    await expect.poll(alarming, { timeout: 30_000 }).toEqual(['checkpoint', 'journal', 'metrics']);
    const { step } = await view();
    await expect.poll(async () => (await view()).step, { timeout: 30_000 }).toBeGreaterThan(step + 20);
    const { alarms, phase } = await view();
    expect(phase).toMatch(/training|evaluating/);
    for (const { because } of alarms) expect(because).toContain('ENOSPC');
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toMatch(/lockstep_record_failures_total\{run="run",part="journal"\} [1-9]/);
    expect(metrics).toMatch(/lockstep_record_failures_total\{run="run",part="checkpoint"\} [1-9]/);
    const shown = await lockstep(['status', url]).ended;
    expect(shown.stdout).toMatch(/the journal cannot be written: .*ENOSPC/);

    disk.empty();
    await expect.poll(async () => (await view()).alarms, { timeout: 30_000 }).toEqual([]);
    run.child.kill('SIGINT');
    const ended = await run.ended;
    expect([ended.stderr, ended.code]).toEqual(['', 130]);
    const said = ended.stdout.replaceAll(/\s+/g, ' ');
    for (const sentence of ['journal.jsonl could not be written', 'journal.jsonl is written again']) {
      expect(said.split(sentence).length - 1).toBe(1);
    }
    const { steps } = reportIn(directory);
    const lines = readFileSync(join(directory, 'metrics.jsonl'), 'utf8').trim().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as { step: number }).step)).toEqual(
      Array.from({ length: steps }, (_, i) => i + 1),
    );
  });

  it('to its end leaves the exit code of a run that is done, and says what is missing', async () => {
    const disk = new SmallDisk(512);
    const directory = join(disk.path, 'run');
    const run = lockstep([
      'train',
      JOB,
      '--workers',
      '1',
      '--epochs',
      '60',
      '--listen',
      '127.0.0.1:0',
      '--run-dir',
      directory,
    ]);
    await run.wrote(/^\s+3\/60\s+\d/m);
    disk.fill();
    const ended = await run.ended;
    expect([ended.stderr, ended.code]).toEqual(['', 0]);
    const said = ended.stdout.replaceAll(/\s+/g, ' ');
    for (const what of ['the report', 'model/', 'journal.jsonl', 'metrics.jsonl', 'the checkpoint after step 960'])
      expect(said).toContain(`${what} could not be written`);
    expect(ended.stdout).toMatch(/digest\s+[0-9a-f]{64}/);
    // Nothing is begun where nothing could be kept.
    disk.fill();
    const flags = ['--workers', '1', '--epochs', '61', '--listen', '127.0.0.1:0', '--run-dir', directory];
    const resumed = await lockstep(['train', JOB, '--resume', ...flags]).ended;
    expect(resumed.code).not.toBe(0);
    expect(resumed.stderr).toMatch(/the run directory \S+ cannot be (used|written): ENOSPC/);
  });
});
