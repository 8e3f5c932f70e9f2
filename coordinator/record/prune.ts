// Removes the checkpoints that are to go (core/retention.ts) from the disk. What a checkpoint scored is read from its own
// checkpoint.json each time, a few small files: so a resumed run knows the best of the whole run, too.

import type { RetainedCheckpoint } from '../core/retention.ts';
import { checkpointsToRemove } from '../core/retention.ts';
import { checkpointSteps, removeCheckpoint } from './checkpoint-directory.ts';
import { scoreOf } from './checkpoint.ts';

/** Keeps the newest `keep` checkpoints, one at least, and the best. */
export async function pruneCheckpoints(runDirectory: string, keep: number): Promise<void> {
  const checkpoints: RetainedCheckpoint[] = [];
  for (const step of checkpointSteps(runDirectory))
    checkpoints.push({ step, score: await scoreOf(runDirectory, step) });
  for (const step of checkpointsToRemove(checkpoints, keep)) await removeCheckpoint(runDirectory, step);
}
