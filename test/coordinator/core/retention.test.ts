// Which checkpoints stay: the rule, on numbers.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bestCheckpoint, checkpointsToRemove, type RetainedCheckpoint } from '../../../coordinator/core/retention.ts';

const at = (step: number, testAccuracy: number | null = null, testLoss: number | null = null): RetainedCheckpoint => ({
  step,
  score: testAccuracy === null && testLoss === null ? null : { testAccuracy, testLoss },
});

describe('the best checkpoint', () => {
  it.each<[string, RetainedCheckpoint[], number | null]>([
    ['has the highest test accuracy, whatever the loss', [at(3, 0.5, 2), at(6, 0.75, 3), at(9, 0.625, 1)], 6],
    ['of equal accuracy has the lower loss', [at(3, 0.5, 1), at(6, 0.5, 2)], 3],
    ['of equals is the newer', [at(3, 0.5, 2), at(6, 0.5, 2), at(9, 0.25, 1)], 6],
    ['without accuracies has the lowest loss', [at(3, null, 2), at(6, null, 1), at(9, null, 3)], 6],
    ['is none that was not evaluated', [at(3, 0.125, 9), at(4), at(6)], 3],
    ['is none whose loss and accuracy are not numbers', [at(3, Number.NaN, Number.NaN), at(6, null, 5)], 6],
    ['is nobody where nothing was evaluated', [at(3), at(6)], null],
    ['does not depend on the order in which they are found', [at(9, 0.5, 2), at(3, 0.5, 2)], 9],
  ])('%s', (_, checkpoints, best) => {
    expect(bestCheckpoint(checkpoints)).toBe(best);
  });
});

describe('what goes', () => {
  it('is all but the newest N, by number', () => {
    expect(checkpointsToRemove([at(100), at(9), at(10), at(8)], 2)).toEqual([8, 9]);
  });

  it('is not the best, also when it is the oldest', () => {
    expect(checkpointsToRemove([at(3, 0.75), at(6, 0.5), at(9, 0.5), at(12, 0.5)], 2)).toEqual([6]);
  });

  it('is all but N when the best is among the newest', () => {
    expect(checkpointsToRemove([at(3, 0.25), at(6, 0.5), at(9, 0.75), at(10)], 2)).toEqual([3, 6]);
  });

  it('a best that is surpassed goes with the others', () => {
    expect(checkpointsToRemove([at(3, 0.5), at(6, 0.25), at(9, 0.5), at(12, 0.5)], 1)).toEqual([3, 6, 9]);
  });

  it('is never the newest one, however few are to be kept', () => {
    expect(checkpointsToRemove([at(1), at(2)], 0)).toEqual([1]);
    expect(checkpointsToRemove([], 3)).toEqual([]);
  });

  it('leaves N or N + 1 of them, the newest always, after any history of evaluations', () => {
    const score = fc.option(fc.integer({ min: 0, max: 8 }), { nil: null });
    fc.assert(
      fc.property(fc.array(score, { maxLength: 30 }), fc.integer({ min: 1, max: 5 }), (accuracies, keep) => {
        let kept: RetainedCheckpoint[] = [];
        for (const [i, accuracy] of accuracies.entries()) {
          kept.push(at(i + 1, accuracy));
          const gone = checkpointsToRemove(kept, keep);
          kept = kept.filter(({ step }) => !gone.includes(step));
          const steps = kept.map(({ step }) => step);
          expect(steps.slice(-keep)).toEqual(
            Array.from({ length: Math.min(keep, i + 1) }, (__, k) => i + 1 - Math.min(keep, i + 1) + 1 + k),
          );
          expect(kept.length).toBeLessThanOrEqual(keep + 1);
          // Nothing that was ever evaluated is better than what is still there.
          const best = Math.max(-1, ...accuracies.slice(0, i + 1).map((a) => a ?? -1));
          expect(Math.max(-1, ...kept.map(({ score: s }) => s?.testAccuracy ?? -1))).toBe(best);
        }
      }),
    );
  });
});
