// journal.jsonl: the record of a run, one JSON object a line, append-only, fsynced. Generations, epochs, checkpoints with their
// digests, how it ended. Records that come close together are synced together.
//
// A crash can tear the last line: it is cut off when the journal is opened again, and that is said.

import { existsSync } from 'node:fs';
import { open, readFile, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import type { JournalEntry } from '../core/run.ts';

export type JournalRecord = { readonly t: string } & (
  | JournalEntry
  | { readonly kind: 'run'; readonly lockstep: string; readonly config: unknown; readonly resumedFromStep: number | null }
);

export interface Journal {
  /** Resolves when the record is on disk. */
  append(record: JournalRecord): Promise<void>;
  close(): Promise<void>;
}

export async function openJournal(directory: string, warn: (message: string) => void): Promise<Journal> {
  const path = join(directory, 'journal.jsonl');
  if (existsSync(path)) {
    const bytes = await readFile(path);
    const whole = bytes.lastIndexOf(0x0a) + 1;
    if (whole < bytes.length) {
      warn(`journal.jsonl ended within a line (a crash while writing): its last ${bytes.length - whole} bytes are cut off`);
      await truncate(path, whole);
    }
  }
  const file = await open(path, 'a');
  let pending: string[] = [];
  let flushing: Promise<void> | null = null;
  const flush = async (): Promise<void> => {
    // Those that arrive while a sync is under way go with the next one.
    await Promise.resolve();
    const lines = pending;
    pending = [];
    await file.appendFile(lines.join(''));
    await file.datasync();
  };
  return {
    append: async (record) => {
      pending.push(`${JSON.stringify(record)}\n`);
      if (flushing !== null) await flushing.catch(() => {});
      if (pending.length === 0) return;
      flushing ??= flush().finally(() => {
        flushing = null;
      });
      await flushing;
    },
    close: async () => {
      if (flushing !== null) await flushing.catch(() => {});
      if (pending.length > 0) await flush();
      await file.close();
    },
  };
}

/** The records of a journal, a torn last line left out. Throws SyntaxError on damage elsewhere. */
export async function readJournal(directory: string): Promise<JournalRecord[]> {
  const text = await readFile(join(directory, 'journal.jsonl'), 'utf8');
  const lines = text.split('\n');
  lines.pop();
  return lines.map((line) => JSON.parse(line) as JournalRecord);
}
