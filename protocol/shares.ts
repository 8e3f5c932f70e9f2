// Which microbatches of a step each rank computes. As a rule an even cut by rank (`evenShares`), which nobody needs to send. After a loss in
// a step that took long, the survivors keep theirs, computed or not, and the lost members' are shared out (`keptShares`): then nothing is
// computed twice. Bits do not depend on it. Pure.

import { rankMicrobatches } from './batch-plan.ts';

/** Microbatches of a rank, ascending. */
export type Share = readonly number[];
/** By rank: every microbatch in one of them. */
export type Shares = readonly Share[];

/** Seconds of reading and computing a step from which it is worth while to keep what is computed of it. */
export const KEPT_FROM_SECONDS = 0.1;

export function evenShares(microbatches: number, worldSize: number): Shares {
  return Array.from({ length: worldSize }, (_, rank) => {
    const { start, end } = rankMicrobatches(microbatches, worldSize, rank);
    return Array.from({ length: end - start }, (__, i) => start + i);
  });
}

/**
 * What each rank had stays its own (`before`, by rank; empty for a newcomer); the microbatches that nobody has go to who has fewest, to each
 * a run of neighbours, because what is whole in the tree of the sum travels as one.
 */
export function keptShares(microbatches: number, before: Shares): Shares {
  const owned = new Set(before.flat());
  const orphans = Array.from({ length: microbatches }, (_, m) => m).filter((m) => !owned.has(m));
  const sizes = before.map((share) => share.length);
  for (let given = 0; given < orphans.length; given++) {
    const least = sizes.indexOf(Math.min(...sizes));
    sizes[least] = (sizes[least] ?? 0) + 1;
  }
  let at = 0;
  return before.map((share, rank) => {
    const more = orphans.slice(at, at + (sizes[rank] ?? 0) - share.length);
    at += more.length;
    return [...share, ...more].toSorted((a, b) => a - b);
  });
}

/** Whether they are those of an even cut, whichever rank has which: then another cut would gain nothing. */
export function areEven(microbatches: number, shares: Shares): boolean {
  const known = new Set(evenShares(microbatches, shares.length).map(String));
  return shares.every((share) => known.has(String(share)));
}

/** Whether there is one for each rank, each microbatch is in one of them, and each of them ascends. */
export function areWhole(microbatches: number, worldSize: number, shares: Shares): boolean {
  const isAscending = shares.every((share) => share.every((m, i) => m > (share[i - 1] ?? -1)));
  const all = new Set(shares.flat());
  const count = shares.reduce((sum, share) => sum + share.length, 0);
  return (
    shares.length === worldSize &&
    isAscending &&
    count === microbatches &&
    all.size === microbatches &&
    Math.max(...all) < microbatches
  );
}
