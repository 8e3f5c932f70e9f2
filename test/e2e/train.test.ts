// The promise and the contract, with real processes, the real CIFAR-10 and the real TensorFlow: a few steps at a time.

import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { RunView } from '../../protocol/run-view.ts';
import { lockstep, processesNaming, reportIn, Scratch, twoAtATime } from './lockstep.ts';

const scratch = new Scratch();
afterAll(() => scratch.remove());

const STEPS = 12;
/** 1,000 samples in batches of 64: an epoch of 16 steps, the last one short. */
const SMALL = ['--train-samples', '1000', '--test-samples', '500', '--seed', '7', '--listen', '127.0.0.1:0'];

async function trainSmall(name: string, ...flags: string[]): Promise<ReturnType<typeof reportIn>> {
  const directory = scratch.dir(name);
  const ended = await lockstep(['train', 'cifar10-cnn', ...SMALL, '--run-dir', directory, ...flags]).ended;
  expect(ended.stderr).toBe('');
  expect(ended.code).toBe(0);
  return reportIn(directory);
}

describe('the same bits', () => {
  it('come from 1, 2, 3 and 4 workers, with augmentation on, and twice from the same number', async () => {
    const runs = [
      { name: 'w1', workers: 1, flags: [] },
      { name: 'w2', workers: 2, flags: [] },
      { name: 'w2-again', workers: 2, flags: [] },
      { name: 'w3', workers: 3, flags: [] },
      { name: 'w4', workers: 4, flags: [] },
      { name: 'w2-seed', workers: 2, flags: ['--seed', '8'] },
      { name: 'w2-plain', workers: 2, flags: ['--augment', 'off'] },
    ];
    const reports = await twoAtATime(runs, ({ name, workers, flags }) =>
      trainSmall(name, '--workers', String(workers), '--max-steps', String(STEPS), ...flags),
    );
    const [one, ...others] = reports;
    expect(one?.digest).toMatch(/^[0-9a-f]{64}$/);
    for (const [i, report] of reports.slice(0, 5).entries()) {
      const { name, workers } = runs[i] ?? {};
      expect([name, report.digest]).toEqual([name, one?.digest]);
      expect([report.testLoss, report.testAccuracy, report.finalLoss]).toEqual([
        one?.testLoss,
        one?.testAccuracy,
        one?.finalLoss,
      ]);
      expect(report).toMatchObject({
        workersStarted: workers,
        workersLost: 0,
        stepsLost: 0,
        steps: STEPS,
        augment: expect.stringContaining('flip') as string,
      });
    }
    for (const other of others.slice(4)) expect(other.digest).not.toBe(one?.digest);
    expect(others.length).toBe(6);
  });

  it('come from a run that is interrupted in mid-epoch and resumed with another number of workers', async () => {
    const whole = await trainSmall('whole', '--workers', '2', '--epochs', '2');
    expect(whole.byEpoch.map((e) => e.epoch)).toEqual([1, 2]);

    const directory = scratch.dir('broken');
    const run = lockstep(['train', 'cifar10-cnn', ...SMALL, '--workers', '2', '--epochs', '2', '--run-dir', directory]);
    await run.wrote(/^\s+1\/2\s+\d/m);
    run.child.kill('SIGINT');
    const ended = await run.ended;
    expect(ended.code).toBe(130);
    expect(processesNaming(directory)).toEqual([]);
    const stopped = reportIn(directory);
    expect(stopped.state).toBe('stopped');
    expect(stopped.steps).toBeGreaterThanOrEqual(16);
    expect(stopped.steps).toBeLessThan(32);
    expect(existsSync(join(directory, 'checkpoints', `step-${stopped.steps}`))).toBe(true);
    expect(existsSync(join(directory, 'endpoint.json'))).toBe(false);

    const resumed = await lockstep([
      'train',
      'cifar10-cnn',
      '--listen',
      '127.0.0.1:0',
      '--workers',
      '3',
      '--resume',
      '--run-dir',
      directory,
    ]).ended;
    expect(resumed.code).toBe(0);
    const report = reportIn(directory);
    expect(report.digest).toBe(whole.digest);
    expect(report).toMatchObject({ steps: 32, resumedFromStep: stopped.steps, stepsLost: 0 });
    expect(report.byEpoch.map((e) => [e.epoch, e.loss, e.testLoss])).toEqual(
      whole.byEpoch.map((e) => [e.epoch, e.loss, e.testLoss]),
    );
    const steps = readFileSync(join(directory, 'metrics.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { step: number }).step);
    expect(steps).toEqual(Array.from({ length: 32 }, (_, i) => i + 1));
  });
});

describe('what a run leaves', () => {
  it('is the run directory of the contract, and a model that evaluate agrees with', async () => {
    const report = await trainSmall('left', '--workers', '2', '--max-steps', '4', '--report', scratch.dir('copy.json'));
    const directory = scratch.dir('left');
    expect(readdirSync(directory).toSorted()).toEqual([
      '.term-1',
      'checkpoints',
      'journal.jsonl',
      'logs',
      'metrics.jsonl',
      'model',
      'report.json',
      'token',
    ]);
    expect(statSync(join(directory, 'token')).mode & 0o077).toBe(0);
    expect(JSON.parse(readFileSync(scratch.dir('copy.json'), 'utf8'))).toEqual(JSON.parse(JSON.stringify(report)));
    expect(report).toMatchObject({
      schema: 1,
      job: 'cifar10-cnn',
      engine: { name: 'tensorflow', library: 'TensorFlow 2.21.0', threads: 1 },
      transport: 'ws',
      // On one machine; over the socket where there is no room for shared memory.
      traffic: [{ transport: expect.stringMatching(/^(shm|unix)$/) as string, bytes: expect.any(Number) as number }],
      globalBatch: 64,
      microbatches: 4,
      samples: 256,
    });
    expect(report.peakRssBytes.workers).toHaveLength(2);
    for (const bytes of report.peakRssBytes.workers) expect(bytes).toBeLessThan(700e6);
    const journal = readFileSync(join(directory, 'journal.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { kind: string }).kind);
    expect(journal).toEqual(['run', 'generation', 'begin', 'commits', 'checkpoint', 'finished']);

    const evaluated = await lockstep(['evaluate', directory]).ended;
    expect(evaluated.code).toBe(0);
    expect(evaluated.stderr).toBe('');
    expect(evaluated.stdout).toMatch(/^true \\ said/m);
    expect(evaluated.stdout).toContain(report.digest);
  });

  it('is served while it runs: page, metrics, health and the run as JSON', async () => {
    const run = lockstep([
      'train',
      'cifar10-cnn',
      ...SMALL,
      '--workers',
      '2',
      '--epochs',
      '50',
      '--run-dir',
      scratch.dir('served'),
    ]);
    const [, url = ''] = await run.wrote(/listening\s+(\S+)/);
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    await run.wrote(/^\s+1\/50\s+\d/m);
    expect(await (await fetch(`${url}/readyz`)).json()).toMatchObject({ ready: true });
    const view = (await (await fetch(`${url}/api/run`)).json()) as RunView;
    expect(view).toMatchObject({
      job: 'cifar10-cnn',
      generation: 1,
      coordinator: { pid: expect.any(Number) as number },
    });
    expect(new Set(view.workers.map((w) => w.rank))).toEqual(new Set([0, 1]));
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toMatch(/lockstep_images_total\{run="served"\} [1-9]/);
    expect(metrics).toMatch(/lockstep_step_duration_seconds_count\{run="served",worker="w\d",phase="compute"\} [1-9]/);
    expect(metrics).toMatch(/lockstep_workers\{run="served",state="training"\} 2/);
    expect(await (await fetch(url)).text()).toContain('<title>Lockstep</title>');
    expect((await fetch(`${url}/nothing`)).status).toBe(404);
    run.child.kill('SIGTERM');
    expect((await run.ended).code).toBe(130);
    expect(processesNaming(scratch.dir('served'))).toEqual([]);
  });
});

describe('a failure', () => {
  it('of the last worker, not to be started anew, is shown as one root cause, ends the run with 1, and leaves no process', async () => {
    const directory = scratch.dir('killed');
    const run = lockstep([
      'train',
      'cifar10-cnn',
      ...SMALL,
      '--workers',
      '1',
      '--restart-limit',
      '0',
      '--epochs',
      '50',
      '--run-dir',
      directory,
    ]);
    const [, url = ''] = await run.wrote(/listening\s+(\S+)/);
    await run.wrote(/^\s+1\/50\s+\d/m);
    const view = (await (await fetch(`${url}/api/run`)).json()) as RunView;
    const victim = view.workers.find((w) => w.rank === 0);
    process.kill(victim?.pid ?? Number.NaN, 'SIGKILL');
    const ended = await run.ended;
    expect(ended.code).toBe(1);
    expect(ended.stdout.match(/Root cause/g)).toHaveLength(1);
    expect(ended.stdout).toContain(`${victim?.id}, rank 0`);
    expect(ended.stdout).toContain('killed by SIGKILL');
    expect(reportIn(directory)).toMatchObject({ state: 'failed', workersLost: 1 });
    expect(processesNaming(directory)).toEqual([]);
    const resumed = await lockstep([
      'train',
      'cifar10-cnn',
      '--listen',
      '127.0.0.1:0',
      '--resume',
      '--run-dir',
      directory,
      '--epochs',
      '2',
    ]).ended;
    expect(resumed.code === 0 || resumed.stderr.includes('has done its')).toBe(true);
  });

  it('in a step that takes long costs nothing that the survivors have computed of it: they share out what the lost one had', async () => {
    const batch = ['--batch-size', '2048', '--microbatches', '8', '--max-steps', '5'];
    const train = ['train', 'cifar10-cnn', ...batch, '--test-samples', '0', '--listen', '127.0.0.1:0'];
    const [alone, killed] = [scratch.dir('undisturbed'), scratch.dir('one-of-three')];
    const undisturbed = lockstep([...train, '--workers', '1', '--run-dir', alone]).ended;
    const run = lockstep([...train, '--workers', '3', '--run-dir', killed]);
    const [, url = ''] = await run.wrote(/listening\s+(\S+)/);
    const viewed = async (): Promise<RunView> => (await (await fetch(`${url}/api/run`)).json()) as RunView;
    let view = await viewed();
    while (view.step < 1) view = await viewed();
    process.kill(view.workers.find(({ rank }) => rank === 2)?.pid ?? Number.NaN, 'SIGKILL');
    const ended = await run.ended;
    expect([ended.stderr, ended.code]).toEqual(['', 0]);
    expect((await undisturbed).code).toBe(0);
    const { digest } = reportIn(alone);
    expect(reportIn(killed)).toMatchObject({ digest, workersLost: 1, stepsLost: 0, microbatchesRecomputed: 0 });
    const generations = readFileSync(join(killed, 'journal.jsonl'), 'utf8')
      .split('\n')
      .filter((line) => line.includes('"kind":"generation"'))
      .map((line) => JSON.parse(line) as { members: string[]; shares?: number[][] });
    // Of all three; of two, the lost one's shared out; of the same, evenly again.
    expect(generations.slice(0, 3).map(({ members, shares }) => [members.length, shares])).toEqual([
      [3, undefined],
      [
        2,
        [
          [0, 1, 5, 6],
          [2, 3, 4, 7],
        ],
      ],
      [2, undefined],
    ]);
    const verified = await lockstep(['verify', killed]).ended;
    expect([verified.stderr, verified.code]).toEqual(['', 0]);
  });

  it('of the launcher itself leaves no process and no lock', async () => {
    const directory = scratch.dir('launcher-killed');
    const run = lockstep([
      'train',
      'cifar10-cnn',
      ...SMALL,
      '--workers',
      '2',
      '--epochs',
      '50',
      '--run-dir',
      directory,
    ]);
    const [, url = ''] = await run.wrote(/listening\s+(\S+)/);
    await run.wrote(/^\s+1\/50\s+\d/m);
    const view = (await (await fetch(`${url}/api/run`)).json()) as RunView;
    run.child.kill('SIGKILL');
    await run.ended;
    const gone = (pid: number): boolean => !existsSync(`/proc/${pid}`);
    await expect
      .poll(() => [view.coordinator.pid, ...view.workers.map((w) => w.pid)].every(gone), { timeout: 30_000 })
      .toBe(true);
    expect(existsSync(join(directory, '.lock'))).toBe(false);
    expect(reportIn(directory).state).toBe('stopped');
  });

  it('of a checkpoint is said, and the one before it is used', async () => {
    const whole = await trainSmall('cp-whole', '--workers', '2', '--max-steps', '10');
    const directory = scratch.dir('cp');
    await trainSmall('cp', '--workers', '2', '--max-steps', '8', '--checkpoint-every', '4');
    const weights = join(directory, 'checkpoints', 'step-8', 'weights.bin');
    const bytes = readFileSync(weights);
    bytes[100] = (bytes[100] ?? 0) ^ 1;
    writeFileSync(weights, bytes);
    const resumed = await lockstep([
      'train',
      'cifar10-cnn',
      '--listen',
      '127.0.0.1:0',
      '--workers',
      '1',
      '--resume',
      '--run-dir',
      directory,
      '--max-steps',
      '10',
    ]).ended;
    expect(resumed.code).toBe(0);
    expect(resumed.stdout.replaceAll(/\s+/g, ' ')).toMatch(
      /step-8 is damaged: weights\.bin was altered.*the one before it is used/,
    );
    expect(reportIn(directory)).toMatchObject({ digest: whole.digest, resumedFromStep: 4, stepsLost: 4 });
  });
});

describe('bad input', () => {
  const refused = async (args: string[], code: string, ...words: (string | RegExp)[]): Promise<void> => {
    const ended = await lockstep(args).ended;
    expect(ended.stderr).toContain(code);
    for (const word of words) expect(ended.stderr).toMatch(word);
    expect(ended.code).toBe(2);
  };

  it('is refused with exit code 2, its code, the culprit and a remedy, before anything is started', async () => {
    const directory = scratch.dir('never');
    const train = ['train', 'cifar10-cnn', '--run-dir', directory, '--listen', '127.0.0.1:0'];
    await refused([...train, '--wrokers', '2'], 'E_USAGE', '--wrokers', '--workers');
    await refused([...train, '--workers', '0'], 'E_USAGE', '--workers', '0');
    await refused([...train, '--batch-size', '66'], 'E_BATCH_SIZE', '66', '4', /64 or 68/);
    await refused([...train, '--microbatches', '3'], 'E_USAGE', '--microbatches', 'power of two');
    await refused([...train, '--transport', 'tcp'], 'E_USAGE', 'ws, nats');
    await refused(['train', 'cifar10-cn'], 'E_JOB_NOT_FOUND', 'cifar10-cn', 'cifar10-cnn');
    await refused([...train, '--listen', '0.0.0.0:0'], 'E_LISTEN', '--token-file');
    expect(existsSync(directory)).toBe(false);
  });

  it('of a job file that throws names the file, the error and its line', async () => {
    const file = scratch.dir('broken-job.ts');
    writeFileSync(file, 'const a: number = 1;\nthrow new Error(`no good ${a}`);\n');
    await refused(['train', file], 'E_JOB_INVALID', 'broken-job.ts:2', 'no good 1');
  });

  it('of a directory that holds a run, or in use, touches nothing in it', async () => {
    const directory = scratch.dir('used');
    await trainSmall('used', '--workers', '1', '--max-steps', '1');
    const before = readFileSync(join(directory, 'report.json'), 'utf8');
    await refused(['train', 'cifar10-cnn', ...SMALL, '--run-dir', directory], 'E_RUN_DIR_NOT_EMPTY', '--resume');
    const run = lockstep([
      'train',
      'cifar10-cnn',
      ...SMALL,
      '--workers',
      '1',
      '--epochs',
      '50',
      '--resume',
      '--run-dir',
      directory,
    ]);
    const [, url = ''] = await run.wrote(/listening\s+(\S+)/);
    await refused(
      ['train', 'cifar10-cnn', ...SMALL, '--resume', '--run-dir', directory],
      'E_RUN_DIR_IN_USE',
      'in use by process',
    );
    const { port } = new URL(url);
    await refused(
      ['train', 'cifar10-cnn', '--run-dir', scratch.dir('port'), '--listen', `127.0.0.1:${port}`],
      'E_PORT_IN_USE',
      port,
      '--listen 127.0.0.1:0',
    );
    expect(readFileSync(join(directory, 'report.json'), 'utf8')).toBe(before);
    run.child.kill('SIGINT');
    expect((await run.ended).code).toBe(130);
  });
});
