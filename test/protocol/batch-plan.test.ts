import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  type BatchPlan,
  batchRange,
  epochPermutation,
  microbatchRange,
  pieceOf,
  placeOfStep,
  rankMicrobatches,
  stepsPerEpoch,
} from '../../protocol/batch-plan.ts';

const plans: fc.Arbitrary<BatchPlan> = fc.record({
  samples: fc.integer({ min: 1, max: 600 }),
  globalBatch: fc.integer({ min: 1, max: 100 }),
  microbatches: fc.constantFrom(1, 2, 4, 8, 16),
  seed: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
});

function positionsOfEpoch(plan: BatchPlan): number[] {
  const positions: number[] = [];
  for (let batch = 0; batch < stepsPerEpoch(plan); batch++) {
    for (let microbatch = 0; microbatch < plan.microbatches; microbatch++) {
      const { start, end } = microbatchRange(plan, batch, microbatch);
      for (let position = start; position < end; position++) positions.push(position);
    }
  }
  return positions;
}

test('an epoch uses every sample exactly once, the short last batch included', () => {
  fc.assert(
    fc.property(plans, fc.integer({ min: 0, max: 5 }), (plan, epoch) => {
      const order = epochPermutation(plan, epoch);
      const samples = positionsOfEpoch(plan).map((position) => order[position]);
      expect(samples.toSorted((a = 0, b = 0) => a - b)).toEqual(Array.from({ length: plan.samples }, (_, i) => i));
    }),
  );
});

test('batches are full except the last, and steps count on over epochs', () => {
  const plan = { samples: 50_000, globalBatch: 64, microbatches: 4, seed: 1 };
  expect(stepsPerEpoch(plan)).toBe(782);
  expect(batchRange(plan, 0)).toEqual({ start: 0, end: 64 });
  expect(batchRange(plan, 781)).toEqual({ start: 49_984, end: 50_000 });
  expect(placeOfStep(plan, 781)).toEqual({ epoch: 0, batch: 781 });
  expect(placeOfStep(plan, 782)).toEqual({ epoch: 1, batch: 0 });
});

test('pieces follow one another, cover the range, and differ by one at most', () => {
  const ranges = fc.record({
    start: fc.nat(1000),
    size: fc.nat(1000),
    pieces: fc.integer({ min: 1, max: 64 }),
  });
  fc.assert(
    fc.property(ranges, ({ start, size, pieces }) => {
      const cut = Array.from({ length: pieces }, (_, i) => pieceOf({ start, end: start + size }, pieces, i));
      expect(cut[0]?.start).toBe(start);
      expect(cut.at(-1)?.end).toBe(start + size);
      cut.slice(1).forEach((piece, i) => expect(piece.start).toBe(cut[i]?.end));
      const sizes = cut.map((piece) => piece.end - piece.start);
      expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
    }),
  );
});

test('the pieces of 64 and of 10 samples in 4 microbatches, written out', () => {
  const pieces = (samples: number): number[][] =>
    [0, 1, 2, 3].map((i) => {
      const { start, end } = microbatchRange({ samples, globalBatch: 64, microbatches: 4, seed: 0 }, 0, i);
      return [start, end];
    });
  expect(pieces(64)).toEqual([
    [0, 16],
    [16, 32],
    [32, 48],
    [48, 64],
  ]);
  expect(pieces(10)).toEqual([
    [0, 2],
    [2, 5],
    [5, 7],
    [7, 10],
  ]);
  expect(pieces(3)).toEqual([
    [0, 0],
    [0, 1],
    [1, 2],
    [2, 3],
  ]);
});

test('the order of an epoch depends on the seed and the epoch alone', () => {
  const plan = { samples: 1000, globalBatch: 64, microbatches: 4, seed: 3 };
  const order = epochPermutation(plan, 2);
  expect(epochPermutation({ ...plan, globalBatch: 10, microbatches: 1 }, 2)).toEqual(order);
  expect(epochPermutation(plan, 3)).not.toEqual(order);
  expect(epochPermutation({ ...plan, seed: 4 }, 2)).not.toEqual(order);
});

test('every order is equally likely (chi-square over the 24 orders of 4 samples at 99.99 %)', () => {
  const draws = 24_000;
  const counts = new Map<string, number>();
  for (let epoch = 0; epoch < draws; epoch++) {
    const order = epochPermutation({ samples: 4, globalBatch: 4, microbatches: 1, seed: 9 }, epoch).join();
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  expect(counts.size).toBe(24);
  const expected = draws / 24;
  const chiSquare = [...counts.values()].reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  // Quantile 0.9999 of chi-square with 23 degrees of freedom.
  expect(chiSquare).toBeLessThan(56.4);
});

test('ranks share the microbatches out: each exactly once, whatever the world size', () => {
  fc.assert(
    fc.property(fc.constantFrom(1, 2, 4, 8, 16), fc.integer({ min: 1, max: 16 }), (microbatches, worldSize) => {
      const all: number[] = [];
      for (let rank = 0; rank < worldSize; rank++) {
        const { start, end } = rankMicrobatches(microbatches, worldSize, rank);
        for (let i = start; i < end; i++) all.push(i);
      }
      expect(all).toEqual(Array.from({ length: microbatches }, (_, i) => i));
    }),
  );
});
