// The machine with the run directory is lost, or another one has led the run since: what the NATS server keeps of it (bucket.ts,
// checkpoint-store.ts) becomes a run directory, and a coordinator goes on from there. A shell.
//
// With a checkpoint in the object store it is as if the directory of that moment had been copied, and the records that came after it, but
// for the commits, which the workers tell again. Without one the record begins anew, as if nothing had been done yet: who was in, and what
// may not be used again (numbers of generations, names, the term), is in it, and a state comes from the workers. What only the lost disk
// had and no living worker remembers (worker/rejoin.ts keeps 20,000 steps) is done and counted, and on no record.

import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile } from '../record/atomic.ts';
import type { JournalRecord } from '../record/journal-schema.ts';
import { highestTermIn } from '../record/term.ts';
import { readBucket, type KeptRecord } from './bucket.ts';
import { openCheckpointStore } from './checkpoint-store.ts';
import type { NatsSession } from './session.ts';

/** What of a run directory belongs to the run as an older coordinator knew it. */
const OUTDATED = ['journal.jsonl', 'metrics.jsonl', 'counters.json', 'report.json', 'checkpoints', 'model'];

export interface RestoredRun {
  readonly bucket: string;
  /** That this coordinator has claimed for it. */
  readonly term: number;
  /** For a person to read. */
  readonly notices: readonly string[];
}

/** True where another coordinator has led the run since the one that this directory is of. */
export async function isOutdated(session: NatsSession, directory: string): Promise<boolean> {
  if (session.bucket === null || !existsSync(directory)) return false;
  const { journal, term } = await readBucket(session.bucket.store);
  return journal.length > 0 && term > highestTermIn(directory);
}

/** Makes a run directory of what is kept; null: nothing is. Claims a term before it reads. Throws what the disk and JetStream say. */
export async function restoreRun(session: NatsSession, directory: string): Promise<RestoredRun | null> {
  const { bucket } = session;
  if (bucket === null || (await readBucket(bucket.store)).journal.length === 0) return null;
  const term = await session.claim(highestTermIn(directory));
  const kept = await readBucket(bucket.store, term);
  mkdirSync(directory, { recursive: true });
  const notices = await setAside(directory);
  const store = await openCheckpointStore(session, bucket.name);
  const found = await store.fetch(directory, kept.startTerm);
  const path = join(directory, 'journal.jsonl');
  const lines =
    found === null
      ? beginningOf(kept, bucket.name).map((record) => JSON.stringify(record))
      : withLater(existsSync(path) ? readFileSync(path, 'utf8') : '', kept, found.step);
  await replaceFile(path, lines.map((line) => `${line}\n`).join(''));
  if (found !== null) {
    notices.push(...found.notices, `the checkpoint after step ${found.step} comes from the object store`);
  }
  return { bucket: bucket.name, term, notices };
}

/** Out of the way, and nothing of it lost. */
async function setAside(directory: string): Promise<string[]> {
  const present = readdirSync(directory).filter((name) => OUTDATED.includes(name));
  if (present.length === 0) return [];
  const aside = join(directory, `before-term-${highestTermIn(directory)}`);
  mkdirSync(aside, { recursive: true });
  for (const name of present) await rename(join(directory, name), join(aside, name));
  return [`another coordinator has led the run since: what was in ${directory} is in ${aside}`];
}

/**
 * The whole lines of the journal that came with the checkpoint after `step`, and of the kept ones that it has not those that rest on no
 * later step: what was done after it the workers tell, or it is done again.
 */
export function withLater(journal: string, kept: Pick<KeptRecord, 'journal' | 'lines'>, step: number): string[] {
  const lines = journal.split('\n').slice(0, -1);
  const known = new Set(lines);
  const restsOnIt = (record: JournalRecord): boolean => {
    if (record.kind === 'generation' || record.kind === 'lost') return true;
    return (record.kind === 'epoch' || record.kind === 'checkpoint') && record.step <= step;
  };
  const later = kept.journal.flatMap((record, i) => (restsOnIt(record) ? (kept.lines[i] ?? []) : []));
  return [...lines, ...later.filter((line) => !known.has(line))];
}

/** A record that begins anew: as if nothing of it had been done yet, but with the generations that were, which the workers speak of. */
function beginningOf({ journal }: KeptRecord, bucket: string): JournalRecord[] {
  const run = journal.findLast((record) => record.kind === 'run');
  if (run === undefined) return [];
  const { jobChangedFrom: _, ...begun } = run;
  const who = journal.filter((record) => record.kind === 'generation' || record.kind === 'lost');
  return [{ ...begun, resumedFromStep: null, restoredFrom: bucket }, ...who];
}
