// A second copy of the run's record, in a key-value bucket of the NATS server's JetStream, where it outlives the coordinator's machine:
// the journal's records, and who is in the present generation. The record itself stays journal.jsonl: it is there without JetStream, and
// a write to it can't be lost to the network. A write that fails here is a warning, once. A shell.
//
// Where the machine is lost with its run directory, `--resume` on another one goes on from here (restore.ts), with what the workers know.
//
//     bucket lockstep-<run>      journal.000001, journal.000002, ...: a record each      membership: the present generation
//                                term: the coordinator that has the run (core/fence.ts)
//                                commits: the last ones only, since one a second would fill a bucket in a working day

import { Kvm, type KV } from '@nats-io/kv';
import { z } from 'zod';
import type { Nats } from '../../nats/connect.ts';
import { subjectOf } from '../../nats/server.ts';
import type { Successor } from '../core/fence.ts';
import type { JournalInput } from '../record/journal.ts';
import { journalRecordSchema, type JournalRecord } from '../record/journal-schema.ts';

/** Of a bucket: some 30,000 records. Full, it refuses the next one. */
const BUCKET_BYTES = 16 * 1024 * 1024;
/** How long a value is kept after it was written. */
const KEPT_MS = 30 * 24 * 60 * 60 * 1000;
const NUMBER_DIGITS = 6;

const membershipSchema = z.object({
  t: z.iso.datetime(),
  generation: z.int().min(0),
  because: z.string(),
  members: z.array(z.object({ worker: z.string(), rank: z.int().min(0), host: z.string() })),
});
export type Membership = z.infer<typeof membershipSchema>;

const termSchema = z.object({ term: z.int().min(1), host: z.string(), pid: z.int() });

export interface KeptRecord {
  /** Of the present run: from the last fresh start under this name on. */
  readonly journal: readonly JournalRecord[];
  readonly membership: Membership | null;
  /** Of the last coordinator; 0: not known. */
  readonly term: number;
}

export interface NatsRecord {
  readonly bucket: string;
  /** What was there on opening. */
  readonly before: KeptRecord;
  add(record: JournalInput): void;
  setMembership(membership: Membership): void;
  /** Who has taken the run from this coordinator, on another machine; null: nobody has said so. */
  successor(): Successor | null;
  /** Resolves when all that was given is there, or has failed. */
  settled(): Promise<void>;
}

export function bucketOf(run: string): string {
  return `lockstep-${subjectOf(run)}`;
}

/** Opens or makes the run's bucket, for the coordinator `self`. `because`: why there is none. */
export async function openNatsRecord(
  nats: Nats,
  run: string,
  self: Successor,
  warn: (message: string) => void,
): Promise<{ readonly record: NatsRecord } | { readonly record: null; readonly because: string }> {
  const bucket = bucketOf(run);
  if (nats.connection.info?.jetstream !== true) return { record: null, because: 'it runs without JetStream' };
  let store: KV;
  let before: KeptRecord;
  let last: number;
  let newest: Successor | null = null;
  try {
    const limits = { history: 1, max_bytes: BUCKET_BYTES, ttl: KEPT_MS };
    store = await new Kvm(nats.connection).create(bucket, { ...limits, description: `Lockstep's record of ${run}` });
    ({ before, last } = await readBucket(store));
    await store.put('term', JSON.stringify(self));
    const claims = await store.watch({ key: 'term' });
    void (async () => {
      for await (const entry of claims) {
        const claim = termSchema.safeParse(jsonOf(entry.string()));
        if (claim.success && claim.data.term > self.term) newest = claim.data;
      }
    })().catch(() => {
      // With the connection: that is told of where it is held.
    });
  } catch (error) {
    return { record: null, because: `its bucket ${bucket} can't be opened: ${messageOf(error)}` };
  }
  let writes: Promise<unknown> = Promise.resolve();
  let hasFailed = false;
  const put = (key: string, value: unknown): void => {
    writes = writes
      .then(async () => (hasFailed ? undefined : store.put(key, JSON.stringify(value))))
      .catch((error: unknown) => {
        hasFailed = true;
        warn(
          `the copy of the record in JetStream's bucket ${bucket} ends here: ${messageOf(error)}; journal.jsonl is whole`,
        );
      });
  };
  const record: NatsRecord = {
    bucket,
    before,
    add: (entry) =>
      put(entry.kind === 'commits' ? 'commits' : `journal.${String(++last).padStart(NUMBER_DIGITS, '0')}`, entry),
    setMembership: (membership) => put('membership', membership),
    successor: () => newest,
    settled: async () => {
      await writes;
    },
  };
  return { record };
}

/** What is there; `last`: the number of the newest record. */
export async function readBucket(store: KV): Promise<{ before: KeptRecord; last: number }> {
  const found: { number: number; record: JournalRecord }[] = [];
  let last = 0;
  for await (const entry of await store.history({ key: 'journal.*' })) {
    const number = Number(entry.key.slice('journal.'.length));
    last = Math.max(last, number);
    const record = journalRecordSchema.safeParse(jsonOf(entry.string()));
    if (record.success) found.push({ number, record: record.data });
  }
  const records = found.toSorted((a, b) => a.number - b.number).map(({ record }) => record);
  const start = records.findLastIndex((record) => record.kind === 'run' && record.resumedFromStep === null);
  const membership = membershipSchema.safeParse(jsonOf((await store.get('membership'))?.string() ?? ''));
  const term = termSchema.safeParse(jsonOf((await store.get('term'))?.string() ?? ''));
  return {
    before: {
      journal: records.slice(Math.max(0, start)),
      membership: membership.success ? membership.data : null,
      term: term.success ? term.data.term : 0,
    },
    last,
  };
}

/** What a copy on another machine should know before it goes on from an older checkpoint; null: nothing. */
export function aheadOf(step: number, { journal }: KeptRecord): string | null {
  const newest = journal.filter((record) => record.kind === 'checkpoint').at(-1);
  if (newest === undefined || newest.step <= step) return null;
  return `the record in JetStream knows a checkpoint after step ${newest.step} (${newest.directory}); this one goes on from step ${step}: is the run directory an old copy?`;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
