// A module that data threads open their data by: sample i is the floats i and -i, its label i + 100; augmentation adds what chance
// gives. Where it is told so, reading sample 7 fails, or opening does.

import type { Augmentation, DataSet } from '../../../jobs/contract.ts';
import { LockstepError } from '../../../protocol/errors.ts';

export const SAMPLES = 23;

export const jitter: Augmentation = {
  name: 'jitter',
  apply: (from, to, _shape, random) => {
    for (let i = 0; i < from.length; i++) to[i] = (from[i] ?? 0) + random.uniform();
  },
};

export function numbers(brokenSample: number | null): DataSet {
  const split = {
    size: SAMPLES,
    read: (index: number, into: Float32Array): number => {
      if (index === brokenSample) throw new LockstepError('E_DATA_CORRUPT', `sample ${index} is broken`);
      into.set([index, -index]);
      return index + 100;
    },
  };
  return { inputShape: [2], classes: [], train: split, test: split };
}

export async function openTrainingData(argument: unknown): Promise<{ data: DataSet; augmentation: Augmentation }> {
  if (argument === 'nothing there') throw new LockstepError('E_DISK', 'there is no such data');
  return { data: numbers(argument === 'broken' ? 7 : null), augmentation: jitter };
}
