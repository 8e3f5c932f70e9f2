// The machine with the run directory is lost: what the NATS server keeps of the run (record.ts) becomes the beginning of another one, and a
// coordinator goes on from there. Who was in, and what may not be used again (numbers of generations, names, the term), is in it; what was
// done its workers tell, who hold the state: a checkpoint is made of that anew. A shell.
//
// Not in it, because it was on the lost disk alone: checkpoints (so without living workers the run is lost), and the steps that no living
// worker remembers (worker/rejoin.ts keeps 20,000): they are done and counted, and on no record.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Kvm } from '@nats-io/kv';
import { connectNats } from '../../nats/connect.ts';
import type { NatsServer } from '../../nats/server.ts';
import { replaceFile } from '../record/atomic.ts';
import type { JournalRecord } from '../record/journal-schema.ts';
import { bucketOf, readBucket } from './record.ts';

export interface KeptRun {
  readonly bucket: string;
  /** Of the last coordinator that the server knows of. */
  readonly term: number;
  readonly records: readonly JournalRecord[];
}

/** What the server keeps of a run; null: nothing. Throws E_NATS_UNREACHABLE or E_NATS_REFUSED. */
export async function keptRunOf(server: NatsServer, run: string): Promise<KeptRun | null> {
  const bucket = bucketOf(run);
  const nats = await connectNats(server, `lockstep ${run}: coordinator`);
  try {
    if (nats.connection.info?.jetstream !== true) return null;
    const kvm = new Kvm(nats.connection);
    for await (const { bucket: name } of kvm.list()) {
      if (name !== bucket) continue;
      const { journal, term } = (await readBucket(await kvm.open(bucket))).before;
      const records = beginningOf(journal, bucket);
      return records.length === 0 ? null : { bucket, term, records };
    }
    return null;
  } finally {
    await nats.close();
  }
}

/** Makes a run directory of it. Throws what the disk says. */
export async function restoreRunDirectory(directory: string, { records }: KeptRun): Promise<void> {
  mkdirSync(directory, { recursive: true });
  await replaceFile(join(directory, 'journal.jsonl'), records.map((record) => `${JSON.stringify(record)}\n`).join(''));
}

/** A record that begins anew: as if nothing of it had been done yet, but with the generations that were, which the workers speak of. */
function beginningOf(journal: readonly JournalRecord[], bucket: string): JournalRecord[] {
  const run = journal.findLast((record) => record.kind === 'run');
  if (run === undefined) return [];
  const { jobChangedFrom: _, ...begun } = run;
  const who = journal.filter((record) => record.kind === 'generation' || record.kind === 'lost');
  return [{ ...begun, resumedFromStep: null, restoredFrom: bucket }, ...who];
}
