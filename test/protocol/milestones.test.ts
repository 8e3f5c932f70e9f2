import { expect, it } from 'vitest';
import { isEvaluatedAfter, isKeptAfter } from '../../protocol/milestones.ts';

/** Three steps an epoch. */
const plan = { samples: 10, globalBatch: 4, microbatches: 2, seed: 1 };
const upTo = (last: number): number[] => Array.from({ length: last + 1 }, (_, step) => step);

it('weights are evaluated after each epoch, and after the last step wherever that is; not before the first', () => {
  expect(upTo(8).filter((step) => isEvaluatedAfter({ plan, steps: 8 }, step))).toEqual([3, 6, 8]);
});

it('the state is kept then, and each so many steps', () => {
  const kept = (checkpointEverySteps: number): number[] =>
    upTo(8).filter((step) => isKeptAfter({ plan, steps: 8, checkpointEverySteps }, step));
  expect(kept(0)).toEqual([3, 6, 8]);
  expect(kept(2)).toEqual([2, 3, 4, 6, 8]);
});
