// Checkpoints: everything that a run needs to go on to the same bits - weights, optimizer state, where gradients are compressed each
// microbatch's residual, step, configuration, progress.
// A checkpoint is a directory, written aside, fsynced and renamed, so that it is whole or not there; every file's SHA-256 and
// the weights' digest are in its checkpoint.json and verified on reading. Cost: the disk's own time; 100 MB take one pass each way.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { LockstepError } from '../../protocol/errors.ts';
import { isResidual, residualName } from '../../protocol/messages.ts';
import { batchPlanOf, runConfigSchema, type RunConfig } from '../../protocol/run-config.ts';
import { isEvaluatedAfter } from '../../protocol/milestones.ts';
import type { ProgressRecord } from '../core/progress.ts';
import type { TestScore } from '../core/retention.ts';
import type { ReplicaState } from '../core/state-assembly.ts';
import { syncDirectory, writeDurable } from './atomic.ts';
import { asideName, checkpointSteps, checkpointsOf, replacedName, setAsideDamaged } from './checkpoint-directory.ts';
import { readFloats, writeFloats } from './float-file.ts';
import { isOtherSchema, refuseOtherSchema } from './record-version.ts';

export const CHECKPOINT_SCHEMA = 1;

const count = z.int().min(0);
const sha256Text = z.string().regex(/^[0-9a-f]{64}$/);
/** JSON has no NaN or Infinity and writes null: a diverged run's checkpoint is still a checkpoint. */
const number = z.number().or(z.null().transform(() => Number.NaN));
const nullableNumber = z.number().nullable();

const layoutEntry = z.object({
  name: z.string(),
  shape: z.array(count),
  offset: count,
  length: count,
  trainable: z.boolean(),
});

const checkpointSchema = z.object({
  schema: z.literal(CHECKPOINT_SCHEMA),
  step: count,
  digest: sha256Text,
  config: runConfigSchema,
  layout: z.array(layoutEntry),
  progress: z.object({
    epochLossSum: number,
    epochCorrect: number,
    epochSamples: number,
    epochSeconds: number,
    byEpoch: z.array(
      z.object({
        epoch: count,
        loss: number,
        testLoss: nullableNumber,
        testAccuracy: nullableNumber,
        seconds: number,
        imagesPerSecond: number,
      }),
    ),
    lastLoss: nullableNumber,
    testLoss: nullableNumber,
    testAccuracy: nullableNumber,
  }),
  /** The weights first, then the optimizer's slots and the residuals. */
  vectors: z
    .array(
      z.object({
        name: z.string(),
        // Never a path: a checkpoint may come from elsewhere.
        file: z.string().regex(/^[a-z0-9-]+\.bin$/),
        bytes: count.multipleOf(4),
        sha256: sha256Text,
      }),
    )
    .min(1),
  topologySha256: sha256Text,
});

export interface Checkpoint {
  readonly step: number;
  readonly digest: string;
  readonly config: RunConfig;
  readonly layout: readonly z.infer<typeof layoutEntry>[];
  readonly progress: ProgressRecord;
  /** The weights first, then the optimizer's slots and the residuals. */
  readonly vectors: readonly { readonly name: string; readonly data: Float32Array }[];
  /** The model's topology, JSON text. */
  readonly topology: string;
}

export type WriteResult =
  | { readonly ok: true; readonly directory: string }
  | { readonly ok: false; readonly because: string };

const sha256 = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex');

/** Writes `checkpoints/step-N` under the run directory. A disk that fails is a result, not an exception. */
export async function writeCheckpoint(
  runDirectory: string,
  content: {
    readonly config: RunConfig;
    readonly state: ReplicaState;
    readonly progress: ProgressRecord;
    readonly layout: Checkpoint['layout'];
    readonly topology: string;
    /** Asked before it takes its place: false when the run directory has become another's. */
    readonly isOurs?: () => boolean;
  },
): Promise<WriteResult> {
  const { state } = content;
  const parent = checkpointsOf(runDirectory);
  const directory = join(parent, `step-${state.step}`);
  const aside = join(parent, asideName(state.step));
  try {
    await rm(aside, { recursive: true, force: true });
    const isNew = (await mkdir(parent, { recursive: true })) !== undefined;
    // A recursive mkdir would say ENOENT of a read-only disk.
    await mkdir(aside);
    const vectors = [];
    for (const [i, { name, data }] of state.vectors.entries()) {
      const file = i === 0 ? 'weights.bin' : isResidual(name) ? `${name.replace(':', '-')}.bin` : `slot-${i}.bin`;
      const written = await writeFloats(join(aside, file), data);
      if (i === 0 && written !== state.digest)
        throw new Error(`the weights given have the digest ${written}, not ${state.digest}`);
      vectors.push({ name, file, bytes: data.byteLength, sha256: written });
    }
    await writeDurable(join(aside, 'topology.json'), content.topology);
    const { config, progress, layout } = content;
    const { step, digest } = state;
    const manifest = {
      schema: CHECKPOINT_SCHEMA,
      step,
      digest,
      config,
      layout,
      progress,
      vectors,
      topologySha256: sha256(content.topology),
    };
    await writeDurable(join(aside, 'checkpoint.json'), `${JSON.stringify(manifest)}\n`);
    await syncDirectory(aside);
    const replaced = join(parent, replacedName(step));
    await rm(replaced, { recursive: true, force: true });
    if (content.isOurs?.() === false) throw new Error('another coordinator has the run');
    if (existsSync(directory)) await rename(directory, replaced);
    await rename(aside, directory);
    await syncDirectory(parent);
    if (isNew) await syncDirectory(runDirectory);
    await rm(replaced, { recursive: true, force: true });
    return { ok: true, directory };
  } catch (error) {
    await rm(aside, { recursive: true, force: true }).catch(() => {});
    return { ok: false, because: error instanceof Error ? error.message : String(error) };
  }
}

function corrupt(directory: string, what: string, cause?: unknown): never {
  throw new LockstepError('E_CHECKPOINT_CORRUPT', `the checkpoint ${directory} is damaged: ${what}`, { cause });
}

/** Reads and verifies a checkpoint. Throws E_CHECKPOINT_CORRUPT naming the file, or E_RECORD_VERSION. */
export async function readCheckpoint(directory: string): Promise<Checkpoint> {
  const read = async (name: string): Promise<Buffer> => {
    try {
      return await readFile(join(directory, name));
    } catch (cause) {
      return corrupt(
        directory,
        `${name} cannot be read (${cause instanceof Error ? cause.message : String(cause)})`,
        cause,
      );
    }
  };
  const manifestText = (await read('checkpoint.json')).toString('utf8');
  let manifest: z.infer<typeof checkpointSchema>;
  try {
    const value: unknown = JSON.parse(manifestText);
    refuseOtherSchema(`the checkpoint ${directory}`, value, CHECKPOINT_SCHEMA);
    manifest = checkpointSchema.parse(value);
  } catch (error) {
    if (isOtherSchema(error)) throw error;
    return corrupt(directory, `checkpoint.json is not one of schema ${CHECKPOINT_SCHEMA}`, error);
  }
  const vectors = [];
  for (const { name, file, bytes, sha256: expected } of manifest.vectors) {
    const found = await readFloats(join(directory, file), bytes);
    if ('because' in found) return corrupt(directory, `${file} ${found.because}`);
    if (found.sha256 !== expected) corrupt(directory, `${file} was altered (its SHA-256 differs)`);
    vectors.push({ name, data: found.data });
  }
  const topology = await read('topology.json');
  if (sha256(topology) !== manifest.topologySha256)
    corrupt(directory, 'topology.json was altered (its SHA-256 differs)');
  // The weights come first; their file's hash and the digest of the run's record are the same function of the same bytes.
  if (manifest.vectors[0]?.sha256 !== manifest.digest)
    corrupt(directory, 'checkpoint.json: the weights do not have its digest');
  const { step, digest, config, layout, progress } = manifest;
  const residuals = config.gradientCompression === 'none' ? 0 : config.microbatches;
  for (let m = 0; m < residuals; m++) {
    if (!vectors.some(({ name }) => name === residualName(m)))
      corrupt(directory, `checkpoint.json: ${residualName(m)} of a run in ${config.gradientCompression} is missing`);
  }
  return { step, digest, config, layout, progress, vectors, topology: topology.toString('utf8') };
}

/** A checkpoint's model without its weights, which lie in `weightsPath`. Throws where it can't be read. */
export async function readModel(directory: string): Promise<{
  readonly step: number;
  readonly digest: string;
  readonly layout: Checkpoint['layout'];
  readonly topology: string;
  readonly weightsPath: string;
}> {
  const manifest = checkpointSchema.parse(JSON.parse(await readFile(join(directory, 'checkpoint.json'), 'utf8')));
  const { step, digest, layout, vectors } = manifest;
  const topology = await readFile(join(directory, 'topology.json'), 'utf8');
  return { step, digest, layout, topology, weightsPath: join(directory, vectors[0]?.file ?? '') };
}

/** What the test set said of a checkpoint's weights; null where they were not evaluated, or its checkpoint.json can't be read. */
export async function scoreOf(runDirectory: string, step: number): Promise<TestScore | null> {
  const path = join(checkpointsOf(runDirectory), `step-${step}`, 'checkpoint.json');
  let manifest: z.infer<typeof checkpointSchema>;
  try {
    manifest = checkpointSchema.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch {
    return null;
  }
  const { config, progress } = manifest;
  // In mid-epoch its progress tells of the epoch before, which are other weights.
  const isEvaluated = isEvaluatedAfter({ plan: batchPlanOf(config), steps: config.steps }, manifest.step);
  return isEvaluated ? { testAccuracy: progress.testAccuracy, testLoss: progress.testLoss } : null;
}

/**
 * The newest checkpoint that is whole; newer ones that are damaged are named in `damaged`. With `setAside` those are renamed to
 * `step-N.damaged`, for the directory's holder only: nothing is lost, and they count no more when old ones are removed.
 * Throws E_NO_CHECKPOINT when there is none, E_RECORD_VERSION when the newest is of another version.
 */
export async function latestCheckpoint(
  runDirectory: string,
  options: { readonly setAside?: boolean } = {},
): Promise<{ checkpoint: Checkpoint; directory: string; damaged: string[] }> {
  const damaged: string[] = [];
  for (const step of checkpointSteps(runDirectory).toReversed()) {
    const directory = join(checkpointsOf(runDirectory), `step-${step}`);
    try {
      const checkpoint = await readCheckpoint(directory);
      if (checkpoint.step !== step) corrupt(directory, `checkpoint.json is of step ${checkpoint.step}`);
      return { checkpoint, directory, damaged };
    } catch (error) {
      if (!(error instanceof LockstepError) || isOtherSchema(error)) throw error;
      damaged.push(error.message);
      if (options.setAside === true) await setAsideDamaged(runDirectory, step);
    }
  }
  const why = damaged.length > 0 ? `: ${damaged.join('; ')}` : '';
  throw new LockstepError('E_NO_CHECKPOINT', `there is no whole checkpoint in ${runDirectory}${why}`, {
    remedy: 'Start the run anew, in another --run-dir.',
  });
}

/** The newest whole checkpoint of fewer than `step` steps; null when there is none. Damaged ones are passed over. */
export async function latestCheckpointBefore(runDirectory: string, step: number): Promise<Checkpoint | null> {
  for (const before of checkpointSteps(runDirectory).toReversed()) {
    if (before >= step) continue;
    try {
      const checkpoint = await readCheckpoint(join(checkpointsOf(runDirectory), `step-${before}`));
      if (checkpoint.step === before) return checkpoint;
    } catch (error) {
      if (!(error instanceof LockstepError) || isOtherSchema(error)) throw error;
    }
  }
  return null;
}
