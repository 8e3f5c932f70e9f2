// The copy of the record in the key-value store of a real NATS server, and its absence.

import { Kvm } from '@nats-io/kv';
import { afterEach, describe, expect, it } from 'vitest';
import { aheadOf, openNatsRecord, type NatsRecord } from '../../coordinator/nats/record.ts';
import { keptRunOf } from '../../coordinator/nats/restore.ts';
import type { JournalInput } from '../../coordinator/record/journal.ts';
import { connectNats, type Nats } from '../../nats/connect.ts';
import { runConfigSchema } from '../../protocol/run-config.ts';
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

const started: RunningServer[] = [];
const connections: Nats[] = [];
afterEach(async () => {
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
async function opened(
  server: RunningServer,
  warn: (message: string) => void = () => {},
  term = 1,
): Promise<NatsRecord> {
  const { record } = await openNatsRecord(await connection(server), RUN, { term, host: 'red', pid: 7 }, warn);
  if (record === null) throw new Error('no record');
  return record;
}

describe('with JetStream', () => {
  it('journal and membership are read back by another coordinator, in order, from the last fresh start on', async () => {
    const server = await start('--jetstream');
    const first = await opened(server);
    expect(first.bucket).toBe(BUCKET);
    expect(first.before).toEqual({ journal: [], membership: null, term: 0 });
    // An earlier run of the same name, then this one: more than ten records, so that their order is not that of their digits.
    const earlier = [begun(null), checkpoint(999)];
    const later = [begun(null), ...Array.from({ length: 12 }, (_, i) => checkpoint(i + 1)), begun(12), generation(2)];
    for (const entry of [...earlier, ...later]) first.add(entry);
    first.setMembership({ ...membership, generation: 1 });
    first.setMembership(membership);
    await first.settled();

    const second = await opened(server);
    expect(second.before).toEqual({ journal: later, membership, term: 1 });
    second.add(generation(3));
    await second.settled();
    expect((await opened(server)).before.journal).toEqual([...later, generation(3)]);
  });

  it('who comes next is seen by the one before, though that has another disk', async () => {
    const server = await start('--jetstream');
    const first = await opened(server, () => {}, 4);
    expect(first.successor()).toBeNull();
    const second = await opened(server, () => {}, 5);
    expect(second.before.term).toBe(4);
    await expect.poll(() => first.successor(), { timeout: 5000 }).toEqual({ term: 5, host: 'red', pid: 7 });
    expect(second.successor()).toBeNull();
  });

  it('a run directory that is lost is begun anew from it: with the generations that were, as if nothing had been done yet', async () => {
    const server = await start('--jetstream');
    const at = serverAt(server.url);
    expect(await keptRunOf(at, RUN)).toBeNull();
    const record = await opened(server, () => {}, 4);
    for (const entry of [begun(null), generation(1), checkpoint(4), begun(4), generation(2)]) record.add(entry);
    await record.settled();
    const first = { ...begun(null), restoredFrom: BUCKET };
    expect(await keptRunOf(at, RUN)).toEqual({
      bucket: BUCKET,
      term: 4,
      records: [first, generation(1), generation(2)],
    });
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
    const nats = await connection(await start());
    expect(await openNatsRecord(nats, RUN, { term: 1, host: 'red', pid: 7 }, () => {})).toEqual({
      record: null,
      because: 'it runs without JetStream',
    });
  });
});
