// A second copy of the run's record, in a key-value bucket of the NATS server's JetStream (bucket.ts), where it outlives the coordinator's
// machine: the journal's records, who is in the present generation, and the lease that tells others that this coordinator lives. The
// record itself stays journal.jsonl: it is there without JetStream, and a write to it can't be lost to the network. While JetStream has
// no leader writes wait for one; one that fails for good is a warning, once. A shell.
//
// Where the machine is lost with its run directory, another one goes on from here (restore.ts).

import type { Successor } from '../core/fence.ts';
import { LEASE_EVERY_MS } from '../core/lease.ts';
import type { Outcome } from '../core/effects.ts';
import type { JournalInput } from '../record/journal.ts';
import { patiently } from '../../nats/patience.ts';
import {
  isConflict,
  readBucket,
  readLease,
  writeLease,
  type KeptRecord,
  type Membership,
  type RunBucket,
} from './bucket.ts';

export interface NatsRecord {
  readonly bucket: string;
  /** What was there on opening. */
  readonly before: KeptRecord;
  add(record: JournalInput): void;
  setMembership(membership: Membership): void;
  /** Who has taken the run from this coordinator, on another machine; null: nobody that it knows of. */
  successor(): Successor | null;
  /** Resolves when all that was given is there, or has failed. */
  settled(): Promise<void>;
  /** Says how the run has ended, and lets go of it. */
  release(outcome: Outcome): Promise<void>;
  /** Writes no lease any more. */
  close(): void;
}

/** Begins the record of the coordinator `self`, who has claimed its term there. */
export async function openNatsRecord(
  { name: bucket, store }: Pick<RunBucket, 'name' | 'store'>,
  self: Successor,
  warn: (message: string) => void,
): Promise<NatsRecord> {
  const before = await readBucket(store, self.term);
  let newest: Successor | null = null;
  let isOver = false;
  /** Of what this coordinator wrote last, or found; null: it is to be looked up. */
  let revision: number | null = null;

  const hold = async (over: Outcome | null): Promise<void> => {
    if (revision === null) {
      const found = await readLease(store);
      if (found !== null && found.holder.term > self.term) {
        newest = found.holder;
        return;
      }
      revision = found?.revision ?? 0;
    }
    try {
      revision = await writeLease(store, { holder: self, over }, revision);
    } catch (error) {
      // Somebody else's is there, or this one's whose answer was lost: the next look tells.
      revision = null;
      if (isConflict(error)) await hold(over);
      else throw error;
    }
  };
  await patiently(() => hold(null));
  let beat: Promise<void> | null = null;
  const beats = setInterval(() => {
    // One at a time, and none missed: silence is what others are to see.
    if (newest !== null) return;
    beat ??= hold(null)
      .catch(() => undefined)
      .then(() => {
        beat = null;
      });
  }, LEASE_EVERY_MS);
  beats.unref();

  let last = 0;
  let writes: Promise<unknown> = Promise.resolve();
  let hasFailed = false;
  const put = (write: () => Promise<unknown>): void => {
    writes = writes
      .then(async () => (hasFailed ? undefined : patiently(write, () => isOver)))
      .catch((error: unknown) => {
        hasFailed = true;
        const because = error instanceof Error ? error.message : String(error);
        warn(`the copy of the record in JetStream's bucket ${bucket} ends here: ${because}; journal.jsonl is whole`);
      });
  };
  /** Once: a write whose answer was lost is there already. */
  const create = async (key: string, text: string): Promise<void> => {
    try {
      await store.create(key, text);
    } catch (error) {
      if (!isConflict(error) || (await store.get(key))?.string() !== text) throw error;
    }
  };
  const close = (): void => {
    isOver = true;
    clearInterval(beats);
  };
  return {
    bucket,
    before,
    add: (entry) => {
      const text = JSON.stringify(entry);
      const key = `journal.${self.term}.${++last}`;
      put(() => (entry.kind === 'commits' ? store.put('commits', text) : create(key, text)));
    },
    setMembership: (membership) => put(() => store.put('membership', JSON.stringify(membership))),
    successor: () => newest,
    settled: async () => {
      await writes;
    },
    release: async (outcome) => {
      close();
      await writes;
      await beat;
      if (newest === null) await hold(outcome).catch(() => undefined);
    },
    close,
  };
}
