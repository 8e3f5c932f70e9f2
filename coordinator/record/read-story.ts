// What a person wants to read of a run (`lockstep report`): its record's lines, what each step said, its closing report. What can't be
// read is passed over, and counted; whether the record holds together is verify's question, not this one's. Changes nothing.
//
// Memory: the journal, five numbers a step.

import { createReadStream, existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { LockstepError } from '../../protocol/errors.ts';
import { REPORT_SCHEMA_VERSION, type RunReport } from '../../protocol/report.ts';
import { JOURNAL } from '../core/history.ts';
import { METRICS_FILE, REPORT_FILE } from '../core/verify.ts';
import { journalRecordSchema, type JournalRecord } from './journal-schema.ts';
import { recordedRunIn } from './read-run.ts';
import { isOtherSchema, refuseOtherSchema } from './record-version.ts';
import { holderOf } from './run-lock.ts';

const number = z.number().nullable();
const stepSchema = z.object({
  t: z.iso.datetime(),
  step: z.int().min(1),
  samples: z.int().min(0),
  seconds: z.number(),
  loss: number,
  accuracy: number,
});

export interface StoryStep {
  readonly step: number;
  /** Unix time in milliseconds. */
  readonly at: number;
  readonly samples: number;
  readonly seconds: number;
  /** Null: not a finite number. */
  readonly loss: number | null;
  readonly accuracy: number | null;
}

export interface RunStory {
  readonly directory: string;
  readonly records: readonly JournalRecord[];
  /** Ascending; of one that was done twice the last. */
  readonly steps: readonly StoryStep[];
  /** Null while the run is under way, or when nobody could write one. */
  readonly report: RunReport | null;
  readonly isUnderWay: boolean;
  /** Lines that could not be read. */
  readonly unread: number;
}

/** Reads the run in a directory. Throws E_RUN_NOT_FOUND where there is none, E_RECORD_DAMAGED for a report that is none, E_RECORD_VERSION. */
export async function readStory(directory: string): Promise<RunStory> {
  const path = recordedRunIn(directory);
  const isUnderWay = holderOf(path) !== null;
  const records: JournalRecord[] = [];
  const steps = new Map<number, StoryStep>();
  const unread =
    (await eachLine(join(path, JOURNAL), journalRecordSchema, (record) => records.push(record))) +
    (await eachLine(join(path, METRICS_FILE), stepSchema, ({ t, ...line }) =>
      steps.set(line.step, { ...line, at: Date.parse(t) }),
    ));
  return {
    directory: path,
    records,
    steps: [...steps.values()].toSorted((a, b) => a.step - b.step),
    report: isUnderWay ? null : await readReport(join(path, REPORT_FILE)),
    isUnderWay,
    unread,
  };
}

/** Hands on each line of a file that fits `schema`; returns how many did not. Throws E_RECORD_VERSION. */
async function eachLine<T>(path: string, schema: z.ZodType<T>, take: (value: T) => void): Promise<number> {
  if (!existsSync(path)) return 0;
  let unread = 0;
  for await (const line of createInterface({ input: createReadStream(path) })) {
    try {
      take(schema.parse(JSON.parse(line)));
    } catch (error) {
      if (isOtherSchema(error)) throw error;
      unread++;
    }
  }
  return unread;
}

async function readReport(path: string): Promise<RunReport | null> {
  if (!existsSync(path)) return null;
  const text = await readFile(path, 'utf8');
  const damaged = (because: string): LockstepError =>
    new LockstepError('E_RECORD_DAMAGED', `${path} is not a report: ${because}`, {
      remedy: 'Remove it: what the journal and the metrics say is shown without it.',
    });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw damaged('it is not JSON');
  }
  refuseOtherSchema(path, value, REPORT_SCHEMA_VERSION);
  const schema = typeof value === 'object' && value !== null && 'schema' in value ? value.schema : null;
  if (schema !== REPORT_SCHEMA_VERSION) throw damaged(`its schema is ${String(schema)}, not ${REPORT_SCHEMA_VERSION}`);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what this version writes under this schema; the page shows it as text
  return value as RunReport;
}
