// The main job on several hosts by `lockstep launch`: real ssh to real sshds, on a network with latency, loss and little bandwidth, of which
// hosts are cut off while it trains. The hosts are network namespaces of this machine (hosts.ts).

import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test, vi } from 'vitest';
import { Hosts, kernelRefusesBecause, noHostsBecause } from './hosts.ts';
import { lockstep, processesNaming, reportIn, Scratch, type LockstepProcess } from './lockstep.ts';

const JOB = ['cifar10-cnn', '--train-samples', '2000', '--test-samples', '250', '--seed', '5', '--max-steps', '100'];
const GRACE_SECONDS = 8;
const WAIT = { timeout: 60_000, interval: 50 };

const scratch = new Scratch();
const hosts = new Hosts(scratch.path, 4);
afterAll(async () => {
  await hosts.close();
  scratch.remove();
});

const missing = noHostsBecause();
const refusal = missing === null ? kernelRefusesBecause() : null;
const reason = missing ?? refusal;
// Where it can't run it is left out, and says why; where what it needs must be installed, that fails.
const isLeftOut = reason !== null && (refusal !== null || process.env['CI'] === undefined);
const title =
  'trains to the bits of an undisturbed run on one machine, though hosts are cut off and come back, and leaves no process anywhere';

test.skipIf(isLeftOut)(isLeftOut ? `${title} (${reason})` : title, { timeout: 180_000 }, async () => {
  expect(reason).toBeNull();
  const local = scratch.dir('local');
  const undisturbed = lockstep(['train', ...JOB, '--workers', '2', '--listen', '127.0.0.1:0', '--run-dir', local]);
  expect([(await undisturbed.ended).stderr, (await undisturbed.ended).code]).toEqual(['', 0]);

  await hosts.open({ delayMs: 1, loss: 0.001, rate: '100mbit' });
  const [, first, second, third] = hosts.addresses;
  const hostfile = scratch.dir('hosts.txt');
  writeFileSync(hostfile, `# name and workers\n${first} slots=1\n${second}:1\n${third} slots=1\n`);
  const directory = scratch.dir('run');
  const grace = ['--host-grace', String(GRACE_SECONDS)];
  const run = lockstep(
    [
      'launch',
      '--hostfile',
      hostfile,
      ...hosts.sshFlags,
      ...grace,
      '--min-workers',
      '2',
      ...JOB,
      '--run-dir',
      directory,
    ],
    { node: hosts.node },
  );
  const step = async (least: number): Promise<void> => {
    await vi.waitFor(() => {
      const metrics = join(directory, 'metrics.jsonl');
      const steps = existsSync(metrics) ? readFileSync(metrics, 'utf8').split('\n').length - 1 : 0;
      if (steps < least) throw new Error(`step ${steps} of ${least}`);
    }, WAIT);
  };
  await run.wrote(/generation 1: 3 workers/);
  // No command line on any host shows the token; where it lies only its user can read it.
  const secrets = readdirSync(hosts.temporary).filter((name) => name.startsWith('lockstep-'));
  expect(secrets).toHaveLength(4);
  for (const name of secrets) {
    const file = join(hosts.temporary, name, 'token');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(processesNaming(readFileSync(file, 'utf8').trim())).toEqual([]);
  }
  // So slow that it can't be over before the hosts are back.
  hosts.limit('6mbit');
  await step(5);

  hosts.cut(3);
  await run.wrote(/generation \d+: 2 workers/);
  hosts.cut(2);
  await run.wrote(/waiting +waiting for 1 more worker/);
  // Within the grace it is the same ssh connection, and the same worker.
  hosts.mend(2);
  await run.wrote(/waiting for 1 more worker[\s\S]*generation \d+: 2 workers/);
  // Beyond it, both sides have given up: the host is started anew.
  await run.wrote(new RegExp(`${third}: .*started again`));
  hosts.mend(3);
  await run.wrote(/generation \d+: 2 workers[\s\S]*generation \d+: 3 workers/);
  hosts.limit('100mbit');
  const ended = await run.ended;
  expect([ended.stderr, ended.code]).toEqual(['', 0]);
  expect(ended.stdout).not.toMatch(new RegExp(`${second}: .*started again`));

  expect(reportIn(directory)).toMatchObject({ digest: reportIn(local).digest, steps: 100, stepsLost: 0 });
  expect(readdirSync(join(directory, 'logs')).toSorted()).toEqual(
    expect.arrayContaining(hosts.addresses.slice(1).map((address) => `worker-${address}-0.log`)),
  );

  // Before the hosts are taken away: each has ended what was started on it, the one that was cut off included.
  await vi.waitFor(() => expect([1, 2, 3].flatMap((host) => hosts.processesOn(host))).toEqual([]), WAIT);
  // The token went to them, and is left nowhere.
  expect(readdirSync(hosts.temporary).filter((name) => name.startsWith('lockstep-'))).toEqual([]);
  await hosts.close();
  expect(hosts.left()).toEqual([]);
  expect(processesNaming(scratch.path)).toEqual([]);
});

/** A launch on this machine alone, which needs no ssh, that would train for long. */
async function begun(directory: string): Promise<LockstepProcess> {
  const job = fileURLToPath(new URL('jobs/two-moons.ts', import.meta.url));
  const run = lockstep(
    ['launch', '-H', 'localhost:2', job, '--epochs', '100000', '--listen', '127.0.0.1:0', '--run-dir', directory],
    { env: { TMPDIR: scratch.path } },
  );
  await run.wrote(/generation 1: 2 workers/);
  return run;
}

/** Whatever such a launch has started: those that name one of its files, and its supervisor, whose command line has none. */
function processesLeft(): number[] {
  const supervisors = processesNaming('--launched').filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'utf8').includes(scratch.path);
    } catch {
      return false;
    }
  });
  return [...supervisors, ...processesNaming(scratch.path)];
}

test('Ctrl-C leaves a checkpoint and no process, and ends with code 130', async () => {
  const directory = scratch.dir('interrupted');
  const run = await begun(directory);
  run.child.kill('SIGINT');
  const { code, stderr } = await run.ended;
  expect([stderr, code]).toEqual(['', 130]);
  expect(readdirSync(join(directory, 'checkpoints')).length).toBeGreaterThan(0);
  expect(processesLeft()).toEqual([]);
});

test('a launcher that is killed leaves no process either', async () => {
  const run = await begun(scratch.dir('killed'));
  // Launcher, coordinator, supervisor and two workers.
  expect(processesLeft()).toHaveLength(5);
  run.child.kill('SIGKILL');
  await vi.waitFor(() => {
    if (processesLeft().length > 0) throw new Error(`left: ${processesLeft().join(', ')}`);
  }, WAIT);
});
