// The tutorial's CNN, slowed down where it reads samples for as long as the file LOCKSTEP_TEST_SLOW is there, so that a run lasts while
// servers come and go. It says nothing of the bits.

import { existsSync } from 'node:fs';
import job from '../../../jobs/cifar10-cnn.ts';
import { defineJob } from '../../../jobs/contract.ts';

const PACE_MS = 6;
const slow = process.env['LOCKSTEP_TEST_SLOW'] ?? '';
const clock = new Int32Array(new SharedArrayBuffer(4));

export default defineJob({
  ...job,
  data: {
    ...job.data,
    open: (directory) => {
      const data = job.data.open(directory);
      const read: typeof data.train.read = (index, into) => {
        if (slow !== '' && existsSync(slow)) Atomics.wait(clock, 0, 0, PACE_MS);
        return data.train.read(index, into);
      };
      return { ...data, train: { ...data.train, size: data.train.size, read } };
    },
  },
});
