// The key-value bucket of a run in the NATS server's JetStream: what is in it, how a coordinator claims the run there, and how it is read
// back. A shell around two pure parts (`keptIn`, `holderIn`).
//
//     bucket lockstep-<run>      term.N        the coordinator that has claimed term N: made once, which only one can (core/fence.ts)
//                                lease         the one that has the run, written twice a second at the revision that it wrote before:
//                                              who finds another's there has been replaced (core/lease.ts)
//                                journal.N.K   the K-th record of the coordinator with term N
//                                membership    the present generation
//                                commits       the last ones only, since one a second would fill a bucket in a working day
//
// The store gives all writes one order, their revisions. A record that an older coordinator wrote after a newer one had claimed its term
// does not count, so that one that wakes in the middle of anything may write what it likes.

import { Kvm, type KV } from '@nats-io/kv';
import { JetStreamApiCodes, JetStreamApiError, jetstreamManager } from '@nats-io/jetstream';
import { z } from 'zod';
import type { Nats } from '../../nats/connect.ts';
import { patiently } from '../../nats/patience.ts';
import { subjectOf } from '../../nats/server.ts';
import type { Successor } from '../core/fence.ts';
import type { SeenLease } from '../core/lease.ts';
import { journalRecordSchema, type JournalRecord } from '../record/journal-schema.ts';
import { replicated, type Replicas } from './replicas.ts';

/** Of a bucket: some 30,000 records. Full, it refuses the next one. */
const BUCKET_BYTES = 16 * 1024 * 1024;
/** How long a value is kept after it was written. */
export const KEPT_MS = 30 * 24 * 60 * 60 * 1000;
/** Reads, when a server that is behind the others answers. */
const READS_MOST = 20;

const membershipSchema = z.object({
  t: z.iso.datetime(),
  generation: z.int().min(0),
  because: z.string(),
  members: z.array(z.object({ worker: z.string(), rank: z.int().min(0), host: z.string() })),
});
export type Membership = z.infer<typeof membershipSchema>;

const claimSchema = z.object({ host: z.string(), pid: z.int() });
const leaseSchema = claimSchema.extend({
  term: z.int().min(1),
  over: z.enum(['done', 'stopped', 'failed']).nullable(),
});

export interface KeptRecord {
  /** Of the present run: from the last fresh start under this name on. */
  readonly journal: readonly JournalRecord[];
  /** The same as they were written. */
  readonly lines: readonly string[];
  /** The term of the coordinator that made that fresh start; 0: not known. */
  readonly startTerm: number;
  readonly membership: Membership | null;
  /** The highest that was claimed; 0: none. */
  readonly term: number;
}

export interface RunBucket extends Replicas {
  readonly name: string;
  readonly store: KV;
}

export function bucketOf(run: string): string {
  return `lockstep-${subjectOf(run)}`;
}

/** Opens or makes it. Throws what JetStream says, or E_NATS_REFUSED. */
export async function openRunBucket(nats: Nats, run: string, replicas: number | null): Promise<RunBucket> {
  const name = bucketOf(run);
  const kvm = new Kvm(nats.connection);
  const limits = { history: 1, max_bytes: BUCKET_BYTES, ttl: KEPT_MS, description: `Lockstep's record of ${run}` };
  let store: KV | null = null;
  const where = await replicated(nats, `KV_${name}`, replicas, async (count) => {
    store = await kvm.create(name, { ...limits, replicas: count });
  });
  return { name, store: store ?? (await kvm.open(name)), ...where };
}

/** Opens it where it is there; null: nobody has made it. */
export async function findRunBucket(nats: Nats, run: string): Promise<{ name: string; store: KV } | null> {
  const name = bucketOf(run);
  try {
    const manager = await patiently(() => jetstreamManager(nats.connection));
    await patiently(() => manager.streams.info(`KV_${name}`));
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamNotFound) return null;
    throw error;
  }
  return { name, store: await new Kvm(nats.connection).open(name) };
}

/** True when a write was refused because something else is there. */
export function isConflict(error: unknown): boolean {
  const { StreamWrongLastSequence: known, StreamWrongLastSequenceUnknown: unknown } = JetStreamApiCodes;
  return error instanceof JetStreamApiError && (error.code === known || error.code === unknown);
}

/** An entry as it was read, in any order. */
export interface KeptEntry {
  readonly key: string;
  readonly revision: number;
  readonly text: string;
}

/** Who has claimed the highest term. */
export function holderIn(entries: readonly KeptEntry[]): Successor | null {
  let holder: Successor | null = null;
  for (const { key, text } of entries) {
    const term = Number(/^term\.(\d+)$/.exec(key)?.[1] ?? 0);
    if (term <= (holder?.term ?? 0)) continue;
    const { host, pid } = claimSchema.safeParse(jsonOf(text)).data ?? { host: 'unknown', pid: 0 };
    holder = { term, host, pid };
  }
  return holder;
}

/** What a bucket's entries say, by their revisions. */
export function keptIn(entries: readonly KeptEntry[]): KeptRecord {
  let term = 0;
  let membership: Membership | null = null;
  const found: { readonly term: number; readonly text: string; readonly record: JournalRecord }[] = [];
  for (const { key, text } of entries.toSorted((a, b) => a.revision - b.revision)) {
    const [kind, of = '0'] = key.split('.');
    if (kind === 'term') term = Math.max(term, Number(of));
    if (kind === 'membership') membership = membershipSchema.safeParse(jsonOf(text)).data ?? null;
    if (kind !== 'journal' || Number(of) < term) continue;
    const record = journalRecordSchema.safeParse(jsonOf(text));
    if (record.success) found.push({ term: Number(of), text, record: record.data });
  }
  const start = found.findLastIndex(({ record }) => record.kind === 'run' && record.resumedFromStep === null);
  const present = found.slice(Math.max(0, start));
  return {
    journal: present.map(({ record }) => record),
    lines: present.map(({ text }) => text),
    startTerm: found[start]?.term ?? 0,
    membership,
    term,
  };
}

async function entriesOf(store: KV, key: string): Promise<KeptEntry[]> {
  const found: KeptEntry[] = [];
  for await (const entry of await store.history({ key })) {
    if (entry.operation === 'PUT') found.push({ key: entry.key, revision: entry.revision, text: entry.string() });
  }
  return found;
}

/** All that is kept, the claim of `term` included: where a server that has not got it yet answered, another is asked. */
export async function readBucket(store: KV, term = 0): Promise<KeptRecord> {
  for (let read = 1; ; read++) {
    const kept = keptIn(await patiently(() => entriesOf(store, '>')));
    if (kept.term >= term || read === READS_MOST) return kept;
  }
}

export async function holderOf(store: KV): Promise<Successor | null> {
  return holderIn(await patiently(() => entriesOf(store, 'term.*')));
}

/** Claims the next term above all that are known, and above `above`. Throws what JetStream says. */
export async function claimTerm(store: KV, me: Omit<Successor, 'term'>, above: number): Promise<number> {
  const value = JSON.stringify({ host: me.host, pid: me.pid });
  for (let term = 1 + Math.max(above, (await holderOf(store))?.term ?? 0); ; term++) {
    try {
      await patiently(() => store.create(`term.${term}`, value));
      return term;
    } catch (error) {
      // Somebody else was quicker; or it was this one, and the answer was lost: one more is no harm.
      if (!isConflict(error)) throw error;
    }
  }
}

/** The lease as it is now; null: there is none. */
export async function readLease(store: KV): Promise<SeenLease | null> {
  const entry = await store.get('lease');
  const lease = leaseSchema.safeParse(jsonOf(entry?.string() ?? ''));
  if (entry === null || !lease.success) return null;
  const { over, ...holder } = lease.data;
  return { revision: entry.revision, holder, over };
}

/** Writes it where `revision` is what is there (0: nothing); returns the new one. Rejects by a conflict (`isConflict`) otherwise. */
export async function writeLease(store: KV, lease: Omit<SeenLease, 'revision'>, revision: number): Promise<number> {
  const value = JSON.stringify({ ...lease.holder, over: lease.over });
  return revision === 0 ? store.create('lease', value) : store.update('lease', value, revision);
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
