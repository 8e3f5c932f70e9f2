// A run in the middle of its second epoch, as an observer sees it: written out by hand, for the HTTP tests.

import type { RunView } from '../../../protocol/run-view.ts';

export const VIEW: RunView = {
  job: 'cifar10-cnn',
  run: 'cifar10-cnn-20261123-160000',
  phase: 'training',
  because: 'all members step',
  epoch: 2,
  epochs: 10,
  step: 1000,
  steps: 7820,
  epochStep: 218,
  epochSteps: 782,
  generation: 1,
  loss: 1.0625,
  epochLoss: 1.25,
  accuracy: 0.5,
  testLoss: 1.5,
  testAccuracy: 0.4375,
  learningRate: 0.001,
  gradientNorm: 0.75,
  imagesTotal: 64_000,
  imagesPerSecond: 4321.5,
  secondsElapsed: 75,
  secondsLeft: 3725,
  coordinator: { pid: 4711, host: 'red' },
  workers: [
    { id: 'w0', rank: 0, state: 'training', pid: 11, host: 'red', device: 'CPU (AMD EPYC)', rssBytes: 412_000_000 },
    { id: 'w1', rank: 1, state: 'training', pid: 12, host: 'blue', device: 'CPU (AMD EPYC)', rssBytes: 409_500_000 },
    { id: 'w2', rank: null, state: 'spare', pid: 13, host: 'blue', device: null, rssBytes: null },
  ],
  byEpoch: [{ epoch: 1, loss: 1.75, testLoss: 1.5, testAccuracy: 0.4375, seconds: 12.5, imagesPerSecond: 4000 }],
  workersLost: 0,
  stepsLost: 3,
  microbatchesRecomputed: 0,
  checkpointStep: 782,
};
