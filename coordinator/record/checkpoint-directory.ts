// The names under checkpoints/: `step-N` is a whole checkpoint, `step-N.damaged` one that failed its verification and is kept for
// whoever wants to look, and names that begin with a dot are work in progress, of no use to anybody once their writer is gone.

import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

export const checkpointsOf = (runDirectory: string): string => join(runDirectory, 'checkpoints');

/** Where a checkpoint is written before it is whole. */
export const asideName = (step: number): string => `.step-${step}.partial-${process.pid}`;
/** Where the checkpoint that another one of the same step takes the place of waits. */
export const replacedName = (step: number): string => `.step-${step}.replaced`;
const deletedName = (step: number): string => `.step-${step}.deleted`;

/** Steps of the checkpoints under a run directory, ascending. */
export function checkpointSteps(runDirectory: string): number[] {
  const parent = checkpointsOf(runDirectory);
  if (!existsSync(parent)) return [];
  return readdirSync(parent)
    .map((name) => /^step-(\d+)$/.exec(name)?.[1])
    .filter((step) => step !== undefined)
    .map(Number)
    .toSorted((a, b) => a - b);
}

/** Removes what killed writers left, and says what. Only for the directory's one holder. */
export function tidyCheckpoints(runDirectory: string): string[] {
  const parent = checkpointsOf(runDirectory);
  const notices: string[] = [];
  for (const name of existsSync(parent) ? readdirSync(parent) : []) {
    const [, step, what] = /^\.step-(\d+)\.(partial-\d+|replaced|deleted)$/.exec(name) ?? [];
    if (step === undefined || what === undefined) continue;
    const whole = join(parent, `step-${step}`);
    if (what === 'replaced' && !existsSync(whole)) {
      // Killed between the two renames of a replacement: the old one is still the truth.
      renameSync(join(parent, name), whole);
      continue;
    }
    rmSync(join(parent, name), { recursive: true, force: true });
    if (what.startsWith('partial')) notices.push(`an unfinished checkpoint of step ${step} is removed`);
  }
  return notices;
}

/** Takes its name away first, so that a kill in between leaves no half of it under that name. */
export async function removeCheckpoint(runDirectory: string, step: number): Promise<void> {
  const parent = checkpointsOf(runDirectory);
  const doomed = join(parent, deletedName(step));
  await rm(doomed, { recursive: true, force: true });
  await rename(join(parent, `step-${step}`), doomed);
  await rm(doomed, { recursive: true, force: true });
}

/** Gives a damaged checkpoint the name `step-N.damaged`: it no longer counts, and nothing of it is lost. */
export async function setAsideDamaged(runDirectory: string, step: number): Promise<void> {
  const from = join(checkpointsOf(runDirectory), `step-${step}`);
  await rm(`${from}.damaged`, { recursive: true, force: true });
  await rename(from, `${from}.damaged`);
}
