// Real threads. What they read is held against the loader that has none.

import { afterEach, describe, expect, it } from 'vitest';
import { placeOfStep, stepsPerEpoch } from '../../../protocol/batch-plan.ts';
import { evenShares } from '../../../protocol/shares.ts';
import { BatchLoader, type Loader, type Place } from '../../../worker/data/batch-loader.ts';
import { startDataThreads } from '../../../worker/data/shell/data-threads.ts';
import { jitter, numbers, SAMPLES } from './numbers.ts';

const plan = { samples: SAMPLES, globalBatch: 8, microbatches: 4, seed: 3 };
const steps = 2 * stepsPerEpoch(plan);
const module = new URL('numbers.ts', import.meta.url).href;

const open: Loader[] = [];
afterEach(async () => {
  for (const loader of open.splice(0)) await loader.close();
});

async function start(
  options: { threads?: number; argument?: string; augment?: boolean; rank?: number; worldSize?: number } = {},
): Promise<Loader> {
  const { threads = 3, argument = 'whole', augment = true, rank = 0, worldSize = 1 } = options;
  const mine = evenShares(plan.microbatches, worldSize)[rank] ?? [];
  const source = { module, argument };
  const loader = await startDataThreads({ source, threads, plan, augment, inputShape: [2], mine, steps });
  open.push(loader);
  return loader;
}

async function everything(loader: Loader, rank = 0, worldSize = 1): Promise<number[][]> {
  const mine = evenShares(plan.microbatches, worldSize)[rank] ?? [];
  const found: number[][] = [];
  for (let step = 0; step < steps; step++) {
    for (const microbatch of mine) {
      const { size, inputs, labels } = await loader.load({ ...placeOfStep(plan, step), microbatch });
      found.push([size, ...inputs, ...labels]);
    }
  }
  return found;
}

const inPlace = (augment: boolean): Loader =>
  new BatchLoader({ plan, split: numbers(null).train, inputShape: [2], augment: augment ? jitter : null });

describe('data threads', () => {
  it.each([1, 2, 4])('give what a loader in place gives, two epochs long, with %i of them', async (threads) => {
    expect(await everything(await start({ threads }))).toEqual(await everything(inPlace(true)));
  });

  it('give each of two ranks its own microbatches, without augmentation', async () => {
    for (const rank of [0, 1]) {
      const loader = await start({ augment: false, rank, worldSize: 2 });
      expect(await everything(loader, rank, 2)).toEqual(await everything(inPlace(false), rank, 2));
    }
  });

  it('give a place that is out of order, too', async () => {
    const loader = await start();
    const other = inPlace(true);
    const places: Place[] = [
      { epoch: 1, batch: 2, microbatch: 3 },
      { epoch: 0, batch: 0, microbatch: 0 },
      { epoch: 0, batch: 0, microbatch: 2 },
      { epoch: 0, batch: 0, microbatch: 2 },
    ];
    for (const place of places) {
      expect([...(await loader.load(place)).inputs]).toEqual([...(await other.load(place)).inputs]);
    }
  });

  it('fail with the error of the data set, when its sample is asked for', async () => {
    const loader = await start({ argument: 'broken' });
    await expect(everything(loader)).rejects.toMatchObject({
      code: 'E_DATA_CORRUPT',
      message: 'reading the data: sample 7 is broken',
    });
  });

  it('do not start without their data', async () => {
    await expect(start({ argument: 'nothing there' })).rejects.toMatchObject({ code: 'E_DISK' });
  });
});
