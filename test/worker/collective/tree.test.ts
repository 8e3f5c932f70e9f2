import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { planCollective } from '../../../worker/collective/plan.ts';
import { Fold, nodesOf } from '../../../worker/collective/tree.ts';
import { bitsOf, canonicalSum, spreadFloats } from './canonical-sum.ts';

describe('nodesOf', () => {
  it('cuts a range into the largest aligned nodes', () => {
    const of = (start: number, end: number): string =>
      nodesOf({ start, end })
        .map((n) => `${n.start}+${n.size}`)
        .join(' ');
    expect(of(0, 4)).toBe('0+4');
    expect(of(0, 3)).toBe('0+2 2+1');
    expect(of(1, 4)).toBe('1+1 2+2');
    expect(of(2, 5)).toBe('2+2 4+1');
    expect(of(5, 8)).toBe('5+1 6+2');
    expect(of(1, 7)).toBe('1+1 2+2 4+2 6+1');
    expect(of(3, 3)).toBe('');
  });
});

describe('Fold', () => {
  it('adds siblings as they complete and nothing else: the canonical sum when all are in', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 5 }),
        fc.integer({ min: 1, max: 9 }),
        fc.infiniteStream(fc.boolean()),
        fc.nat(),
        (power, length, absent, seed) => {
          const count = 2 ** power;
          const vectors = Array.from({ length: count }, (_, i) =>
            absent.next().value ? null : spreadFloats(length, seed + i),
          );
          const fold = new Fold(length);
          vectors.forEach((v, i) => fold.push(i, v));
          const partials = fold.partials();
          expect(partials.map((p) => p.node)).toEqual([{ start: 0, size: count }]);
          const sum = partials[0]?.vector ?? null;
          const expected = canonicalSum(vectors);
          expect(sum === null ? null : bitsOf(sum)).toEqual(expected === null ? null : bitsOf(expected));
        },
      ),
    );
  });

  it('keeps a lone vector to the bit, -0 included, beside an absent sibling', () => {
    const fold = new Fold(1);
    fold.push(0, new Float32Array([-0]));
    fold.push(1, null);
    expect(Object.is(fold.partials()[0]?.vector?.[0], -0)).toBe(true);
  });

  it('leaves the caller its vectors and starts afresh after clear', () => {
    const fold = new Fold(1);
    const vector = new Float32Array([1]);
    fold.push(0, vector);
    fold.push(1, vector);
    expect(vector[0]).toBe(1);
    fold.clear();
    fold.push(0, vector);
    expect(fold.partials()[0]?.vector?.[0]).toBe(1);
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
