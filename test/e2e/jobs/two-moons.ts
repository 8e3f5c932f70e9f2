// A user's own job, of another kind than the built-in one in every part: points made by rule instead of files, dropout and
// batch normalisation, a loss and an augmentation of its own, plain SGD.

import type { Augmentation, Split } from '../../../jobs/contract.ts';
import { defineJob } from '../../../jobs/contract.ts';
import { sgd } from '../../../jobs/optimizers.ts';

/** Point i of two interleaved half circles; an even i is on the first. Parabolas stand in for circles: exact arithmetic. */
const moons = (size: number, shift: number): Split => ({
  size,
  read: (index, into) => {
    const label = index % 2;
    const u = ((((index + shift) * 7919) % 1000) / 1000) * 2 - 1;
    into[0] = label === 0 ? u : u + 1;
    into[1] = label === 0 ? 1 - u * u : u * u - 0.5;
    return label;
  },
});

const jitter: Augmentation = {
  name: 'jitter',
  apply: (from, to, _shape, random) => {
    for (let i = 0; i < from.length; i++) to[i] = (from[i] ?? 0) + 0.1 * (random.uniform() - 0.5);
  },
};

export default defineJob({
  name: 'two-moons',
  data: {
    name: 'two moons',
    open: () => ({ inputShape: [2], classes: ['upper', 'lower'], train: moons(500, 0), test: moons(200, 500) }),
  },
  model: (tf) =>
    tf.sequential({
      layers: [
        tf.layers.dense({ inputShape: [2], units: 16, activation: 'tanh' }),
        tf.layers.batchNormalization(),
        tf.layers.dropout({ rate: 0.2 }),
        tf.layers.dense({ units: 2 }),
      ],
    }),
  loss: {
    name: 'squared distance to the one-hot label',
    perSample: (tf, labels, output) => tf.oneHot(labels, 2).sub(output).square().sum(-1),
  },
  optimizer: sgd({ learningRate: 0.05, momentum: 0.9 }),
  augment: jitter,
  batchSize: 32,
  epochs: 6,
  microbatches: 8,
});
