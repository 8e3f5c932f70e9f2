// The two moons on a machine one of whose workers is slower than the others: its reading of samples computes for longer.

import type { Split } from '../../../jobs/contract.ts';
import { defineJob } from '../../../jobs/contract.ts';
import twoMoons from './two-moons.ts';

const SLOW = 1;
/** Rounds of arithmetic a sample: about a millisecond. */
const ROUNDS = 300_000;

const slowed = (split: Split): Split => ({
  ...split,
  read: (index, into) => {
    let word = index;
    if (process.env['LOCAL_RANK'] === String(SLOW)) {
      for (let round = 0; round < ROUNDS; round++) word = (Math.imul(word, 1_664_525) + 1_013_904_223) >>> 0;
    }
    // Never so: what was computed must be used, or it is left out.
    return split.read(word === -1 ? 0 : index, into);
  },
});

export default defineJob({
  ...twoMoons,
  name: 'two-moons-slow-rank',
  data: {
    name: 'two moons, read slowly by one',
    open: (directory) => {
      const data = twoMoons.data.open(directory);
      return { ...data, train: slowed(data.train) };
    },
  },
});
