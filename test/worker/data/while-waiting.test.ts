// What is prepared while a rank waits is held against the loader that prepares nothing.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { placeOfStep, stepsPerEpoch, type BatchPlan } from '../../../protocol/batch-plan.ts';
import { evenShares } from '../../../protocol/shares.ts';
import { BatchLoader, type Place } from '../../../worker/data/batch-loader.ts';
import { WhileWaitingLoader } from '../../../worker/data/while-waiting.ts';
import { jitter, numbers, SAMPLES } from './numbers.ts';

const plan: BatchPlan = { samples: SAMPLES, globalBatch: 8, microbatches: 4, seed: 3 };
const steps = 2 * stepsPerEpoch(plan);

/** All that rank `rank` of `worldSize` needs, in its order. */
function places(rank: number, worldSize: number): Place[] {
  const mine = evenShares(plan.microbatches, worldSize)[rank] ?? [];
  return Array.from({ length: steps }, (_, step) =>
    mine.map((microbatch) => ({ ...placeOfStep(plan, step), microbatch })),
  ).flat();
}

const source = { plan, split: numbers(null).train, inputShape: [2], augment: jitter };

const loader = (rank: number, worldSize: number, split = source.split): WhileWaitingLoader =>
  new WhileWaitingLoader({ ...source, split }, { mine: evenShares(plan.microbatches, worldSize)[rank] ?? [], steps });

describe('a loader that prepares while its rank waits', () => {
  it('gives what one gives that does not, however much it was let prepare, and wherever it is sent', () => {
    fc.assert(
      fc.property(
        fc.constantFrom([0, 1], [0, 2], [1, 2], [3, 4]),
        fc.array(fc.nat(20), { minLength: 1, maxLength: 40 }),
        fc.array(fc.nat(10_000), { maxLength: 3 }),
        ([rank = 0, worldSize = 1], waits, jumps) => {
          const [ahead, plain] = [loader(rank, worldSize), new BatchLoader(source)];
          const order = places(rank, worldSize);
          // Backwards or forwards, as after another generation has begun.
          for (const jump of jumps) order.splice(jump % order.length, 0, ...order.slice((7 * jump) % order.length));
          for (const [i, place] of order.entries()) {
            const given = ahead.load(place);
            const right = plain.load(place);
            expect([given.size, ...given.inputs, ...given.labels]).toEqual([
              right.size,
              ...right.inputs,
              ...right.labels,
            ]);
            const { inputs } = given;
            const before = [...inputs];
            for (let wait = waits[i % waits.length] ?? 0; wait > 0; wait--) ahead.prepare();
            // The engine may still have it in its hands.
            expect([...inputs]).toEqual(before);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it('reads nothing again that it has prepared, and nothing beyond the last step', () => {
    const read: number[] = [];
    const { split } = source;
    const spy = {
      size: split.size,
      read: (index: number, into: Float32Array) => {
        read.push(index);
        return split.read(index, into);
      },
    };
    const ahead = loader(1, 2, spy);
    const samples = places(1, 2).reduce((sum, place) => {
      const { size } = ahead.load(place);
      while (ahead.prepare());
      return sum + size;
    }, 0);
    expect(read.length).toBe(samples);
    expect(ahead.prepare()).toBe(false);
  });

  it('prepares 32 steps at most, each sample by itself, and the next when one has been taken', () => {
    const many = { ...plan, samples: 8 * 1000, globalBatch: 8 };
    const split = { size: many.samples, read: () => 0 };
    const ahead = new WhileWaitingLoader(
      { ...source, plan: many, split, augment: null },
      { mine: [0, 1], steps: 1000 },
    );
    const prepared = (): number => {
      let count = 0;
      while (ahead.prepare()) count++;
      return count;
    };
    // Before the first microbatch is asked for it is not known which comes next.
    expect(prepared()).toBe(0);
    ahead.load({ epoch: 0, batch: 0, microbatch: 0 });
    expect(prepared()).toBe(32 * 2 * 2);
    ahead.load({ epoch: 0, batch: 0, microbatch: 1 });
    expect(prepared()).toBe(2);
  });

  it('prepares one microbatch where its bytes are too many for two', () => {
    const wide = { ...plan, samples: 1000, globalBatch: 8 };
    const floats = 6 * 1024 * 1024;
    const split = { size: wide.samples, read: () => 0 };
    const ahead = new WhileWaitingLoader(
      { plan: wide, split, inputShape: [floats], augment: null },
      { mine: [0, 1, 2, 3], steps: 100 },
    );
    ahead.load({ epoch: 0, batch: 0, microbatch: 0 });
    expect([ahead.prepare(), ahead.prepare(), ahead.prepare()]).toEqual([true, true, false]);
  });
});
