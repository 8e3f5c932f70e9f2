// Who computes which microbatches, held against a count of each.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { areEven, areWhole, evenShares, keptShares, type Shares } from '../../protocol/shares.ts';

/** Any shares of the microbatches over the ranks, a bit of chance for each. */
const anyShares = fc
  .record({ power: fc.integer({ min: 0, max: 6 }), ranks: fc.integer({ min: 1, max: 12 }) })
  .chain(({ power, ranks }) =>
    fc
      .array(fc.nat(ranks - 1), { minLength: 2 ** power, maxLength: 2 ** power })
      .map((owners) =>
        Array.from({ length: ranks }, (_, rank) => owners.flatMap((owner, m) => (owner === rank ? [m] : []))),
      ),
  );

describe('evenShares', () => {
  it('gives each rank a run, and all of them every microbatch', () => {
    expect(evenShares(8, 3)).toEqual([
      [0, 1],
      [2, 3, 4],
      [5, 6, 7],
    ]);
    expect(evenShares(4, 4)).toEqual([[0], [1], [2], [3]]);
  });
});

describe('keptShares', () => {
  it('leaves everybody his own, and gives those of the lost to who has fewest, in runs', () => {
    // Of three ranks the last is lost.
    expect(
      keptShares(8, [
        [0, 1],
        [2, 3, 4],
      ]),
    ).toEqual([
      [0, 1, 5, 6],
      [2, 3, 4, 7],
    ]);
    // A spare takes a lost member's place.
    expect(keptShares(4, [[0, 1], []])).toEqual([
      [0, 1],
      [2, 3],
    ]);
    expect(keptShares(4, [[2, 3], []])).toEqual([
      [2, 3],
      [0, 1],
    ]);
  });

  it('never takes a microbatch from a survivor, forgets none, and leaves no rank more than one ahead that had no more before', () => {
    fc.assert(
      fc.property(anyShares, fc.nat(), fc.nat(3), (shares, lost, newcomers) => {
        const microbatches = shares.flat().length;
        const before: Shares = [
          ...shares.filter((_, rank) => rank !== lost % shares.length),
          ...Array.from({ length: newcomers }, () => []),
        ];
        if (before.length === 0) return;
        const after = keptShares(microbatches, before);
        expect(areWhole(microbatches, before.length, after)).toBe(true);
        for (const [rank, share] of before.entries()) expect(after[rank]).toEqual(expect.arrayContaining([...share]));
        const least = Math.min(...after.map((share) => share.length));
        for (const [rank, share] of after.entries())
          expect(share.length).toBeLessThanOrEqual(Math.max(least + 1, before[rank]?.length ?? 0));
      }),
    );
  });
});

describe('areEven', () => {
  it('knows an even cut whichever rank has which run, and no other', () => {
    expect(
      areEven(8, [
        [5, 6, 7],
        [0, 1],
        [2, 3, 4],
      ]),
    ).toBe(true);
    expect(
      areEven(4, [
        [0, 2],
        [1, 3],
      ]),
    ).toBe(false);
    expect(areEven(4, [[0], [1, 2, 3]])).toBe(false);
  });
});

describe('areWhole', () => {
  it('knows shares of all microbatches from others', () => {
    fc.assert(fc.property(anyShares, (shares) => areWhole(shares.flat().length, shares.length, shares)));
    for (const wrong of [
      [[0, 1], [3]],
      [
        [0, 1],
        [1, 2, 3],
      ],
      [
        [1, 0],
        [2, 3],
      ],
      [
        [0, 1],
        [2, 3, 4],
      ],
      [[0, 1, 2, 4]],
      [],
    ])
      expect(areWhole(4, wrong.length, wrong)).toBe(false);
    expect(areWhole(4, 3, evenShares(4, 2))).toBe(false);
  });
});
