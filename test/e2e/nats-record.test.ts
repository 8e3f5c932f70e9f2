// The copy of the record in the key-value store of a real NATS server, and its absence.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Kvm } from '@nats-io/kv';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { aheadOf, claimTerm, findRunBucket, openRunBucket, readBucket } from '../../coordinator/nats/bucket.ts';
import { openNatsRecord, type NatsRecord } from '../../coordinator/nats/record.ts';
import { restoreRun } from '../../coordinator/nats/restore.ts';
import { openNatsSession } from '../../coordinator/nats/session.ts';
import type { JournalInput } from '../../coordinator/record/journal.ts';
import { connectNats, type Nats } from '../../nats/connect.ts';
import { runConfigSchema } from '../../protocol/run-config.ts';
import { Scratch } from './lockstep.ts';
import { serverAt, startNatsServer, type RunningServer } from './nats-server.ts';

const RUN = 'a run';
const BUCKET = 'lockstep-b64-YSBydW4';
const T = '2026-11-26T17:00:00.000Z';
const generation = (n: number): JournalInput => ({
  t: T,
  kind: 'generation',
  generation: n,
  members: ['w0'],
  because: 'b',
});
const checkpoint = (step: number): JournalInput => ({
  t: T,
  kind: 'checkpoint',
  step,
  digest: 'd'.repeat(64),
  directory: `checkpoints/step-${step}`,
});
const begun = (resumedFromStep: number | null): JournalInput => ({
  t: T,
  kind: 'run',
  lockstep: '0.1.0',
  resumedFromStep,
  config: runConfigSchema.parse({
    run: RUN,
    job: { kind: 'built-in', name: 'j', sha256: 'e'.repeat(64) },
    jobName: 'j',
    seed: 1,
    globalBatch: 4,
    microbatches: 2,
    epochs: 1,
    steps: 9,
    learningRate: 0.1,
    augment: false,
    trainSamples: 36,
    testSamples: 0,
    engine: 'e',
    engineMode: 'eager',
    precision: 'float32',
    transport: 'nats',
    bucketBytes: 1024,
    checkpointEverySteps: 0,
    digestEverySteps: 0,
    auditRate: 0,
  }),
});
const membership = {
  t: T,
  generation: 2,
  because: '2 of 2 workers ready',
  members: [
    { worker: 'w1', rank: 0, host: 'red' },
    { worker: 'w0', rank: 1, host: 'blue' },
  ],
};

const scratch = new Scratch();
afterAll(() => scratch.remove());
const started: RunningServer[] = [];
const connections: Nats[] = [];
afterEach(async () => {
  for (const one of records.splice(0)) one.close();
  for (const one of connections.splice(0)) await one.close();
  for (const one of started.splice(0)) await one.kill();
});
async function start(...flags: string[]): Promise<RunningServer> {
  const server = await startNatsServer(...flags);
  started.push(server);
  return server;
}
async function connection(server: RunningServer): Promise<Nats> {
  const nats = await connectNats(serverAt(server.url), 'test');
  connections.push(nats);
  return nats;
}
const records: NatsRecord[] = [];
const self = { host: 'red', pid: 7 };
/** That of the next coordinator. */
async function opened(server: RunningServer, warn: (message: string) => void = () => {}): Promise<NatsRecord> {
  const bucket = await openRunBucket(await connection(server), RUN, null);
  const record = await openNatsRecord(bucket, { term: await claimTerm(bucket.store, self, 0), ...self }, warn);
  records.push(record);
  return record;
}

describe('with JetStream', () => {
  it('journal and membership are read back by another coordinator, in order, from the last fresh start on', async () => {
    const server = await start('--jetstream');
    const first = await opened(server);
    expect(first.bucket).toBe(BUCKET);
    expect(first.before).toEqual({ journal: [], lines: [], startTerm: 0, membership: null, term: 1 });
    // An earlier run of the same name, then this one: more than ten records, so that their order is not that of their digits.
    const earlier = [begun(null), checkpoint(999)];
    const later = [begun(null), ...Array.from({ length: 12 }, (_, i) => checkpoint(i + 1)), begun(12), generation(2)];
    for (const entry of [...earlier, ...later]) first.add(entry);
    first.setMembership({ ...membership, generation: 1 });
    first.setMembership(membership);
    await first.settled();

    const second = await opened(server);
    const lines = later.map((entry) => JSON.stringify(entry));
    expect(second.before).toEqual({ journal: later, lines, startTerm: 1, membership, term: 2 });
    second.add(generation(3));
    await second.settled();
    expect((await opened(server)).before.journal).toEqual([...later, generation(3)]);
  });

  it('who comes next is seen by the one before, though that has another disk, and keeps the lease', async () => {
    const server = await start('--jetstream');
    const first = await opened(server);
    expect(first.successor()).toBeNull();
    const second = await opened(server);
    await expect.poll(() => first.successor(), { timeout: 5000 }).toEqual({ term: 2, host: 'red', pid: 7 });
    expect(second.successor()).toBeNull();
  });

  it('of two that claim at once each has a term of its own', async () => {
    const { store } = await openRunBucket(await connection(await start('--jetstream')), RUN, null);
    const terms = await Promise.all([1, 2, 3, 4].map(() => claimTerm(store, self, 6)));
    expect(terms.toSorted((a, b) => a - b)).toEqual([7, 8, 9, 10]);
  });

  it('what an older coordinator writes after a newer one has claimed its term is not read', async () => {
    const server = await start('--jetstream');
    const older = await opened(server);
    for (const entry of [begun(null), generation(1)]) older.add(entry);
    await older.settled();
    const newer = await opened(server);
    newer.add(generation(2));
    await newer.settled();
    older.add(generation(66));
    await older.settled();
    newer.add(generation(3));
    await newer.settled();
    const found = await findRunBucket(await connection(server), RUN);
    const { journal } = await readBucket(found?.store ?? (undefined as never));
    expect(journal).toEqual([begun(null), generation(1), generation(2), generation(3)]);
  });

  it('a run directory that is lost is begun anew from it: with the generations that were, as if nothing had been done yet', async () => {
    const server = await start('--jetstream');
    const session = await openNatsSession(serverAt(server.url), RUN, self, null);
    connections.push(session.nats);
    const directory = join(scratch.path, 'anew');
    expect(await restoreRun(session, directory)).toBeNull();
    const record = await opened(server);
    for (const entry of [begun(null), generation(1), checkpoint(4), begun(4), generation(2)]) record.add(entry);
    await record.settled();
    expect(await restoreRun(session, directory)).toEqual({ bucket: BUCKET, term: 2, notices: [] });
    const first = { ...begun(null), restoredFrom: BUCKET };
    const lines = readFileSync(join(directory, 'journal.jsonl'), 'utf8').trim().split('\n');
    expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([first, generation(1), generation(2)]);
  });

  it('of commits the last are kept, in one place: a record a second would fill the bucket', async () => {
    const server = await start('--jetstream');
    const record = await opened(server);
    const commits = (from: number): JournalInput => ({
      t: T,
      kind: 'commits',
      generation: 1,
      from,
      to: from,
      digest: null,
    });
    for (const entry of [begun(null), commits(1), commits(2), checkpoint(2)]) record.add(entry);
    await record.settled();
    expect((await opened(server)).before.journal).toEqual([begun(null), checkpoint(2)]);
    const store = await new Kvm((await connection(server)).connection).open(BUCKET);
    expect((await store.get('commits'))?.json()).toEqual(commits(2));
  });

  it('the bucket has its limits: one value a key, 16 MiB, 30 days', async () => {
    const server = await start('--jetstream');
    await opened(server);
    const status = await (await new Kvm((await connection(server)).connection).open(BUCKET)).status();
    expect(status).toMatchObject({ history: 1, max_bytes: 16_777_216, ttl: 2_592_000_000 });
  });

  it('says that a run directory is an old copy, when the record knows a later checkpoint', async () => {
    const server = await start('--jetstream');
    const record = await opened(server);
    for (const entry of [begun(null), checkpoint(4), checkpoint(8)]) record.add(entry);
    await record.settled();
    const { before } = await opened(server);
    expect(aheadOf(8, before)).toBeNull();
    expect(aheadOf(4, before)).toMatch(/checkpoint after step 8 \(checkpoints\/step-8\).*goes on from step 4/);
  });

  it('a write that fails is one warning, and holds up nothing', async () => {
    const server = await start('--jetstream');
    const warnings: string[] = [];
    const record = await opened(server, (message) => warnings.push(message));
    await server.kill();
    record.add(checkpoint(1));
    record.add(checkpoint(2));
    await record.settled();
    expect(warnings).toEqual([expect.stringMatching(new RegExp(`${BUCKET} ends here: .*; journal.jsonl is whole`))]);
  });
});

describe('without JetStream', () => {
  it('there is no copy, and why', async () => {
    const server = await start();
    const { nats, bucket, because, claim } = await openNatsSession(serverAt(server.url), RUN, self, null);
    connections.push(nats);
    expect([bucket, because, await claim(4)]).toEqual([null, 'it runs without JetStream', 4]);
  });
});
