// Three NATS servers as they are shipped, TLS and permissions included, under a run that goes on while each of them in turn is killed and
// comes back, while its coordinator hangs and one in stand-by takes over in an empty directory, and while nobody is left at all.

import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Kvm } from '@nats-io/kv';
import { Objm } from '@nats-io/obj';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cluster, stepsIn } from '../cluster/cluster.ts';
import { lockstep, reportIn, Scratch, type LockstepProcess } from './lockstep.ts';
import { NatsCluster, type NatsUser } from './nats-cluster.ts';

const PACED = fileURLToPath(new URL('jobs/paced.ts', import.meta.url));
const EPOCHS = 8;
const STEPS = 256;
const JOB = [PACED, '--train-samples', '2000', '--test-samples', '250', '--seed', '7'];
const scratch = new Scratch();
let servers: NatsCluster;
let starting: Promise<NatsCluster>;
let calm = '';
let token = '';

beforeAll(async () => {
  starting = NatsCluster.start(scratch.path);
  const flags = [
    '--workers',
    '1',
    '--epochs',
    `${EPOCHS}`,
    '--listen',
    '127.0.0.1:0',
    '--run-dir',
    scratch.dir('calm'),
  ];
  await lockstep(['train', ...JOB, ...flags]).ended;
  calm = reportIn(scratch.dir('calm')).digest ?? 'none';
  token = scratch.dir('token');
  writeFileSync(token, 'a-token-that-was-made-before\n');
  servers = await starting;
});
afterAll(async () => {
  await (await starting).stop();
  scratch.remove();
});

const environment = (user: NatsUser): Record<string, string> => ({
  NODE_EXTRA_CA_CERTS: servers.caFile,
  LOCKSTEP_NATS_URL: servers.url(user),
  LOCKSTEP_TEST_SLOW: scratch.dir('slow'),
});

function coordinator(directory: string, ...flags: string[]): Cluster {
  const args = ['coordinator', ...JOB, '--workers', '2', '--transport', 'nats', '--token-file', token, ...flags];
  return new Cluster(directory, args, environment('coordinator'));
}

function worker(run: string): LockstepProcess {
  const at = `${servers.url('worker').replace(/\/\/.*@/, '//')}/${run}`;
  const args = ['worker', '--coordinator', at, '--token-file', token, '--job', PACED];
  return lockstep(args, { env: environment('worker') });
}

/** Its record holds together; else with the journal, to see why not. */
async function verified(directory: string): Promise<void> {
  const { stderr } = await lockstep(['verify', directory]).ended;
  expect(stderr === '' ? '' : `${stderr}\n${readFileSync(join(directory, 'journal.jsonl'), 'utf8')}`).toBe('');
}

describe('a run on three NATS servers', () => {
  it('goes on when each of them in turn is killed and comes back, and when the coordinator is stopped and one in stand-by takes over in an empty directory: the same bits; the older one, waking, is fenced off', async () => {
    writeFileSync(scratch.dir('slow'), '');
    const first = await coordinator(scratch.dir('a/run'), '--epochs', `${EPOCHS}`).listening();
    const workers = [worker('run'), worker('run')];
    await first.members(2);
    for (const server of [1, 2, 3]) {
      await servers.kill(server);
      await first.members(2);
      await servers.restart(server);
    }
    const standby = coordinator(scratch.dir('b/run'), '--standby');
    await expect.poll(() => standby.run.stderr, { timeout: 30_000 }).toMatch(/stand-by: the run run is led by process/);
    const { step } = await first.members(2);
    // By then it knows how often the leader's lease is renewed.
    const before = await first.step(step + 20);
    first.run.child.kill('SIGSTOP');
    await standby.listening();
    const after = await standby.members(2);
    first.run.child.kill('SIGCONT');
    const fenced = await first.run.ended;
    expect([fenced.code, fenced.stderr]).toEqual([
      1,
      expect.stringMatching(/E_FENCED: .* another has the run: process/),
    ]);
    rmSync(scratch.dir('a'), { recursive: true });
    expect(after.step).toBeGreaterThan(before.step);
    expect(after.step).toBeLessThan(STEPS);
    rmSync(scratch.dir('slow'));
    const ended = await standby.run.ended;
    expect([ended.code, ended.code === 0 ? '' : ended.stdout.slice(-3000)]).toEqual([0, '']);
    for (const { ended: end } of workers) expect((await end).code).toBe(0);
    const report = reportIn(standby.directory);
    expect(report).toMatchObject({ state: 'done', steps: STEPS, digest: calm });
    // Who alone had come to the last step may lose its link together with the other: who is back first does it again.
    expect(report.stepsLost).toBeLessThanOrEqual(1);
    expect(stepsIn(standby.directory)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
    await verified(standby.directory);
  });

  it('goes on in an empty directory when nobody is left: from the object store, and no further back than its last checkpoint', async () => {
    const flags = ['--epochs', '2', '--keep-checkpoints', '1'];
    const first = coordinator(scratch.dir('c/gone'), ...flags);
    await first.listening();
    const before = [worker('gone'), worker('gone')];
    expect((await first.run.ended).code).toBe(0);
    for (const { ended } of before) expect((await ended).code).toBe(0);
    rmSync(scratch.dir('c'), { recursive: true });
    const second = coordinator(scratch.dir('d/gone'), '--resume', '--epochs', `${EPOCHS}`);
    await second.listening();
    const after = [worker('gone'), worker('gone')];
    const ended = await second.run.ended;
    expect([ended.code, ended.code === 0 ? '' : ended.stdout.slice(-3000)]).toEqual([0, '']);
    for (const { ended: end } of after) expect((await end).code).toBe(0);
    const report = reportIn(second.directory);
    expect(report).toMatchObject({ steps: STEPS, digest: calm, resumedFromStep: 64, stepsLost: 0 });
    expect(report.byEpoch.map(({ epoch }) => epoch)).toEqual(Array.from({ length: EPOCHS }, (_, i) => i + 1));
    expect(stepsIn(second.directory)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
    await verified(second.directory);
    // One checkpoint is kept, and the best: of those that both coordinators have sent.
    const names = await as('coordinator', async (nats) => {
      const store = await new Objm(nats).open('lockstep-gone');
      return (await store.list()).map(({ name }) => name);
    });
    const steps = new Set(names.map((name) => Number(/^step-(\d+)\//.exec(name)?.[1])));
    expect(steps.size).toBeLessThanOrEqual(4);
    expect(Math.max(...steps)).toBe(STEPS);
  });
});

/** With a connection of that user's, to whichever server answers. */
async function as<T>(user: NatsUser, act: (nats: NatsConnection) => Promise<T>): Promise<T> {
  const url = new URL(servers.url(user).replace(/,.*/, ''));
  const nats = await connect({
    servers: url.host,
    user: url.username,
    pass: url.password,
    tls: { caFile: servers.caFile },
    inboxPrefix: `_INBOX.${user}`,
  });
  try {
    return await act(nats);
  } finally {
    await nats.close();
  }
}

describe('its users', () => {
  const KEY = '$KV.lockstep-run.journal.9.1';
  it('a worker can neither write the record nor claim a term nor read checkpoints, an observer only read, and nobody else can speak for another', async () => {
    const refused = async (user: NatsUser, subject: string): Promise<string> =>
      as(user, async (nats) =>
        nats.request(subject, '{}', { timeout: 2000 }).then(
          () => 'answered',
          (error: unknown) =>
            error instanceof Error && error.cause instanceof Error ? error.cause.name : String(error),
        ),
      );
    const denied = 'PermissionViolationError';
    for (const user of ['worker', 'observer'] as const) {
      const writes = [KEY, '$KV.lockstep-run.term.99', '$KV.lockstep-run.lease', '$O.lockstep-run.M.x'];
      const admin = ['$JS.API.STREAM.DELETE.KV_lockstep-run', '$JS.API.STREAM.PURGE.KV_lockstep-run'];
      for (const subject of [...writes, ...admin, '$JS.API.CONSUMER.CREATE.KV_lockstep-run'])
        expect([user, subject, await refused(user, subject)]).toEqual([user, subject, denied]);
    }
    expect(await refused('worker', '$JS.API.STREAM.INFO.KV_lockstep-run')).toBe(denied);
    expect(await refused('coordinator', '$JS.API.STREAM.DELETE.KV_lockstep-run')).toBe(denied);
    expect(await refused('observer', '$JS.API.STREAM.INFO.KV_lockstep-run')).toBe('answered');
    expect(await refused('observer', 'lockstep.run.control')).toBe(denied);
    // Nothing of it has come there.
    const journal = await as('coordinator', async (nats) =>
      (await new Kvm(nats).open('lockstep-run')).get('journal.9.1'),
    );
    expect(journal).toBeNull();
    const heard = as('worker', async (nats) => {
      const others = nats.subscribe('_INBOX.coordinator.>');
      await nats.flush();
      return others.closed;
    });
    await expect(heard).resolves.toMatchObject({ name: denied });
  });
});
