// Checkpoints: everything that a run needs to go on to the same bits - weights, optimizer state, step, configuration, progress.
// A checkpoint is a directory, written aside, fsynced and renamed, so that it is whole or not there; every file's SHA-256 and
// the weights' digest are in its checkpoint.json and verified on reading.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { LockstepError } from '../../protocol/errors.ts';
import { runConfigSchema, type RunConfig } from '../../protocol/run-config.ts';
import type { ProgressRecord } from '../core/progress.ts';
import type { ReplicaState } from '../core/state-assembly.ts';
import { syncDirectory, writeDurable } from './atomic.ts';

export const CHECKPOINT_SCHEMA = 1;

const layoutEntry = z.object({
  name: z.string(),
  shape: z.array(z.int()),
  offset: z.int(),
  length: z.int(),
  trainable: z.boolean(),
});

const nullableNumber = z.number().nullable();

const checkpointSchema = z.object({
  schema: z.literal(CHECKPOINT_SCHEMA),
  step: z.int().min(0),
  digest: z.string(),
  config: runConfigSchema,
  layout: z.array(layoutEntry),
  progress: z.object({
    epochLossSum: z.number(),
    epochCorrect: z.number(),
    epochSamples: z.number(),
    epochSeconds: z.number(),
    byEpoch: z.array(
      z.object({
        epoch: z.int(),
        loss: z.number(),
        testLoss: nullableNumber,
        testAccuracy: nullableNumber,
        seconds: z.number(),
        imagesPerSecond: z.number(),
      }),
    ),
    lastLoss: nullableNumber,
    testLoss: nullableNumber,
    testAccuracy: nullableNumber,
  }),
  vectors: z.array(z.object({ name: z.string(), file: z.string(), bytes: z.int(), sha256: z.string() })),
  topologySha256: z.string(),
});

export interface Checkpoint {
  readonly step: number;
  readonly digest: string;
  readonly config: RunConfig;
  readonly layout: readonly z.infer<typeof layoutEntry>[];
  readonly progress: ProgressRecord;
  readonly vectors: readonly { readonly name: string; readonly data: Float32Array }[];
  /** The model's topology, JSON text. */
  readonly topology: string;
}

export type WriteResult = { readonly ok: true; readonly directory: string } | { readonly ok: false; readonly because: string };

function bytesOf(data: Float32Array): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

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
  },
): Promise<WriteResult> {
  const { state } = content;
  const parent = join(runDirectory, 'checkpoints');
  const directory = join(parent, `step-${state.step}`);
  const aside = join(parent, `.step-${state.step}.partial-${process.pid}`);
  try {
    await mkdir(aside, { recursive: true });
    const vectors = [];
    for (const [i, { name, data }] of state.vectors.entries()) {
      const file = i === 0 ? 'weights.bin' : `slot-${i}.bin`;
      await writeDurable(join(aside, file), bytesOf(data));
      vectors.push({ name, file, bytes: data.byteLength, sha256: sha256(bytesOf(data)) });
    }
    await writeDurable(join(aside, 'topology.json'), content.topology);
    const { config, progress, layout } = content;
    const { step, digest } = state;
    const manifest = { schema: CHECKPOINT_SCHEMA, step, digest, config, layout, progress, vectors, topologySha256: sha256(content.topology) };
    await writeDurable(join(aside, 'checkpoint.json'), `${JSON.stringify(manifest)}\n`);
    await syncDirectory(aside);
    await rm(directory, { recursive: true, force: true });
    await rename(aside, directory);
    await syncDirectory(parent);
    return { ok: true, directory };
  } catch (error) {
    await rm(aside, { recursive: true, force: true }).catch(() => {});
    return { ok: false, because: error instanceof Error ? error.message : String(error) };
  }
}

function corrupt(directory: string, what: string, cause?: unknown): never {
  throw new LockstepError('E_CHECKPOINT_CORRUPT', `the checkpoint ${directory} is damaged: ${what}`, { cause });
}

/** Reads and verifies a checkpoint. Throws E_CHECKPOINT_CORRUPT naming the file. */
export async function readCheckpoint(directory: string): Promise<Checkpoint> {
  const read = async (name: string): Promise<Buffer> => {
    try {
      return await readFile(join(directory, name));
    } catch (cause) {
      return corrupt(directory, `${name} cannot be read`, cause);
    }
  };
  let manifest: z.infer<typeof checkpointSchema>;
  try {
    manifest = checkpointSchema.parse(JSON.parse((await read('checkpoint.json')).toString('utf8')));
  } catch (error) {
    if (error instanceof LockstepError) throw error;
    return corrupt(directory, 'checkpoint.json is not one of schema 1', error);
  }
  const vectors = [];
  for (const { name, file, bytes, sha256: expected } of manifest.vectors) {
    const content = await read(file);
    if (content.byteLength !== bytes) corrupt(directory, `${file} has ${content.byteLength} bytes instead of ${bytes}`);
    if (sha256(content) !== expected) corrupt(directory, `${file} was altered (its SHA-256 differs)`);
    const data = new Float32Array(bytes / 4);
    new Uint8Array(data.buffer).set(content);
    vectors.push({ name, data });
  }
  const topology = await read('topology.json');
  if (sha256(topology) !== manifest.topologySha256) corrupt(directory, 'topology.json was altered');
  const weights = vectors[0];
  if (weights === undefined || sha256(bytesOf(weights.data)) !== manifest.digest) corrupt(directory, 'the weights do not have its digest');
  const { step, digest, config, layout, progress } = manifest;
  return { step, digest, config, layout, progress, vectors, topology: topology.toString('utf8') };
}

/** Steps of the checkpoints under a run directory, ascending. */
export function checkpointSteps(runDirectory: string): number[] {
  const parent = join(runDirectory, 'checkpoints');
  if (!existsSync(parent)) return [];
  return readdirSync(parent)
    .map((name) => /^step-(\d+)$/.exec(name)?.[1])
    .filter((step) => step !== undefined)
    .map(Number)
    .toSorted((a, b) => a - b);
}

/**
 * The newest checkpoint that is whole; damaged ones before it are named in `damaged` and left where they are.
 * Throws E_NO_CHECKPOINT when there is none.
 */
export async function latestCheckpoint(
  runDirectory: string,
): Promise<{ checkpoint: Checkpoint; directory: string; damaged: string[] }> {
  const damaged: string[] = [];
  for (const step of checkpointSteps(runDirectory).toReversed()) {
    const directory = join(runDirectory, 'checkpoints', `step-${step}`);
    try {
      return { checkpoint: await readCheckpoint(directory), directory, damaged };
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      damaged.push(error.message);
    }
  }
  const why = damaged.length > 0 ? `: ${damaged.join('; ')}` : '';
  throw new LockstepError('E_NO_CHECKPOINT', `there is no whole checkpoint in ${runDirectory}${why}`, {
    remedy: 'Start the run anew, in another --run-dir.',
  });
}

/** Removes all but the newest `keep` checkpoints, and what killed writers left. */
export async function pruneCheckpoints(runDirectory: string, keep: number): Promise<void> {
  const parent = join(runDirectory, 'checkpoints');
  for (const step of checkpointSteps(runDirectory).slice(0, -keep)) {
    await rm(join(parent, `step-${step}`), { recursive: true, force: true });
  }
  for (const name of existsSync(parent) ? readdirSync(parent) : []) {
    if (/^\.step-\d+\.partial-/.test(name)) await rm(join(parent, name), { recursive: true, force: true });
  }
}
