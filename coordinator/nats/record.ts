// A second copy of the run's record, in a key-value bucket of the NATS server's JetStream, where it outlives the coordinator's machine:
// the journal's records, and who is in the present generation. The record itself stays journal.jsonl: it is there without JetStream, and
// a write to it can't be lost to the network. A write that fails here is a warning, once. A shell.
//
//     bucket lockstep-<run>      journal.000001, journal.000002, ...: a record each      membership: the present generation
//                                commits: the last ones only, since one a second would fill a bucket in a working day

import { Kvm, type KV } from '@nats-io/kv';
import { z } from 'zod';
import type { Nats } from '../../nats/connect.ts';
import { subjectOf } from '../../nats/server.ts';
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

export interface KeptRecord {
  /** Of the present run: from the last fresh start under this name on. */
  readonly journal: readonly JournalRecord[];
  readonly membership: Membership | null;
}

export interface NatsRecord {
  readonly bucket: string;
  /** What was there on opening. */
  readonly before: KeptRecord;
  add(record: JournalInput): void;
  setMembership(membership: Membership): void;
  /** Resolves when all that was given is there, or has failed. */
  settled(): Promise<void>;
}

/** Opens or makes the run's bucket. `because`: why there is none. */
export async function openNatsRecord(
  nats: Nats,
  run: string,
  warn: (message: string) => void,
): Promise<{ readonly record: NatsRecord } | { readonly record: null; readonly because: string }> {
  const bucket = `lockstep-${subjectOf(run)}`;
  if (nats.connection.info?.jetstream !== true) return { record: null, because: 'it runs without JetStream' };
  let store: KV;
  let before: KeptRecord;
  let last: number;
  try {
    const limits = { history: 1, max_bytes: BUCKET_BYTES, ttl: KEPT_MS };
    store = await new Kvm(nats.connection).create(bucket, { ...limits, description: `Lockstep's record of ${run}` });
    ({ before, last } = await read(store));
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
    settled: async () => {
      await writes;
    },
  };
  return { record };
}

async function read(store: KV): Promise<{ before: KeptRecord; last: number }> {
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
  return {
    before: { journal: records.slice(Math.max(0, start)), membership: membership.success ? membership.data : null },
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
