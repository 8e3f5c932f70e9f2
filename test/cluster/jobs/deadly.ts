// The tutorial's CNN whose workers kill themselves, as a fault of their own would, at exact places of a step: before they have computed
// anything of it, and after its sum is with everybody. Each place is deadly once: who is there first leaves a mark in LOCKSTEP_TEST_MARKS.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import job from '../../../jobs/cifar10-cnn.ts';
import { defineJob } from '../../../jobs/contract.ts';

const marks = process.env['LOCKSTEP_TEST_MARKS'] ?? '';

function dieOnce(place: string): void {
  try {
    mkdirSync(join(marks, place));
  } catch {
    return; // somebody has
  }
  process.kill(process.pid, 'SIGKILL');
}

/** Samples that a worker reads before it dies: some 60 steps. */
const READS = 1300;
const STEP = 150;
let reads = 0;

export default defineJob({
  ...job,
  data: {
    ...job.data,
    open: (directory) => {
      const data = job.data.open(directory);
      const read: typeof data.train.read = (index, into) => {
        if (++reads === READS) dieOnce('before-computing');
        return data.train.read(index, into);
      };
      return { ...data, train: { ...data.train, size: data.train.size, read } };
    },
  },
  optimizer: {
    ...job.optimizer,
    update: (weights, gradient, slots, step, rate) => {
      if (step === STEP) dieOnce('after-the-sum');
      job.optimizer.update(weights, gradient, slots, step, rate);
    },
  },
});
