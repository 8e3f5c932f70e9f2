// A user's own job, and workers that are started by hand.

import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { lockstep, processesNaming, reportIn, Scratch, twoAtATime } from './lockstep.ts';

const scratch = new Scratch();
afterAll(() => {
  scratch.remove();
});

const JOB = fileURLToPath(new URL('jobs/two-moons.ts', import.meta.url));
let digestOfTwoMoons: string | null = null;
const PORT = ['--listen', '127.0.0.1:0'];

describe("a user's own job", () => {
  it('learns, to the same bits with 1, 2, 4 and 8 workers and in two runs, dropout and batch normalisation included, data prepared ahead or not', async () => {
    const threads = ['--data-threads', '2'];
    const runs = [['1'], ['2'], ['2', ...threads], ['4'], ['8']];
    const digests = await twoAtATime([...runs.entries()], async ([run, flags]) => {
      const directory = scratch.dir(`moons-${run}`);
      const ended = await lockstep(['train', JOB, ...PORT, '--run-dir', directory, '--workers', ...flags]).ended;
      expect([ended.stderr, ended.code]).toEqual(['', 0]);
      const report = reportIn(directory);
      expect(report).toMatchObject({ job: 'two-moons', microbatches: 8, steps: 96, augment: 'jitter' });
      expect(report.testAccuracy).toBeGreaterThan(0.8);
      return report.digest;
    });
    expect(digests.length).toBe(5);
    digestOfTwoMoons = digests[0] ?? null;
    expect(new Set(digests).size).toBe(1);
  });

  it('in mixed_bfloat16 comes to bits of its own, the same with 1, 2 and 4 workers', async () => {
    const train = ['train', JOB, ...PORT, '--max-steps', '12'];
    const digestOf = async (name: string, ...flags: string[]): Promise<string | null> => {
      const directory = scratch.dir(name);
      const ended = await lockstep([...train, '--run-dir', directory, ...flags]).ended;
      expect([ended.stderr, ended.code]).toEqual(['', 0]);
      return reportIn(directory).digest;
    };
    const mixed = ['--precision', 'mixed_bfloat16'];
    const runs = [
      ['1', ...mixed],
      ['2', ...mixed],
      ['4', ...mixed],
      ['1', '--precision', 'float32'],
    ];
    const digests = await twoAtATime(runs, (flags) => digestOf(flags.join('-'), '--workers', ...flags));
    const [float32, ...others] = digests.toReversed();
    expect([new Set(others).size, others.length]).toEqual([1, 3]);
    expect(float32).not.toBe(others[0]);
  });

  it('whose update never comes back on one worker: that one is found, named and replaced, and the bits are those of the others', async () => {
    const job = fileURLToPath(new URL('jobs/two-moons-hanging.ts', import.meta.url));
    const directory = scratch.dir('hanging');
    const train = ['train', job, ...PORT, '--workers', '2', '--progress-limit', '2', '--run-dir', directory];
    const ended = await lockstep(train, { env: { LOCKSTEP_TEST_MARKS: scratch.path } }).ended;
    expect(ended.code).toBe(0);
    expect(ended.stdout).toMatch(
      /refused +w\d: no step for \d+ s, where \d+ s is the limit: the others wait for w\d \(E_STALLED\)/,
    );
    expect(reportIn(directory)).toMatchObject({ steps: 96, workersLost: 1, stepsLost: 0, digest: digestOfTwoMoons });
    expect(existsSync(scratch.dir('hung'))).toBe(true);
    expect(processesNaming(directory)).toEqual([]);
  });

  it('on a slower worker shows in the time that the others wait for it, not in its own', async () => {
    const job = fileURLToPath(new URL('jobs/two-moons-slow-rank.ts', import.meta.url));
    const directory = scratch.dir('straggler');
    const ended = await lockstep(['train', job, ...PORT, '--workers', '2', '--run-dir', directory]).ended;
    expect([ended.stderr, ended.code]).toEqual(['', 0]);
    const { byWorker, straggler } = reportIn(directory);
    const [fast, slow] = byWorker.map(({ stepSeconds }) => stepSeconds);
    expect(byWorker.map(({ rank }) => rank)).toEqual([0, 1]);
    expect(fast?.wait).toBeGreaterThan(5 * (slow?.wait ?? Infinity));
    expect(slow?.data).toBeGreaterThan(5 * (fast?.data ?? Infinity));
    expect(straggler?.worker).toBe(byWorker[1]?.worker);
    expect(ended.stdout).toMatch(/straggler\s+w\d: the others wait \d+\.\d\d ms a step for it \(\d+ %\)/);
  });

  it('that is changed is not resumed, and its workers have the same source or are refused', async () => {
    const directory = scratch.dir('changed');
    const copy = scratch.dir('copy.ts');
    const source = readFileSync(JOB, 'utf8').replaceAll("'../../../jobs/", `'${join(JOB, '../../../../jobs/')}`);
    writeFileSync(copy, source);
    const train = ['train', copy, ...PORT, '--workers', '1', '--run-dir', directory];
    expect((await lockstep([...train, '--max-steps', '3']).ended).code).toBe(0);
    writeFileSync(copy, source.replace('units: 16', 'units: 17'));
    const resumed = await lockstep([...train, '--resume', '--epochs', '6']).ended;
    expect(resumed.code).toBe(2);
    expect(resumed.stderr).toContain('E_JOB_CHANGED');
    expect(resumed.stderr).toContain('--allow-changed-job');
    // Wished for, it is refused where the checkpoint's weights are of another model.
    const allowed = [...train, '--resume', '--allow-changed-job', '--epochs', '6'];
    const other = await lockstep(allowed).ended;
    expect(other.code).toBe(1);
    expect(other.stdout).toContain('E_JOB_CHANGED');
    expect(reportIn(directory)).toMatchObject({ state: 'failed', steps: 3 });
  });

  it('that is changed goes on with --allow-changed-job, which journal and report keep', async () => {
    const directory = scratch.dir('allowed');
    const copy = scratch.dir('allowed.ts');
    const source = readFileSync(JOB, 'utf8').replaceAll("'../../../jobs/", `'${join(JOB, '../../../../jobs/')}`);
    writeFileSync(copy, source);
    const train = ['train', copy, ...PORT, '--workers', '1', '--run-dir', directory];
    expect((await lockstep([...train, '--max-steps', '3']).ended).code).toBe(0);
    const before = reportIn(directory);
    expect(before).toMatchObject({ reproducible: true, jobChanges: [] });
    writeFileSync(copy, source.replace('0.1 * (random', '0.2 * (random'));
    const resumed = await lockstep([...train, '--resume', '--allow-changed-job', '--max-steps', '5']).ended;
    expect([resumed.stderr, resumed.code]).toEqual(['', 0]);
    expect(resumed.stdout.replaceAll(/\s+/g, ' ')).toMatch(/warning the job is not the one .* from step 4 on/);
    // It is the checkpoint's job from now on, and the report still says what happened.
    expect((await lockstep([...train, '--resume', '--max-steps', '7']).ended).code).toBe(0);
    const { jobChanges, ...report } = reportIn(directory);
    expect(report).toMatchObject({ reproducible: false, steps: 7, resumedFromStep: 5 });
    const [{ from, to } = { from: '', to: '' }] = jobChanges;
    expect(jobChanges).toEqual([{ step: 3, from: expect.any(String), to: expect.any(String) }]);
    expect(from).not.toBe(to);
    const runs = readFileSync(join(directory, 'journal.jsonl'), 'utf8')
      .split('\n')
      .filter((line) => line.includes('"kind":"run"'))
      .map((line) => (JSON.parse(line) as { jobChangedFrom?: string }).jobChangedFrom);
    expect(runs).toEqual([undefined, from, undefined]);
  });
});

describe('workers that are started by hand', () => {
  it('join by the line that the coordinator prints; one whose engine computes other bits is refused, both side by side', async () => {
    const directory = scratch.dir('by-hand');
    const coordinator = lockstep([
      'coordinator',
      JOB,
      ...PORT,
      '--workers',
      '2',
      '--epochs',
      '1',
      '--run-dir',
      directory,
    ]);
    const [, line = ''] = await coordinator.wrote(/npx lockstep (worker --coordinator \S+ --token-file \S+ --job \S+)/);
    const start = (env: Record<string, string> = {}, flags: string[] = []): ReturnType<typeof lockstep> =>
      lockstep([...line.split(' '), ...flags], { env });

    const first = start();
    await coordinator.wrote(/1 of 2 workers\s+ready/);
    const threads = { TF_NUM_INTRAOP_THREADS: '2', OMP_NUM_THREADS: '2' };
    const others: [Record<string, string>, string[], RegExp][] = [
      [{ TF_ENABLE_ONEDNN_OPTS: '0' }, [], /oneDNN: on \| off/],
      [threads, [], /threads: 1 \| 2/],
      [{}, ['--engine', 'wasm'], /engine: tensorflow \| wasm/],
    ];
    for (const [env, flags, difference] of others) {
      const other = await start(env, flags).ended;
      expect(other.code).toBe(1);
      expect(other.stderr).toMatch(/E_FINGERPRINT/);
      expect(other.stderr).toMatch(difference);
    }

    const wrongToken = scratch.dir('wrong-token');
    writeFileSync(wrongToken, 'not the token');
    const stranger = await lockstep([...line.split(' ').slice(0, 4), wrongToken]).ended;
    expect(stranger.code).toBe(1);
    expect(stranger.stderr).toContain('E_UNAUTHORIZED');

    const second = start();
    expect((await coordinator.ended).code).toBe(0);
    expect([(await first.ended).code, (await second.ended).code]).toEqual([0, 0]);
    expect(reportIn(directory)).toMatchObject({ state: 'done', reproducible: true, steps: 16 });
  });

  it('end with 130 as their coordinator does when it is interrupted; it needs no engine of its own', async () => {
    const gpu = lockstep([
      'coordinator',
      JOB,
      ...PORT,
      '--engine',
      'tensorflow-gpu',
      '--run-dir',
      scratch.dir('no-gpu'),
    ]);
    await gpu.wrote(/tensorflow-gpu: as named, for workers that have it/);
    await gpu.wrote(/workers join with/);
    gpu.child.kill('SIGTERM');
    expect((await gpu.ended).code).toBe(130);

    const coordinator = lockstep([
      'coordinator',
      JOB,
      ...PORT,
      '--workers',
      '1',
      '--epochs',
      '1000',
      '--run-dir',
      scratch.dir('stop'),
    ]);
    const [, line = ''] = await coordinator.wrote(/npx lockstep (worker --coordinator \S+ --token-file \S+ --job \S+)/);
    const worker = lockstep([...line.split(' '), '--term-grace', '100']);
    await worker.wrote(/generation 1: rank 0 of 1/);
    // As a scheduler tells all processes of a job, and some more than once.
    for (const told of [worker, worker, coordinator]) told.child.kill('SIGTERM');
    const ended = [await coordinator.ended, await worker.ended];
    expect(ended.map(({ code }) => code)).toEqual([130, 130]);
    expect(reportIn(scratch.dir('stop'))).toMatchObject({ state: 'stopped', workersLost: 0 });
  });
});
