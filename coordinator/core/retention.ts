// Which checkpoints go when a new one is there: all but the newest N and the best. The best is that of the highest test accuracy, or
// where nothing has one of the lowest test loss; of equals the newer. One that was not evaluated, in mid-epoch, is never the best.

/** What the test set said of a checkpoint's own weights. */
export interface TestScore {
  readonly testAccuracy: number | null;
  readonly testLoss: number | null;
}

export interface RetainedCheckpoint {
  readonly step: number;
  /** Null where its weights were not evaluated, or it can't be read. */
  readonly score: TestScore | null;
}

/** Accuracy first, whatever the loss; a loss alone is below any accuracy. Null: there is nothing to compare. */
function rank(score: TestScore | null): readonly [number, number] | null {
  const known = (x: number | null): x is number => x !== null && !Number.isNaN(x);
  const { testAccuracy = null, testLoss = null } = score ?? {};
  if (!known(testAccuracy) && !known(testLoss)) return null;
  return [known(testAccuracy) ? testAccuracy : -Infinity, known(testLoss) ? -testLoss : -Infinity];
}

/** The step of the best; null where none was evaluated. */
export function bestCheckpoint(checkpoints: readonly RetainedCheckpoint[]): number | null {
  let best: { readonly step: number; readonly rank: readonly [number, number] } | null = null;
  for (const { step, score } of checkpoints.toSorted((a, b) => a.step - b.step)) {
    const its = rank(score);
    if (its === null) continue;
    const isAsGood = best === null || its[0] > best.rank[0] || (its[0] === best.rank[0] && its[1] >= best.rank[1]);
    if (isAsGood) best = { step, rank: its };
  }
  return best?.step ?? null;
}

/** Steps of the checkpoints to remove, ascending. `keep`: how many of the newest stay, one at least. */
export function checkpointsToRemove(checkpoints: readonly RetainedCheckpoint[], keep: number): number[] {
  const best = bestCheckpoint(checkpoints);
  const steps = checkpoints.map(({ step }) => step).toSorted((a, b) => a - b);
  return steps.slice(0, Math.max(0, steps.length - Math.max(1, keep))).filter((step) => step !== best);
}
