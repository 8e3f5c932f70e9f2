// Samples that are read and augmented when they are needed, on the thread that needs them.

import type { DataSet, JobDefinition } from '../../../jobs/contract.ts';
import { batchPlanOf, type RunConfig } from '../../../protocol/run-config.ts';
import { BatchLoader } from '../batch-loader.ts';
import { alignedFloats } from './aligned.ts';

export function plainLoader(config: RunConfig, job: JobDefinition, { train, inputShape }: DataSet): BatchLoader {
  const augment = config.augment ? (job.augment ?? null) : null;
  return new BatchLoader({ plan: batchPlanOf(config), split: train, inputShape, augment }, alignedFloats);
}
