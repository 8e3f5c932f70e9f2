// What a run is, resolved: the numbers that decide its bits and its length. Made once by the coordinator from the job and the
// command line, sent to every worker, written to the record. Two runs of equal RunConfig and job source give equal weights.

import { z } from 'zod';
import type { BatchPlan } from './batch-plan.ts';

/** How a worker finds the job on its own disk; code never travels. */
export const jobReferenceSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('built-in'),
    name: z.string().max(200),
    sha256: z.string().length(64),
  }),
  z.strictObject({
    kind: z.literal('file'),
    path: z.string().max(4096),
    sha256: z.string().length(64),
  }),
]);
export type JobReference = z.infer<typeof jobReferenceSchema>;

const count = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
/** As many as a machine has cores, at most. */
const MAX_DATA_THREADS = 256;
const positive = z.int().min(1).max(Number.MAX_SAFE_INTEGER);

export const precisionSchema = z.enum(['float32', 'mixed_bfloat16']);
/** How the engine runs the model: traced into one graph, or operation by operation. */
export const engineModeSchema = z.enum(['graph', 'eager']);
export const transportSchema = z.enum(['ws', 'nats']);
/** The form in which gradients travel, with error feedback; `none`: float32. */
export const gradientCompressionSchema = z.enum(['none', 'bf16', 'fp16']);
export type GradientCompression = z.infer<typeof gradientCompressionSchema>;

/** Cheap enough to leave on: bench/RESULTS.md, "Digests". */
export const DEFAULT_DIGEST_EVERY_STEPS = 100;

export const runConfigSchema = z.strictObject({
  /** Names the run in metrics, journals and handshakes: the last part of its directory. */
  run: z.string().min(1).max(200),
  job: jobReferenceSchema,
  jobName: z.string().min(1).max(100),
  seed: count,
  /** Samples per optimizer step over all workers. */
  globalBatch: positive,
  /** M: pieces of a global batch, a power of two up to 64. */
  microbatches: positive.max(64),
  epochs: positive,
  /** Total optimizer steps: epochs x steps per epoch, or `--max-steps` if fewer. */
  steps: positive,
  learningRate: z.number().positive(),
  augment: z.boolean(),
  /** Samples used of each split, the first N. */
  trainSamples: positive,
  testSamples: count,
  engine: z.string().min(1).max(40),
  /** Checkpoints of 0.1.0, which had no graphs, do not say. */
  engineMode: engineModeSchema.default('eager'),
  precision: precisionSchema,
  transport: transportSchema,
  /** Part of the result: other compression, other bits. Earlier checkpoints have none and do not say. */
  gradientCompression: gradientCompressionSchema.default('none'),
  /** The runs of the gradient that travel on their own; null: by its length and the number of workers. No part of the result. */
  bucketBytes: positive.nullable().default(null),
  /** Threads of each worker that prepare its data ahead; null: as many as there are cores for. No part of the result. */
  dataThreads: count.max(MAX_DATA_THREADS).nullable().default(null),
  /** A checkpoint after each such number of steps; the end of an epoch and of the run always make one. 0: only those. */
  checkpointEverySteps: count,
  /** After each such number of steps the members' weights are compared by digest. 0: at the end of an epoch only. No part of the result. */
  digestEverySteps: count.default(DEFAULT_DIGEST_EVERY_STEPS),
  /** The share of microbatches that a second worker computes again, to compare the bits. No part of the result. */
  auditRate: z.number().min(0).max(1).default(0),
});
export type RunConfig = z.infer<typeof runConfigSchema>;

/** Which samples the run's steps use. */
export function batchPlanOf({ trainSamples, globalBatch, microbatches, seed }: RunConfig): BatchPlan {
  return { samples: trainSamples, globalBatch, microbatches, seed };
}
