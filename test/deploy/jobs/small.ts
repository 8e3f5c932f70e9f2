// A job that is whole and has no augmentation, for the tests of the command line.

import { defineJob } from '../../../jobs/contract.ts';
import { numbers } from './numbers.ts';

export default defineJob({
  name: 'small',
  data: numbers,
  model: () => {
    throw new Error('these tests build no model');
  },
  loss: 'sparseCategoricalCrossentropy',
  optimizer: { name: 'still', learningRate: 0.5, slots: [], settings: {}, update: () => {} },
  batchSize: 64,
  epochs: 3,
});
