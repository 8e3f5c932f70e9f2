// Samples that are read and augmented on the thread that needs them: when they are needed, or while it waits for others.

import type { DataSet, JobDefinition } from '../../../jobs/contract.ts';
import { batchPlanOf, type RunConfig } from '../../../protocol/run-config.ts';
import type { Share } from '../../../protocol/shares.ts';
import { BatchLoader, type SampleSource } from '../batch-loader.ts';
import { WhileWaitingLoader } from '../while-waiting.ts';
import { alignedFloats } from './aligned.ts';

/** For any microbatch. */
export function plainLoader(config: RunConfig, job: JobDefinition, data: DataSet): BatchLoader {
  return new BatchLoader(sourceOf(config, job, data), alignedFloats);
}

/** For a rank with the microbatches `mine`. */
export function whileWaitingLoader(
  config: RunConfig,
  job: JobDefinition,
  data: DataSet,
  mine: Share,
): WhileWaitingLoader {
  return new WhileWaitingLoader(sourceOf(config, job, data), { mine, steps: config.steps, make: alignedFloats });
}

function sourceOf(config: RunConfig, job: JobDefinition, { train, inputShape }: DataSet): SampleSource {
  const augment = config.augment ? (job.augment ?? null) : null;
  return { plan: batchPlanOf(config), split: train, inputShape, augment };
}
