// Which microbatches are computed a second time, and by whom: a function of the seed, the step and the microbatch, so that every rank
// knows it without asking, and a run audits the same ones whatever happens to its members.

import { randomStream, RandomUse } from './random.ts';

/** Whether `microbatch` of the step after `step` steps is audited where that share of all is: 0 none, 1 each. */
export function isAudited(seed: number, rate: number, step: number, microbatch: number): boolean {
  return rate > 0 && randomStream(seed, RandomUse.audit, step, microbatch).uniform() < rate;
}

/** The rank whose microbatches `rank` audits: the one before it. With one rank there is nobody: null. */
export function auditedRank(rank: number, worldSize: number): number | null {
  return worldSize < 2 ? null : (rank + worldSize - 1) % worldSize;
}
