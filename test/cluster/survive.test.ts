// Nothing stops it: real processes, the tutorial's CNN, SIGKILL and SIGSTOP at any moment. Every run ends with the weights of the
// undisturbed one, and no step is lost.

import { copyFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { lockstep, processesNaming, reportIn, Scratch } from '../e2e/lockstep.ts';
import { startNatsServer } from '../e2e/nats-server.ts';
import type { RunReport } from '../../protocol/report.ts';
import { checkTimeline } from './timeline.ts';
import { Cluster, JOB, membersOf, pidOf, sharedMemory, STEPS, stepsIn } from './cluster.ts';

const DEADLY = fileURLToPath(new URL('jobs/deadly.ts', import.meta.url));
const scratch = new Scratch();
const sharedBefore = sharedMemory();
let digest = '';

beforeAll(async () => {
  const calm = ['--workers', '1', '--listen', '127.0.0.1:0', '--run-dir', scratch.dir('calm')];
  await lockstep(['train', ...JOB, ...calm]).ended;
  digest = reportIn(scratch.dir('calm')).digest ?? 'none';
});
afterAll(() => scratch.remove());

const train = async (name: string, ...flags: string[]): Promise<Cluster> =>
  new Cluster(scratch.dir(name), ['train', ...JOB, ...flags]).listening();

/** The end of a run that survived all of it: same bits, nothing lost, nothing left behind. */
async function survived({ run, directory }: Cluster): Promise<RunReport> {
  const ended = await run.ended;
  expect([ended.code, ended.code === 0 ? '' : ended.stdout.slice(-3000)]).toEqual([0, '']);
  const report = reportIn(directory);
  expect(report).toMatchObject({ state: 'done', steps: STEPS, digest, stepsLost: 0 });
  expect(stepsIn(directory)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
  expect(report.byEpoch.map((epoch) => epoch.epoch)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
  expect(processesNaming(directory)).toEqual([]);
  return report;
}

describe('the machine', () => {
  it('has the digest of a run that nobody disturbed', () => {
    expect(digest).toMatch(/^[0-9a-f]{64}$/);
  });
});

describe('workers', () => {
  it('killed one after the other, at any moment of their steps, and while one waits for the sum, having sent its part', async () => {
    const cluster = await train('workers', '--workers', '2', '--timeline', scratch.dir('workers.json'));
    let view = await cluster.members(2);
    for (let kill = 0; kill < 3; kill++) {
      process.kill(pidOf(view, kill % 2), 'SIGKILL');
      await cluster.members(1);
      view = await cluster.members(2);
    }
    // The one that is stopped sends nothing more: the other comes to the all-reduce and stays there.
    process.kill(pidOf(view, 0), 'SIGSTOP');
    await cluster.until('nothing moves', (now) => now.step >= view.step);
    process.kill(pidOf(view, 1), 'SIGKILL');
    process.kill(pidOf(view, 0), 'SIGCONT');
    await cluster.members(2);
    expect(await survived(cluster)).toMatchObject({ workersLost: 4, workersStarted: 6, generations: 9 });
    const { processes, marks, events } = checkTimeline(scratch.dir('workers.json'), STEPS);
    const names = processes.map((name) => name.split(',', 1)[0] ?? '');
    expect(new Set(names)).toEqual(new Set(['coordinator 1', 'w0', 'w1', 'w2', 'w3', 'w4', 'w5']));
    expect(marks.filter((mark) => mark.endsWith(' lost'))).toHaveLength(4);
    expect(marks.filter((mark) => mark.startsWith('generation'))).toHaveLength(9);
    const spans = events.flatMap((event) => (event.ph === 'X' ? [event.name.replace(/ of .*/, '')] : []));
    expect(spans.filter((name) => name === 'evaluation').length).toBeGreaterThan(6);
    for (const name of ['checkpoint', 'link up', 'take state', 'evaluate', 'send state']) expect(spans).toContain(name);
  });

  it('that die in their step before they have computed anything of it, within its reduce-scatter and its all-gather, and after its sum is with everybody', async () => {
    const marks = scratch.dir('marks');
    mkdirSync(marks);
    const directory = scratch.dir('deadly');
    // Others are there when some have died: the last one's death would take the newest steps with it.
    const args = ['train', DEADLY, ...JOB.slice(1), '--workers', '4'];
    const cluster = await new Cluster(directory, args, { LOCKSTEP_TEST_MARKS: marks }).listening();
    expect(await survived(cluster)).toMatchObject({ workersLost: 4 });
    const places = ['after-the-sum', 'before-computing', 'within-the-gather', 'within-the-scatter'];
    expect(readdirSync(marks).toSorted()).toEqual(places);
  });

  it('killed two of three at once, and all but one of four', async () => {
    const cluster = await train('several', '--workers', '4');
    let view = await cluster.members(4);
    for (const rank of [0, 2]) process.kill(pidOf(view, rank), 'SIGKILL');
    view = await cluster.members(4);
    for (const rank of [1, 2, 3]) process.kill(pidOf(view, rank), 'SIGKILL');
    await cluster.members(1);
    expect(await survived(cluster)).toMatchObject({ workersLost: 5 });
  });

  it('stopped for longer than the limit of silence, and going on: told that its generation is over, it joins again', async () => {
    const cluster = await train('stopped', '--workers', '2');
    // By then its heart is known.
    const view = await cluster.step(200);
    const victim = pidOf(view, 1);
    process.kill(victim, 'SIGSTOP');
    await cluster.members(1);
    process.kill(victim, 'SIGCONT');
    const back = await cluster.members(2);
    expect(membersOf(back).map((w) => w.pid)).toContain(victim);
    expect(await survived(cluster)).toMatchObject({ workersLost: 1 });
  });
});

describe('the coordinator', () => {
  it('killed while it gathers, while it evaluates, while it trains together with a worker; stopped, replaced, and waking to find itself fenced off', async () => {
    const cluster = await train('coordinator', '--workers', '2', '--restart-limit', '9');
    const gathering = await cluster.until('it listens', () => true);
    process.kill(gathering.coordinator.pid, 'SIGKILL');
    const first = await cluster.members(2);
    expect(first.coordinator.pid).not.toBe(gathering.coordinator.pid);
    await cluster.until('it evaluates', ({ phase }) => phase === 'evaluating');
    process.kill(first.coordinator.pid, 'SIGKILL');
    const another = (view: { coordinator: { pid: number } }): boolean => view.coordinator.pid !== first.coordinator.pid;
    await cluster.until('another coordinator', another);
    const second = await cluster.members(2);
    process.kill(second.coordinator.pid, 'SIGKILL');
    process.kill(pidOf(second, 1), 'SIGKILL');
    await cluster.until('yet another', (view) => view.coordinator.pid !== second.coordinator.pid);
    const third = await cluster.members(2);
    process.kill(third.coordinator.pid, 'SIGSTOP');
    // The last steps are done meanwhile: the workers wait for somebody to tell.
    const fourth = await cluster.until('a fourth', (view) => view.coordinator.pid !== third.coordinator.pid);
    process.kill(third.coordinator.pid, 'SIGCONT');
    const report = await survived(cluster);
    expect(report).toMatchObject({ workersLost: 1 });
    const said = `${cluster.run.stdout}${cluster.run.stderr}`.replaceAll(/\s+/g, ' ');
    expect(said).toContain(`the coordinator (process ${third.coordinator.pid}) does not answer`);
    expect(said).toMatch(
      new RegExp(`another has the run: process ${fourth.coordinator.pid} on \\S+ \\(term 5; this one had 4\\)`),
    );
  });
});

describe('everything', () => {
  it('ended when the coordinator is killed while it stops; killed at once; each time resumed, then with other workers over another transport, to the same bits', async () => {
    const stopped = await train('machine', '--workers', '2', '--checkpoint-every', '10');
    const { workers, coordinator } = await stopped.step(40);
    // So that nobody can agree on a last step before it is killed.
    for (const { pid } of workers) process.kill(pid, 'SIGSTOP');
    stopped.run.child.kill('SIGINT');
    await stopped.until('it stops', ({ phase }) => phase === 'stopping');
    process.kill(coordinator.pid, 'SIGKILL');
    for (const { pid } of workers) process.kill(pid, 'SIGCONT');
    expect((await stopped.run.ended).code).toBe(130);
    expect(processesNaming(stopped.directory)).toEqual([]);

    const taken = ['train', 'cifar10-cnn', '--resume', '--workers', '2'];
    const cluster = await new Cluster(stopped.directory, taken).listening();
    const view = await cluster.step(75);
    for (const pid of [cluster.run.child.pid, view.coordinator.pid, ...view.workers.map((w) => w.pid)]) {
      process.kill(pid ?? Number.NaN, 'SIGKILL');
    }
    await cluster.run.ended;
    await expect.poll(() => processesNaming(cluster.directory), { timeout: 30_000 }).toEqual([]);
    const server = await startNatsServer();
    try {
      const again = ['train', 'cifar10-cnn', '--resume', '--run-dir', cluster.directory, '--workers', '3'];
      const over = ['--transport', 'nats', '--nats-url', server.url, '--listen', '127.0.0.1:0'];
      expect((await lockstep([...again, ...over]).ended).code).toBe(0);
      const report = reportIn(cluster.directory);
      expect(report).toMatchObject({ steps: STEPS, digest, transport: 'nats' });
      expect(report.resumedFromStep).toBeGreaterThanOrEqual(70);
    } finally {
      await server.kill();
    }
  });
});

describe('over NATS', () => {
  it('a worker killed, the coordinator, and the server, which comes back: the workers keep what they have', async () => {
    const server = await startNatsServer();
    const { port } = new URL(server.url);
    const over = ['--transport', 'nats', '--nats-url', server.url];
    const cluster = await train('nats', '--workers', '2', ...over, '--timeline', scratch.dir('nats.json'));
    process.kill(pidOf(await cluster.members(2), 1), 'SIGKILL');
    await cluster.members(1);
    const first = await cluster.members(2);
    process.kill(first.coordinator.pid, 'SIGKILL');
    await cluster.until('another coordinator', (now) => now.coordinator.pid !== first.coordinator.pid);
    const second = await cluster.members(2);
    await server.kill();
    await vi.waitFor(() => {
      if (!cluster.run.stderr.includes('waiting for the NATS server')) throw new Error('not yet: it is missed');
    }, 60_000);
    const again = await startNatsServer('--port', port);
    try {
      await cluster.until('yet another', (now) => now.coordinator.pid !== second.coordinator.pid);
      await cluster.members(2);
      expect(await survived(cluster)).toMatchObject({ workersLost: 1, transport: 'nats' });
      // What a coordinator has not written yet when it is killed goes with it.
      const { processes } = checkTimeline(scratch.dir('nats.json'), STEPS / 4);
      const names = processes.map((name) => name.split(',', 1)[0] ?? '');
      expect(names.filter((name) => name.startsWith('coordinator'))).toHaveLength(3);
      expect(names.filter((name) => name.endsWith(' before)')).length).toBeGreaterThanOrEqual(4);
    } finally {
      await again.kill();
    }
  });
});

describe('a worker from elsewhere', () => {
  it('joins in mid-epoch; then the coordinator is lost with its disk, and another one goes on with what NATS keeps', async () => {
    const server = await startNatsServer('--jetstream');
    try {
      const over = ['--transport', 'nats', '--nats-url', server.url];
      const lost = new Cluster(scratch.dir('joined'), ['coordinator', ...JOB, '--workers', '1', ...over]);
      const [, line = ''] = await lost.run.wrote(/npx lockstep (worker --coordinator \S+ --token-file \S+ --job \S+)/);
      await lost.listening();
      const token = scratch.dir('token');
      copyFileSync(join(lost.directory, 'token'), token);
      const args = line.replace(/--token-file \S+/, `--token-file ${token}`).split(' ');
      const first = lockstep(args);
      await lost.step(40);
      const second = lockstep(args);
      await lost.members(2);
      lost.run.child.kill('SIGKILL');
      await lost.run.ended;
      rmSync(lost.directory, { recursive: true });
      const elsewhere = scratch.dir('elsewhere/joined');
      const again = ['coordinator', 'cifar10-cnn', '--resume', '--workers', '2', '--token-file', token, ...over];
      const cluster = new Cluster(elsewhere, again);
      expect([(await first.ended).code, (await second.ended).code]).toEqual([0, 0]);
      expect(await survived(cluster)).toMatchObject({ workersLost: 0, workersStarted: 2 });
      expect((await lockstep(['verify', elsewhere]).ended).stderr).toBe('');
    } finally {
      await server.kill();
    }
  });
});

describe('afterwards', () => {
  it('nothing is left of them: no process, no shared memory', () => {
    expect(processesNaming(scratch.path)).toEqual([]);
    expect(sharedMemory()).toEqual(sharedBefore);
  });
});
