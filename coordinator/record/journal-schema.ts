// The records of journal.jsonl, by kind. What the core writes is core/run.ts's JournalEntry; here it is parsed when it is read
// back, and the types below hold the two to each other. Fields are added, never renamed; unknown ones are kept out of the way.

import { z } from 'zod';
import { runConfigSchema } from '../../protocol/run-config.ts';
import { refuseOtherSchema } from './record-version.ts';

/** In each `run` record, so in the first line. Raise it when an older version would misread a record. */
export const JOURNAL_SCHEMA = 1;

const count = z.int().min(0);
const digest = z.string().max(64);
const number = z.number().nullable();

const rootCause = z.object({
  who: z.string(),
  rank: number,
  host: z.string(),
  pid: number,
  exitCode: number,
  signal: z.string().nullable(),
  code: z.string().nullable(),
  message: z.string(),
  lastLines: z.array(z.string()),
  logFile: z.string().nullable(),
});

const at = { t: z.iso.datetime() };

const records = z.discriminatedUnion('kind', [
  /** A coordinator begins, or goes on with, the run. */
  z.object({
    ...at,
    kind: z.literal('run'),
    /** None: 1, as all journals were before it was written down. */
    schema: z.literal(JOURNAL_SCHEMA).optional(),
    lockstep: z.string(),
    config: runConfigSchema,
    resumedFromStep: count.nullable(),
    /** The job's SHA-256 up to that step, where `--allow-changed-job` let another one go on. */
    jobChangedFrom: z.string().max(64).nullable().optional(),
    /** The run directory was lost, and this record begins anew with what that bucket of a NATS server kept of it. */
    restoredFrom: z.string().optional(),
    /** Over NATS: the server, and the bucket that holds a copy of this record, if any. */
    nats: z.object({ server: z.string(), bucket: z.string().nullable() }).nullable().optional(),
  }),
  /** Who is in, in the order of their ranks; each step's microbatches are theirs evenly (rankMicrobatches of protocol/batch-plan.ts), or by `shares`. */
  z.object({
    ...at,
    kind: z.literal('generation'),
    generation: count,
    members: z.array(z.string()),
    shares: z.array(z.array(count)).optional(),
    because: z.string(),
  }),
  /** The members of that generation train on from the state after `step`. */
  z.object({
    ...at,
    kind: z.literal('begin'),
    generation: count,
    step: count,
    digest,
    /** What was done after that step may have had wrong bits, and is done again. */
    distrusted: z.boolean().optional(),
  }),
  z.object({ ...at, kind: z.literal('lost'), worker: z.string(), step: count, cause: rootCause }),
  /** Steps that were committed in a generation, both ends included; the digest of the weights after the last, where it was known. */
  z.object({
    ...at,
    kind: z.literal('commits'),
    generation: count,
    from: count,
    to: count,
    digest: digest.nullable(),
  }),
  z.object({
    ...at,
    kind: z.literal('epoch'),
    step: count,
    epoch: count,
    digest,
    loss: number,
    testLoss: number,
    testAccuracy: number,
  }),
  z.object({ ...at, kind: z.literal('checkpoint'), step: count, digest, directory: z.string() }),
  /** Steps that were done, both ends included; who did them was on no record yet when they and their coordinator were lost. */
  z.object({ ...at, kind: z.literal('unrecorded'), from: count, to: count }),
  z.object({ ...at, kind: z.literal('stopped'), step: count, because: z.string() }),
  z.object({ ...at, kind: z.literal('finished'), step: count, digest }),
  z.object({ ...at, kind: z.literal('failed'), step: count, cause: rootCause }),
]);

/** Throws E_RECORD_VERSION, beside what zod does, when a `run` record is of another schema: what follows it would be, too. */
export const journalRecordSchema = z.preprocess((value) => {
  if (typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'run')
    refuseOtherSchema('the journal', value, JOURNAL_SCHEMA);
  return value;
}, records);
export type JournalRecord = z.infer<typeof journalRecordSchema>;

/** The first record of a run, and of each resumed part of it. */
export type RunRecord = Omit<Extract<JournalRecord, { kind: 'run' }>, 't'>;
