import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { planCollective, usualBucketFloats } from '../../../worker/collective/plan.ts';
import { nodeNumber, nodeOfNumber, nodesOf } from '../../../worker/collective/tree.ts';

describe('nodesOf', () => {
  const nodes = (share: readonly number[]): string =>
    nodesOf(share)
      .map((n) => `${n.start}+${n.size}`)
      .join(' ');

  it('cuts a range into the largest aligned nodes', () => {
    const of = (start: number, end: number): string => nodes(Array.from({ length: end - start }, (_, i) => start + i));
    expect(of(0, 4)).toBe('0+4');
    expect(of(0, 3)).toBe('0+2 2+1');
    expect(of(1, 4)).toBe('1+1 2+2');
    expect(of(2, 5)).toBe('2+2 4+1');
    expect(of(5, 8)).toBe('5+1 6+2');
    expect(of(1, 7)).toBe('1+1 2+2 4+2 6+1');
    expect(of(3, 3)).toBe('');
  });

  it('makes the largest of what is there, where some between are missing', () => {
    expect(nodes([0, 1, 6, 7])).toBe('0+2 6+2');
    expect(nodes([1, 2, 4, 5, 6, 7])).toBe('1+1 2+1 4+4');
    expect(nodes([0, 3])).toBe('0+1 3+1');
  });
});

describe('nodeNumber', () => {
  it('numbers the tree from its root, and knows what is no node', () => {
    const numbers = (size: number): number[] =>
      Array.from({ length: 8 / size }, (_, i) => nodeNumber({ start: i * size, size }, 8));
    expect([numbers(8), numbers(4), numbers(2), numbers(1)]).toEqual([
      [1],
      [2, 3],
      [4, 5, 6, 7],
      [8, 9, 10, 11, 12, 13, 14, 15],
    ]);
    for (let number = 1; number < 16; number++) expect(nodeNumber(nodeOfNumber(number, 8), 8)).toBe(number);
    for (const node of [
      { start: 1, size: 2 },
      { start: 0, size: 3 },
      { start: 8, size: 1 },
      { start: 0, size: 0 },
    ]) {
      expect(nodeNumber(node, 8)).toBeNaN();
    }
  });
});

describe('usualBucketFloats', () => {
  const KIB = 256;
  it.each([
    // A frame carries 512 KiB at least: the tutorial's CNN is one bucket.
    { floats: 122_573, workers: 2, bucket: 1024 * KIB },
    { floats: 1_000_000, workers: 2, bucket: 1024 * KIB },
    { floats: 1_000_000, workers: 64, bucket: 32 * 1024 * KIB },
    // A quarter of the vector.
    { floats: 6_250_000, workers: 4, bucket: 1_562_500 },
    { floats: 25_000_001, workers: 16, bucket: 6_250_001 },
    // 2 MiB at most.
    { floats: 25_000_000, workers: 2, bucket: 4 * 1024 * KIB },
    { floats: 25_000_000, workers: 4, bucket: 8 * 1024 * KIB },
  ])('$floats floats over $workers ranks: $bucket', ({ floats, workers, bucket }) => {
    expect(usualBucketFloats(floats, workers)).toBe(bucket);
    const { buckets } = planCollective({ worldSize: workers, microbatches: 64, length: floats });
    expect(buckets.length).toBe(Math.ceil(floats / bucket));
  });
});

describe('planCollective', () => {
  it('covers the vector with buckets and each bucket with one slice a rank, without gap or overlap', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: 100 }),
        fc.integer({ min: 1, max: 40 }),
        (worldSize, length, bucketFloats) => {
          const plan = planCollective({ worldSize, microbatches: 8, length, bucketFloats });
          const covered = plan.slices
            .flat()
            .flatMap((s) => Array.from({ length: s.end - s.start }, (_, i) => s.start + i));
          expect(covered).toEqual(Array.from({ length }, (_, i) => i));
          expect(plan.buckets.every((b) => b.end - b.start <= bucketFloats)).toBe(true);
          expect(plan.slices.every((s) => s.length === worldSize)).toBe(true);
          const microbatches = plan.nodes.flat().flatMap((n) => Array.from({ length: n.size }, (_, i) => n.start + i));
          expect(microbatches).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
        },
      ),
    );
  });
});
