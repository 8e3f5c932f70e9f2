import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { auditedRank, isAudited } from '../../protocol/audit-plan.ts';

const chosen = (seed: number, rate: number): string[] => {
  const found: string[] = [];
  for (let step = 0; step < 500; step++) {
    for (let m = 0; m < 4; m++) if (isAudited(seed, rate, step, m)) found.push(`${step}/${m}`);
  }
  return found;
};

describe('the microbatches that are audited', () => {
  it('are none at a rate of 0, all at 1, and about the share that the rate says between', () => {
    expect(chosen(1, 0)).toEqual([]);
    expect(chosen(1, 1)).toHaveLength(2000);
    // Binomial of 2,000 draws at 0.1: 200, standard deviation 13.4; five of them.
    expect(Math.abs(chosen(1, 0.1).length - 200)).toBeLessThan(67);
  });

  it('are the same for everybody who asks, others for another seed, and more of the same at a higher rate', () => {
    expect(chosen(1, 0.1)).toEqual(chosen(1, 0.1));
    expect(chosen(1, 0.1)).not.toEqual(chosen(2, 0.1));
    const more = new Set(chosen(1, 0.3));
    expect(chosen(1, 0.1).every((one) => more.has(one))).toBe(true);
  });

  it('are audited by another rank than their own, each by one', () => {
    expect(auditedRank(0, 1)).toBeNull();
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 64 }), (worldSize) => {
        const audited = Array.from({ length: worldSize }, (_, rank) => auditedRank(rank, worldSize));
        expect(audited.every((other, rank) => other !== rank)).toBe(true);
        expect(new Set(audited).size).toBe(worldSize);
      }),
    );
  });
});
