// Counts every sample of every epoch, by what the record says was computed: for each committed step, the microbatches of each member
// of its generation, and in them the samples of the batch plan. One bit a sample and one shuffle an epoch: 50,000 samples, some 10 ms.

import {
  batchRange,
  epochPermutation,
  microbatchRange,
  placeOfStep,
  stepsPerEpoch,
  type BatchPlan,
} from '../../protocol/batch-plan.ts';
import { evenShares } from '../../protocol/shares.ts';
import { findingsIn, type Finding } from './finding.ts';
import { JOURNAL, type Commit, type History } from './history.ts';

export interface EpochCount {
  /** From 1. */
  readonly epoch: number;
  readonly steps: number;
  /** Different samples that were used. */
  readonly samples: number;
  readonly isWhole: boolean;
}

export interface WorkerCount {
  readonly worker: string;
  readonly microbatches: number;
  readonly samples: number;
}

/** Samples of a global batch: what step `step` (from 1) must have used. */
export function samplesOfStep(plan: BatchPlan, step: number): number {
  const { start, end } = batchRange(plan, placeOfStep(plan, step - 1).batch);
  return end - start;
}

export function countSamples(history: History): { epochs: EpochCount[]; workers: WorkerCount[]; findings: Finding[] } {
  const { plan } = history;
  const findings: Finding[] = [];
  const workers = new Map<string, { microbatches: number; samples: number }>();
  const epochs: EpochCount[] = [];
  if (plan === null) return { epochs, workers: [], findings };
  const byEpoch = new Map<number, Commit[]>();
  for (const commit of history.commits) {
    const { epoch } = placeOfStep(plan, commit.step - 1);
    const those = byEpoch.get(epoch);
    if (those === undefined) byEpoch.set(epoch, [commit]);
    else those.push(commit);
  }
  const report = findingsIn(JOURNAL, findings);
  for (const [epoch, commits] of [...byEpoch].toSorted(([a], [b]) => a - b)) {
    const order = epochPermutation(plan, epoch);
    const used = new Uint8Array(plan.samples);
    let distinct = 0;
    for (const { step, generation, line } of commits) {
      // Whoever it was has used all of the batch, or there would be no step.
      if (generation === null) {
        const { start, end } = batchRange(plan, placeOfStep(plan, step - 1).batch);
        for (let position = start; position < end; position++) {
          const sample = order[position] ?? 0;
          distinct += 1 - (used[sample] ?? 0);
          used[sample] = 1;
        }
        continue;
      }
      const { members, ...how } = history.generations.get(generation) ?? { members: [], shares: null };
      const shares = how.shares ?? evenShares(plan.microbatches, members.length);
      let again = 0;
      let count = 0;
      for (const [rank, worker] of members.entries()) {
        const sum = workers.get(worker) ?? { microbatches: 0, samples: 0 };
        for (const m of shares[rank] ?? []) {
          const { start, end } = microbatchRange(plan, placeOfStep(plan, step - 1).batch, m);
          sum.microbatches++;
          sum.samples += end - start;
          for (let position = start; position < end; position++) {
            const sample = order[position] ?? 0;
            if (used[sample] === 1) again++;
            else distinct++;
            used[sample] = 1;
            count++;
          }
        }
        workers.set(worker, sum);
      }
      if (again > 0)
        report('E_RECORD_SAMPLES', line, `${again} samples of epoch ${epoch + 1} are used again by step ${step}`);
      const due = samplesOfStep(plan, step);
      if (count !== due)
        report(
          'E_RECORD_SAMPLES',
          line,
          `step ${step} has ${count} samples by the members of generation ${generation}, not ${due}`,
        );
    }
    const last = commits.at(-1);
    const isWhole = history.steps >= (epoch + 1) * stepsPerEpoch(plan);
    if (isWhole && last !== undefined && distinct !== plan.samples)
      report('E_RECORD_SAMPLES', last.line, `epoch ${epoch + 1} has used ${distinct} of its ${plan.samples} samples`);
    epochs.push({ epoch: epoch + 1, steps: commits.length, samples: distinct, isWhole });
  }
  return {
    epochs,
    workers: [...workers].map(([worker, count]) => ({ worker, ...count })),
    findings,
  };
}
