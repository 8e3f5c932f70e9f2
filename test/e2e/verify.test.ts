// The record of a real run: a worker is killed, then all its processes in mid-epoch; it goes on with other workers over another transport, and ends in
// the bits of a run that nothing happened to; `lockstep verify` says so, computes a step again, and finds what is altered.

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, expect, it } from 'vitest';
import type { RunView } from '../../protocol/run-view.ts';
import { lockstep, reportIn, Scratch } from './lockstep.ts';
import { startNatsServer, type RunningServer } from './nats-server.ts';

const scratch = new Scratch();
const servers: RunningServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.kill();
});
afterAll(() => scratch.remove());

const JOB = fileURLToPath(new URL('jobs/two-moons.ts', import.meta.url));
/** 16 steps an epoch. */
const TRAIN = ['train', JOB, '--listen', '127.0.0.1:0', '--seed', '7', '--test-samples', '0'];

it('a run that is killed in mid-epoch and goes on elsewhere has a record that holds together, and what is altered in it is found', async () => {
  const directory = scratch.dir('run');
  const often = ['--epochs', '4000', '--checkpoint-every', '3'];
  const run = lockstep([...TRAIN, ...often, '--workers', '2', '--run-dir', directory]);
  const [, url = ''] = await run.wrote(/listening\s+(\S+)/);
  await run.wrote(/^\s+2\/4000\s+\d/m);
  const see = async (): Promise<RunView> => (await (await fetch(`${url}/api/run`)).json()) as RunView;
  const lost = (await see()).workers.find(({ rank }) => rank === 1)?.pid;
  process.kill(lost ?? Number.NaN, 'SIGKILL');
  await expect
    .poll(async () => see().then(({ generation, workersLost, phase }) => [generation > 1, workersLost, phase]), {
      timeout: 30_000,
    })
    .toEqual([true, 1, 'training']);
  const view = await see();
  for (const pid of [
    run.child.pid ?? Number.NaN,
    view.coordinator.pid,
    ...view.workers.flatMap((w) => (w.state === 'lost' ? [] : [w.pid])),
  ])
    process.kill(pid, 'SIGKILL');
  await run.ended;
  const kept = readdirSync(join(directory, 'checkpoints')).flatMap((name) => /^step-(\d+)$/.exec(name)?.[1] ?? []);
  // In mid-epoch: one at an epoch's end is taken away.
  for (const step of kept.filter((text) => Number(text) % 16 === 0))
    rmSync(join(directory, 'checkpoints', `step-${step}`), { recursive: true });
  const last = Math.max(...kept.map(Number).filter((step) => step % 16 !== 0));

  const killed = await lockstep(['verify', directory]).ended;
  expect([killed.stderr, killed.code]).toEqual(['', 0]);
  expect(killed.stdout).toMatch(/end\s+not on record, after/);
  expect(killed.stdout).toMatch(/note\s+its last coordinator ended without a word/);

  const steps = String(last + 20);
  const server = await startNatsServer();
  servers.push(server);
  const elsewhere = ['--resume', '--workers', '3', '--transport', 'nats', '--nats-url', server.url];
  const resumed = await lockstep([...TRAIN, ...elsewhere, '--max-steps', steps, '--run-dir', directory]).ended;
  expect([resumed.stderr, resumed.code]).toEqual(['', 0]);
  const undisturbed = scratch.dir('undisturbed');
  const alone = await lockstep([...TRAIN, '--workers', '1', '--max-steps', steps, '--run-dir', undisturbed]).ended;
  expect(alone.code).toBe(0);
  const { digest, resumedFromStep, generations } = reportIn(directory);
  expect(digest).toBe(reportIn(undisturbed).digest);
  expect(resumedFromStep).toBe(last);
  expect(generations).toBeGreaterThan(2);

  const told = await lockstep(['report', directory]).ended;
  expect([told.stderr, told.stdout.trim()]).toEqual(['', join(directory, 'report.html')]);
  const page = readFileSync(join(directory, 'report.html'), 'utf8');
  expect(page).toContain(`<code>${digest}</code>`);
  expect(page).toMatch(/a coordinator goes on.*from the last checkpoint/);
  expect(page).toMatch(/w\d is lost/);

  const verified = await lockstep(['verify', directory, '--replay', steps]).ended;
  expect([verified.stderr, verified.code]).toEqual(['', 0]);
  expect(verified.stdout).toContain('the record holds together');
  expect(verified.stdout).toContain(`finished, after ${steps} of ${steps} steps`);
  expect(verified.stdout).toMatch(/begun\s+2 times/);
  expect(verified.stdout).toMatch(/lost\s+1 worker\n/);
  expect(verified.stdout).toMatch(/generations\s+1: \d+ steps? by w\d, w\d\n/);
  expect(verified.stdout).toMatch(new RegExp(`${generations}: 20 steps by w\\d, w\\d, w\\d\n`));
  expect(verified.stdout).toMatch(/1: 500 of 500 samples, each of them once/);
  expect(verified.stdout).toMatch(new RegExp(`step ${steps}\\s+digest ${digest} and loss .*, as recorded`));

  // A number that nothing else on record depends on: only computing it again tells.
  const metrics = join(directory, 'metrics.jsonl');
  const lines = readFileSync(metrics, 'utf8').split('\n');
  const at = lines.length - 3;
  const line = JSON.parse(lines[at] ?? '') as { step: number; gradientNorm: number };
  const altered = JSON.stringify({ ...line, gradientNorm: line.gradientNorm * (1 + 2 ** -52) });
  writeFileSync(metrics, lines.with(at, altered).join('\n'));
  const found = await lockstep(['verify', directory, '--replay', String(line.step)]).ended;
  expect(found.code).toBe(1);
  expect(found.stderr).toMatch(
    new RegExp(
      `^lockstep: E_RECORD_REPLAY: metrics\\.jsonl:${at + 1}: step ${line.step} comes to the norm of the gradient`,
    ),
  );

  const journal = join(directory, 'journal.jsonl');
  const records = readFileSync(journal, 'utf8').split('\n');
  const commits = records.findIndex((text) => text.includes('"kind":"commits"'));
  writeFileSync(journal, records.toSpliced(commits, 0, records[commits] ?? '').join('\n'));
  const twice = await lockstep(['verify', directory]).ended;
  expect(twice.code).toBe(1);
  expect(twice.stderr).toMatch(
    new RegExp(`^lockstep: E_RECORD_STEPS: journal\\.jsonl:${commits + 2}: step 1 is committed again`),
  );
});
