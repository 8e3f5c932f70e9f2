import { describe, expect, it } from 'vitest';
import { dataThreadsFor, nextPlace } from '../../../worker/data/ahead.ts';

/** Three batches an epoch: 4, 4 and 2 samples. */
const plan = { samples: 10, globalBatch: 4, microbatches: 4, seed: 5 };

describe('nextPlace', () => {
  it("goes through a rank's microbatches, then to the next batch, then to the next epoch", () => {
    const mine = [1, 2];
    const places = [{ epoch: 0, batch: 1, microbatch: 1 }];
    for (let i = 0; i < 5; i++) {
      const next = nextPlace(plan, mine, 100, places.at(-1) ?? { epoch: 0, batch: 0, microbatch: 0 });
      if (next !== null) places.push(next);
    }
    expect(places.map(({ epoch, batch, microbatch }) => [epoch, batch, microbatch])).toEqual([
      [0, 1, 1],
      [0, 1, 2],
      [0, 2, 1],
      [0, 2, 2],
      [1, 0, 1],
      [1, 0, 2],
    ]);
  });

  it('skips what another rank has', () => {
    const next = nextPlace(plan, [0, 3], 100, { epoch: 0, batch: 1, microbatch: 0 });
    expect(next).toEqual({ epoch: 0, batch: 1, microbatch: 3 });
  });

  it('ends with the last microbatch of the last step', () => {
    const mine = [0, 1];
    expect(nextPlace(plan, mine, 4, { epoch: 1, batch: 0, microbatch: 0 })).toEqual({
      epoch: 1,
      batch: 0,
      microbatch: 1,
    });
    expect(nextPlace(plan, mine, 4, { epoch: 1, batch: 0, microbatch: 1 })).toBeNull();
  });
});

describe('dataThreadsFor', () => {
  it.each([
    { cores: 2, workers: 2, threads: 0 },
    { cores: 2, workers: 1, threads: 0 },
    { cores: 4, workers: 1, threads: 2 },
    { cores: 16, workers: 1, threads: 8 },
    { cores: 64, workers: 8, threads: 6 },
    { cores: 64, workers: 64, threads: 0 },
  ])('$workers workers on $cores cores: $threads each, beside the engine and the communication', (row) => {
    expect(dataThreadsFor(row.cores, row.workers)).toBe(row.threads);
  });
});
