import { describe, expect, it } from 'vitest';
import type { Augmentation, Split } from '../../../jobs/contract.ts';
import { BatchLoader } from '../../../worker/data/batch-loader.ts';
import { chunkCount, chunkRange, rankChunks } from '../../../worker/data/evaluation-chunks.ts';

/** Sample i is the single float i, its label i + 100. */
const split: Split = { size: 10, read: (index, into) => ((into[0] = index), index + 100) };
const plan = { samples: 10, globalBatch: 4, microbatches: 2, seed: 5 };

function samplesOfEpoch(loader: BatchLoader, epoch: number): number[] {
  const seen: number[] = [];
  for (let batch = 0; batch < 3; batch++) {
    for (let m = 0; m < 2; m++) seen.push(...loader.load({ epoch, batch, microbatch: m }).inputs);
  }
  return seen;
}

describe('BatchLoader', () => {
  it('uses every sample once an epoch, in another order each epoch', () => {
    const loader = new BatchLoader({ plan, split, inputShape: [1], augment: null });
    const [first, second] = [samplesOfEpoch(loader, 0), samplesOfEpoch(loader, 1)];
    expect(first.toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(second.toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(second).not.toEqual(first);
  });

  it('gives the same microbatch whatever was loaded before it', () => {
    const one = new BatchLoader({ plan, split, inputShape: [1], augment: null });
    samplesOfEpoch(one, 0);
    const other = new BatchLoader({ plan, split, inputShape: [1], augment: null });
    expect([...one.load({ epoch: 1, batch: 1, microbatch: 1 }).inputs]).toEqual([
      ...other.load({ epoch: 1, batch: 1, microbatch: 1 }).inputs,
    ]);
  });

  it('keeps each label with its sample', () => {
    const { inputs, labels } = new BatchLoader({ plan, split, inputShape: [1], augment: null }).load({
      epoch: 0,
      batch: 0,
      microbatch: 0,
    });
    expect([...labels]).toEqual([...inputs].map((x) => x + 100));
  });

  it('cuts the short last batch as even as can be', () => {
    const loader = new BatchLoader({ plan, split, inputShape: [1], augment: null });
    expect([0, 1].map((microbatch) => loader.load({ epoch: 0, batch: 2, microbatch }).size)).toEqual([1, 1]);
    const fourth = new BatchLoader({ plan: { ...plan, microbatches: 4 }, split, inputShape: [1], augment: null });
    expect([0, 1, 2, 3].map((m) => fourth.load({ epoch: 0, batch: 2, microbatch: m }).size)).toEqual([0, 1, 0, 1]);
  });

  it('augments a sample with chance that depends on the seed, the epoch and the sample alone', () => {
    const jitter: Augmentation = {
      name: 'jitter',
      apply: (from, to, _shape, random) => void (to[0] = (from[0] ?? 0) + random.uniform()),
    };
    const chance = (seed: number, microbatches: number, epoch: number): Map<number, number> => {
      const loader = new BatchLoader({
        plan: { ...plan, seed, microbatches },
        split,
        inputShape: [1],
        augment: jitter,
      });
      const found = new Map<number, number>();
      for (let batch = 0; batch < 3; batch++) {
        for (let m = 0; m < microbatches; m++)
          for (const x of loader.load({ epoch, batch, microbatch: m }).inputs) found.set(Math.floor(x), x);
      }
      return found;
    };
    const sorted = (found: Map<number, number>): number[] =>
      [...found].toSorted((a, b) => a[0] - b[0]).map(([, x]) => x);
    expect(sorted(chance(5, 4, 0))).toEqual(sorted(chance(5, 1, 0)));
    expect(sorted(chance(5, 4, 1))).not.toEqual(sorted(chance(5, 4, 0)));
    expect(sorted(chance(6, 4, 0))).not.toEqual(sorted(chance(5, 4, 0)));
  });
});

describe('evaluation chunks', () => {
  it('are 250 samples each, the last one shorter, shared out without a gap', () => {
    expect(chunkCount(10_000)).toBe(40);
    expect(chunkCount(0)).toBe(0);
    expect(chunkRange(600, 2)).toEqual({ start: 500, end: 600 });
    expect([0, 1, 2].map((rank) => rankChunks(10_000, 3, rank))).toEqual([
      { start: 0, end: 13 },
      { start: 13, end: 26 },
      { start: 26, end: 40 },
    ]);
  });
});
