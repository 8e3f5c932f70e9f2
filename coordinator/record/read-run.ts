// Reads all that a run has left, for its verification (core/verify.ts): every line, every checkpoint with its hashes, the exported weights.
// What can't be read is a finding that names file and line. Nothing is changed, and nobody is kept from writing: a run that is
// under way is read as far as it is. Memory: the journal and the metrics, and one checkpoint at a time.

import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import { LockstepError } from '../../protocol/errors.ts';
import { REPORT_SCHEMA_VERSION } from '../../protocol/report.ts';
import { findingsIn, type Finding } from '../core/finding.ts';
import { JOURNAL, type JournalLine } from '../core/history.ts';
import { METRICS_FILE, MODEL_FILE, REPORT_FILE, type MetricsLine, type RecordedRun } from '../core/verify.ts';
import { checkpointsOf, checkpointSteps } from './checkpoint-directory.ts';
import { readCheckpoint } from './checkpoint.ts';
import { journalRecordSchema } from './journal-schema.ts';
import { isOtherSchema, refuseOtherSchema } from './record-version.ts';
import { holderOf } from './run-lock.ts';

const count = z.int().min(0);

const number = z.number().nullable();
const metricsSchema = z.object({ step: count, samples: count, loss: number, accuracy: number, gradientNorm: number });

const reportSchema = z.object({
  state: z.string(),
  steps: count,
  digest: z.string().nullable(),
  digestStep: count.nullable().optional(),
  finalLoss: z.number().nullable(),
  reproducible: z.boolean(),
});

const modelSchema = z.object({
  weightsManifest: z.array(
    // Never a path: a run directory may come from elsewhere.
    z.object({ paths: z.array(z.string().regex(/^[\w.-]+$/)) }),
  ),
});

/** The absolute path of a directory that holds a run. Throws E_RUN_NOT_FOUND where there is none. */
export function recordedRunIn(directory: string): string {
  const path = resolve(directory);
  if (existsSync(join(path, JOURNAL))) return path;
  throw new LockstepError('E_RUN_NOT_FOUND', `there is no run in ${path}: it has no ${JOURNAL}`, {
    remedy: 'Give the directory of a run: runs/<job>-<time>.',
  });
}

/** Reads the run in a directory. Throws E_RUN_NOT_FOUND where there is none, E_RECORD_VERSION where its journal is another version's. */
export async function readRun(directory: string): Promise<RecordedRun> {
  const path = recordedRunIn(directory);
  const findings: Finding[] = [];
  const notes: string[] = [];
  const isUnderWay = holderOf(path) !== null;
  // The journal first: what comes after it is at least as far.
  const journal = await lines(path, JOURNAL, journalRecordSchema, findings, notes);
  const metrics = existsSync(join(path, METRICS_FILE))
    ? await lines(path, METRICS_FILE, metricsSchema, findings, notes)
    : [];
  return {
    journal: journal.map(({ line, value }): JournalLine => ({ line, record: value })),
    metrics: metrics.map(({ line, value }): MetricsLine => ({ line, ...value })),
    checkpoints: await readCheckpoints(path, findings, notes),
    report: await readReport(path, findings),
    modelDigest: await readModel(path, findings),
    isUnderWay,
    findings,
    notes,
  };
}

/** The lines of a file that are what they should be. One that a crash has torn at the end is a note. */
async function lines<T>(
  directory: string,
  file: string,
  schema: z.ZodType<T>,
  findings: Finding[],
  notes: string[],
): Promise<{ line: number; value: T }[]> {
  const texts = (await readFile(join(directory, file), 'utf8')).split('\n');
  const torn = texts.pop() ?? '';
  if (torn !== '') notes.push(`${file} ends within a line, as a crash or a run that is under way leaves it`);
  const report = findingsIn(file, findings);
  return texts.flatMap((text, i) => {
    let because: string;
    try {
      const found = schema.safeParse(JSON.parse(text));
      if (found.success) return [{ line: i + 1, value: found.data }];
      const [issue] = found.error.issues;
      because = `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'unknown'}`;
    } catch (error) {
      if (isOtherSchema(error)) throw error;
      because = 'it is not JSON';
      if (i === texts.length - 1) {
        notes.push(`${file} ends in a line that a crash has torn`);
        return [];
      }
    }
    report('E_RECORD_DAMAGED', i + 1, `the line cannot be read (${because})`);
    return [];
  });
}

async function readCheckpoints(
  directory: string,
  findings: Finding[],
  notes: string[],
): Promise<RecordedRun['checkpoints']> {
  const parent = checkpointsOf(directory);
  for (const name of existsSync(parent) ? readdirSync(parent) : []) {
    if (name.endsWith('.damaged')) notes.push(`checkpoints/${name} was found damaged when the run was resumed`);
  }
  const whole: { step: number; digest: string; file: string }[] = [];
  for (const step of checkpointSteps(directory)) {
    const file = `checkpoints/step-${step}`;
    const report = findingsIn(file, findings);
    try {
      const checkpoint = await readCheckpoint(join(directory, file));
      if (checkpoint.step === step) whole.push({ step, digest: checkpoint.digest, file });
      else report('E_CHECKPOINT_CORRUPT', null, `checkpoint.json is of step ${checkpoint.step}`);
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      // A run that is under way removes the oldest while they are read.
      if (!existsSync(join(directory, file))) continue;
      report(isOtherSchema(error) ? 'E_RECORD_VERSION' : 'E_CHECKPOINT_CORRUPT', null, error.message);
    }
  }
  return whole;
}

async function readReport(directory: string, findings: Finding[]): Promise<RecordedRun['report']> {
  const path = join(directory, REPORT_FILE);
  if (!existsSync(path)) return null;
  const report = findingsIn(REPORT_FILE, findings);
  try {
    const value: unknown = JSON.parse(await readFile(path, 'utf8'));
    refuseOtherSchema('the report', value, REPORT_SCHEMA_VERSION);
    return reportSchema.parse(value);
  } catch (error) {
    if (isOtherSchema(error)) report('E_RECORD_VERSION', null, error.message);
    else report('E_RECORD_DAMAGED', null, 'it is not a report');
    return null;
  }
}

/** SHA-256 of the exported weights, shard after shard: the same bytes as the flat vector's. */
async function readModel(directory: string, findings: Finding[]): Promise<string | null> {
  const path = join(directory, MODEL_FILE);
  if (!existsSync(path)) return null;
  try {
    const { weightsManifest } = modelSchema.parse(JSON.parse(await readFile(path, 'utf8')));
    const hash = createHash('sha256');
    for (const shard of weightsManifest.flatMap(({ paths }) => paths))
      await pipeline(createReadStream(join(directory, 'model', shard)), hash, { end: false });
    return hash.digest('hex');
  } catch (error) {
    const because = error instanceof Error ? (error.message.split('\n', 1)[0] ?? '') : String(error);
    findingsIn(MODEL_FILE, findings)('E_RECORD_DAMAGED', null, `the model cannot be read: ${because}`);
    return null;
  }
}
