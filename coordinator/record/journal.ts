// journal.jsonl: the record of a run, one JSON object a line (journal-schema.ts), append-only, fsynced. Generations, epochs and
// checkpoints with their digests, how it ended. Records that come while a sync is under way go to disk together with the next.
//
// A crash can tear the last line: it is cut off when the journal is opened again, and that is said. What can't be written (a full
// disk) waits and goes with the next record (retried-lines.ts). Damage anywhere else is never mended in silence.

import { existsSync } from 'node:fs';
import { open, readFile, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { LockstepError } from '../../protocol/errors.ts';
import type { JobChange, RunReport } from '../../protocol/report.ts';
import type { CommitsEntry } from '../core/commit-log.ts';
import type { RunConfig } from '../../protocol/run-config.ts';
import type { JournalEntry } from '../core/effects.ts';
import { replaceFile, syncDirectory } from './atomic.ts';
import { RetriedLines, type WriteObserver } from './retried-lines.ts';
import { isOtherSchema } from './record-version.ts';
import { journalRecordSchema, type JOURNAL_SCHEMA, type JournalRecord, type RunRecord } from './journal-schema.ts';

const NEWLINE = 0x0a;

/** What may be appended: the core's entries and the coordinator's own, with the time. */
export type JournalInput = { readonly t: string } & (
  | JournalEntry
  | CommitsEntry
  | {
      readonly kind: 'run';
      readonly schema?: typeof JOURNAL_SCHEMA | undefined;
      readonly lockstep: string;
      readonly config: unknown;
      readonly resumedFromStep: number | null;
      readonly jobChangedFrom?: string | null | undefined;
      readonly restoredFrom?: string | undefined;
      readonly nats?: RunReport['nats'] | undefined;
    }
);

export interface Journal {
  /** Resolves when the record is on disk; rejects when it could not be written yet: no part of it is there, and it waits for the next try. */
  append(record: JournalInput): Promise<void>;
  /** A last try with what waits; rejects when that could not be written. */
  close(): Promise<void>;
  /** Ends it as it is: another coordinator has the run. */
  abandon(): Promise<void>;
}

/** Bytes up to which a journal is whole: all but a torn last line (without its end, or not JSON). */
function wholeBytes(bytes: Buffer): number {
  const end = bytes.lastIndexOf(NEWLINE) + 1;
  if (end !== bytes.length || end === 0) return end;
  const start = bytes.lastIndexOf(NEWLINE, end - 2) + 1;
  try {
    JSON.parse(bytes.toString('utf8', start, end));
    return end;
  } catch {
    return start;
  }
}

/**
 * Opens it for appending; `warn` is told of a torn last line, `observe` of every write. `anew`: in a file of its own, because an older
 * coordinator that has the present one open may wake.
 */
export async function openJournal(
  directory: string,
  warn: (message: string) => void,
  options: { readonly observe?: WriteObserver; readonly anew?: boolean } = {},
): Promise<Journal> {
  const path = join(directory, 'journal.jsonl');
  let durableBytes = 0;
  if (existsSync(path)) {
    const bytes = await readFile(path);
    durableBytes = wholeBytes(bytes);
    if (durableBytes < bytes.length) {
      warn(
        `journal.jsonl ended within a record (a crash while writing): its last ${bytes.length - durableBytes} bytes are cut off`,
      );
      await truncate(path, durableBytes);
    }
  }
  if (options.anew === true && existsSync(path)) await replaceFile(path, await readFile(path));
  const file = await open(path, 'a');
  await file.sync();
  await syncDirectory(directory);
  const lines = new RetriedLines(file, durableBytes, options.observe ?? (() => {}));
  let last: Promise<void> = Promise.resolve();
  let next: Promise<void> | null = null;

  const write = async (): Promise<void> => {
    next = null;
    await lines.write(true);
  };
  const settled = (): Promise<void> => last.catch(() => {});

  return {
    append: (record) => {
      lines.add(`${JSON.stringify(record)}\n`);
      if (next === null) {
        next = settled().then(write);
        last = next;
      }
      return next;
    },
    close: async () => {
      await settled();
      await lines.close();
    },
    abandon: async () => {
      await settled();
      await lines.abandon();
    },
  };
}

/**
 * The records that can be read, others passed over: for a run that goes on from its checkpoints, whatever became of the journal. Throws
 * E_RECORD_VERSION where it is another version's.
 */
export async function wholeRecords(directory: string): Promise<JournalRecord[]> {
  const path = join(directory, 'journal.jsonl');
  if (!existsSync(path)) return [];
  return (await readFile(path, 'utf8')).split('\n').flatMap((line) => {
    try {
      return [journalRecordSchema.parse(JSON.parse(line))];
    } catch (error) {
      if (isOtherSchema(error)) throw error;
      return [];
    }
  });
}

/** The highest number of a generation; 0 when there was none. */
export function lastGenerationIn(records: readonly JournalRecord[]): number {
  return records.reduce((last, record) => ('generation' in record ? Math.max(last, record.generation) : last), 0);
}

/** The number of the first name that no worker of the records has had. */
export function firstNameAfter(records: readonly JournalRecord[]): number {
  const names = records.flatMap((record) => (record.kind === 'generation' ? record.members : []));
  return names.reduce((next, name) => Math.max(next, Number(/^w(\d+)$/.exec(name)?.[1] ?? -1) + 1), 0);
}

/** The configuration that a run had last; null where the journal does not say. */
export async function configOf(directory: string): Promise<RunConfig | null> {
  const records = await wholeRecords(directory);
  return records.findLast((record) => record.kind === 'run')?.config ?? null;
}

/** The changes of the job on the way to the records' end: those that a resumed run went back before are none. */
export function jobChangesIn(records: readonly (JournalRecord | RunRecord)[]): JobChange[] {
  let changes: JobChange[] = [];
  for (const record of records) {
    if (record.kind !== 'run') continue;
    const { resumedFromStep: step, jobChangedFrom: from = null, config } = record;
    changes = changes.filter((change) => change.step < (step ?? 0));
    if (step !== null && from !== null) changes.push({ step, from, to: config.job.sha256 });
  }
  return changes;
}

/** The records of a journal, a torn last one left out. Throws E_CHECKPOINT_CORRUPT naming the line that is damaged, or E_RECORD_VERSION. */
export async function readJournal(directory: string): Promise<JournalRecord[]> {
  const path = join(directory, 'journal.jsonl');
  const bytes = await readFile(path);
  const lines = bytes.toString('utf8', 0, wholeBytes(bytes)).split('\n').slice(0, -1);
  return lines.map((line, i) => {
    try {
      return journalRecordSchema.parse(JSON.parse(line));
    } catch (cause) {
      if (isOtherSchema(cause)) throw cause;
      throw new LockstepError('E_CHECKPOINT_CORRUPT', `${path} is damaged at line ${i + 1}`, {
        remedy: 'The checkpoints are whole in themselves: --resume goes on from the last one.',
        cause,
      });
    }
  });
}
