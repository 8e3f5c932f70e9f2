// The two moons with an update that does not come back, once, on one worker: its process lives and its heart beats. Who is there first
// leaves a mark in LOCKSTEP_TEST_MARKS.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { defineJob } from '../../../jobs/contract.ts';
import twoMoons from './two-moons.ts';

const HANGING = '1';
const STEP = 60;
const marks = process.env['LOCKSTEP_TEST_MARKS'] ?? '';

function isFirst(): boolean {
  try {
    mkdirSync(join(marks, 'hung'));
    return true;
  } catch {
    return false;
  }
}

export default defineJob({
  ...twoMoons,
  name: 'two-moons-hanging',
  optimizer: {
    ...twoMoons.optimizer,
    update: (weights, gradient, slots, step, rate) => {
      if (step === STEP && process.env['LOCAL_RANK'] === HANGING && isFirst()) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      }
      twoMoons.optimizer.update(weights, gradient, slots, step, rate);
    },
  },
});
