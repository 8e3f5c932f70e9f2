// The formulas of the cost model: what it counts against what the collective really sends, the rest against values worked out by hand.

import { describe, expect, it, test } from 'vitest';
import {
  allReduceSeconds,
  expectedMaximum,
  exchangeOf,
  fitCosts,
  nonNegativeLeastSquares,
  stepTime,
  type Costs,
  type Layout,
} from '../../bench/cost-model.ts';
import { inTurns, runWorld } from '../worker/collective/world.ts';

const FREE: Costs = { call: 0, frame: 0, byte: 0, farByte: 0, wake: 0 };

describe('what a rank sends', () => {
  test.each([
    [1, 1],
    [2, 1],
    [4, 1],
    [8, 1],
    [4, 2],
    [8, 2],
    [8, 4],
    [4, 4],
    [16, 4],
  ])('%d ranks on %d hosts: as many frames and bytes as the collective sends', (ranks, hosts) => {
    const length = 64 * ranks;
    const bucketFloats = length / 4;
    const place = (rank: number): string => `host ${Math.floor((rank * hosts) / ranks)}`;
    const world = {
      worldSize: ranks,
      microbatches: ranks,
      length,
      bucketFloats,
      hosts: Array.from({ length: ranks }, (_, rank) => place(rank)),
    };
    const vectors = Array.from({ length: ranks }, () => new Float32Array(length).fill(1));
    const { sent } = runWorld(world, [vectors], inTurns());
    const exchange = exchangeOf({ ranks, hosts, bytes: 4 * length, bucketBytes: 4 * bucketFloats });
    for (let rank = 0; rank < ranks; rank++) {
      const total = (isLocal: boolean): { frames: number; bytes: number } =>
        [...sent]
          .filter(([way]) => {
            const [from, to] = way.split('>').map(Number);
            return from === rank && (place(from) === place(to ?? 0)) === isLocal;
          })
          .reduce((sum, [, { frames, bytes }]) => ({ frames: sum.frames + frames, bytes: sum.bytes + bytes }), {
            frames: 0,
            bytes: 0,
          });
      expect([total(true), total(false)]).toEqual([exchange.local, exchange.network]);
    }
  });

  it('of 64 ranks on 8 hosts crosses a host’s wire 2 x 7/8 times each way, as a ring of hosts would', () => {
    const { network } = exchangeOf({ ranks: 64, hosts: 8, bytes: 6400, bucketBytes: 1600 });
    expect(8 * network.bytes).toBe(2 * (7 / 8) * 6400);
  });
});

describe('least squares without negative values', () => {
  it('is the exact solution where there is one', () => {
    const rows = [
      [1, 2],
      [3, 4],
      [5, 5],
    ];
    const [a = 0, b = 0] = nonNegativeLeastSquares(rows, [8, 18, 25]);
    expect(a).toBeCloseTo(2, 12);
    expect(b).toBeCloseTo(3, 12);
  });

  it('leaves out what would be below zero', () => {
    // Free, the solution is (2, -1).
    expect(
      nonNegativeLeastSquares(
        [
          [1, 0],
          [0, 1],
        ],
        [2, -1],
      ),
    ).toEqual([2, 0]);
    expect(nonNegativeLeastSquares([[1], [1]], [-1, -2])).toEqual([0]);
  });
});

describe('the all-reduce', () => {
  const MB = 2 ** 20;
  const COSTS: Costs = { call: 2e-4, frame: 1e-5, byte: 1e-10, farByte: 5e-11, wake: 3e-5 };
  const layout = (ranks: number, bytes: number, hosts = 1): Layout => ({ ranks, hosts, bytes, bucketBytes: MB / 2 });

  it('is calls, frames and bytes; more by byte beyond the cache; shared and woken where ranks outnumber cores', () => {
    // Two ranks, 1 MiB: 2 buckets of 2 frames; 1 MiB through the link, 1 MiB copied in and out.
    expect(allReduceSeconds(layout(2, MB), 2, COSTS, null)).toBeCloseTo(2e-4 + 4 * 1e-5 + 2 * MB * 1e-10, 12);
    // 4 MiB, of which half is beyond the cache.
    expect(allReduceSeconds(layout(2, 4 * MB), 2, COSTS, null)).toBeCloseTo(
      2e-4 + 16 * 1e-5 + 8 * MB * (1e-10 + 0.5 * 5e-11),
      12,
    );
    // Four ranks on two cores: everything twice, and three peers to wake.
    expect(allReduceSeconds(layout(4, MB), 2, COSTS, null)).toBeCloseTo(
      2 * (2e-4 + 12 * 1e-5 + (1.5 + 1) * MB * 1e-10) + 3 * 3e-5,
      12,
    );
  });

  it('between hosts takes as long as the wire or the cores, whichever is longer, and the way there and back', () => {
    const wire = { bytesPerSecond: 1e9, latencySeconds: 1e-4, costs: FREE };
    // Each of two hosts sends half of the vector there and half of the sum back.
    expect(allReduceSeconds(layout(2, 1e9, 2), 1, FREE, wire)).toBeCloseTo(1 + 2e-4, 9);
    expect(allReduceSeconds(layout(16, 1e9, 2), 8, FREE, wire)).toBeCloseTo(1 + 2e-4, 9);
    const slow = { ...wire, costs: { ...FREE, byte: 3e-9 } };
    expect(allReduceSeconds(layout(2, 1e9, 2), 1, FREE, slow)).toBeCloseTo(3 + 2e-4, 9);
  });

  it('gives back the costs that made its samples, and so foretells what it has not seen', () => {
    const sample = (ranks: number, bytes: number) => ({
      layout: layout(ranks, bytes),
      cores: 2,
      seconds: allReduceSeconds(layout(ranks, bytes), 2, COSTS, null),
    });
    const fitted = fitCosts(
      [2, 4].flatMap((ranks) => [40_000, 490_000, 4e6, 25e6].map((bytes) => sample(ranks, bytes))),
    );
    for (const name of ['call', 'frame', 'byte', 'farByte', 'wake'] as const) {
      expect(fitted[name] / COSTS[name]).toBeCloseTo(1, 6);
    }
    const unseen = sample(8, 100e6);
    expect(allReduceSeconds(unseen.layout, 2, fitted, null) / unseen.seconds).toBeCloseTo(1, 6);
  });
});

describe('the expected maximum', () => {
  it('of one is the mean; of two of three values, the ninths of their nine pairs', () => {
    expect(expectedMaximum([3, 1, 2], 1)).toBeCloseTo(2, 12);
    expect(expectedMaximum([3, 1, 2], 2)).toBeCloseTo((1 * 1 + 2 * 3 + 3 * 5) / 9, 12);
  });

  it('of n even numbers in 0 to 1 is n / (n + 1)', () => {
    const even = Array.from({ length: 10_000 }, (_, i) => (i + 0.5) / 10_000);
    for (const n of [2, 8, 64]) expect(expectedMaximum(even, n)).toBeCloseTo(n / (n + 1), 3);
  });
});

describe('a step', () => {
  const base = { compute: [1, 3], workersPerCore: 1, after: 0.2, exchange: 0.4, overlap: 0, lastPart: 1 };

  it('alone is computing and what follows: efficiency 1', () => {
    expect(stepTime({ ...base, workers: 1 })).toEqual({
      seconds: 2.2,
      compute: 2,
      wait: 0,
      exchange: 0,
      efficiency: 1,
    });
  });

  it('of two waits for the slower, and exchanges', () => {
    // The larger of two draws of 1 and 3: 1 in one case of four, 3 in three.
    const { seconds, wait, exchange, efficiency } = stepTime({ ...base, workers: 2 });
    expect([wait, exchange]).toEqual([0.5, 0.4]);
    expect(seconds).toBeCloseTo(3.1, 12);
    expect(efficiency).toBeCloseTo(2.2 / 3.1, 12);
  });

  it('hides the exchange beside its computing, but for the last part', () => {
    const exposed = (overlap: number, lastPart: number): number =>
      stepTime({ ...base, workers: 2, overlap, lastPart }).exchange;
    expect(exposed(0.3, 0.1)).toBeCloseTo(0.1, 12);
    expect(exposed(5, 0.25)).toBeCloseTo(0.1, 12);
    expect(exposed(0, 1)).toBe(0.4);
  });

  it('on a shared core takes as many times as long', () => {
    const { compute, wait, seconds } = stepTime({ ...base, workers: 2, workersPerCore: 2 });
    expect([compute, wait]).toEqual([4, 1]);
    expect(seconds).toBeCloseTo(4 + 1 + 0.4 + 0.4, 12);
  });
});
