// A run in the middle of its third epoch, and its report: what the tests of the display show.

import type { RunReport } from '../../../protocol/report.ts';
import type { RunView, WorkerView } from '../../../protocol/run-view.ts';

export function worker(id: string, rank: number | null, state: WorkerView['state']): WorkerView {
  const pid = 4000 + Number(id.slice(1));
  return {
    id,
    rank,
    state,
    pid,
    host: 'box',
    device: 'CPU',
    rssBytes: 480_000_000,
    metricsUrl: null,
    stepSeconds: null,
  };
}

export function view(changes: Partial<RunView> = {}): RunView {
  return {
    job: 'cifar10-cnn',
    run: 'cifar10-cnn-1',
    phase: 'training',
    because: 'all members step',
    epoch: 3,
    epochs: 10,
    step: 1955,
    steps: 7820,
    epochStep: 391,
    epochSteps: 782,
    generation: 1,
    loss: 1.1,
    epochLoss: 1.0234,
    accuracy: 0.632,
    testLoss: 1.2,
    testAccuracy: 0.58,
    learningRate: 0.001,
    gradientNorm: 1,
    imagesTotal: 125_120,
    imagesPerSecond: 4312.4,
    imagesPerSecondMean: 4300,
    secondsElapsed: 40,
    secondsLeft: 133,
    transport: 'ws',
    coordinator: { pid: 1, host: 'box' },
    workers: [worker('w0', 0, 'training'), worker('w1', 1, 'training')],
    straggler: null,
    byEpoch: [],
    workersLost: 0,
    stepsLost: 0,
    microbatchesRecomputed: 0,
    checkpointStep: null,
    digestChecks: 0,
    audits: 0,
    alarms: [],
    ...changes,
  };
}

export const GATHERING = view({
  phase: 'gathering',
  because: '1 of 2 workers ready',
  epoch: 1,
  step: 0,
  epochStep: 0,
  loss: null,
  epochLoss: null,
  accuracy: null,
  imagesPerSecond: 0,
  secondsLeft: null,
  workers: [worker('w0', null, 'ready'), worker('w1', null, 'preparing')],
});

const DIGEST = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08';

export function report(changes: Partial<RunReport> = {}): RunReport {
  return {
    schema: 1,
    lockstep: '0.1.0',
    job: 'cifar10-cnn',
    run: 'cifar10-cnn-1',
    state: 'done',
    engine: {
      name: 'tensorflow',
      library: 'TensorFlow 2.21.0',
      device: 'CPU',
      threads: 1,
      settings: {},
      fingerprint: DIGEST,
      precision: 'float32',
    },
    transport: 'ws',
    nats: null,
    traffic: [{ transport: 'shm', bytes: 184_000_000 }],
    gradientCompression: 'none',
    reproducible: true,
    jobChanges: [],
    seed: 7,
    globalBatch: 64,
    microbatches: 4,
    learningRate: 0.001,
    augment: 'off',
    dataSet: { name: 'CIFAR-10', trainSamples: 50_000, testSamples: 10_000 },
    epochs: 2,
    steps: 1564,
    resumedFromStep: null,
    samples: 100_000,
    workersStarted: 2,
    generations: 1,
    workersLost: 0,
    stepsLost: 0,
    microbatchesRecomputed: 0,
    digest: DIGEST,
    digestStep: null,
    finalLoss: 0.61,
    testLoss: 0.8412,
    testAccuracy: 0.7123,
    byEpoch: [
      { epoch: 1, loss: 1.5, testLoss: 1.2, testAccuracy: 0.55, seconds: 11.8, imagesPerSecond: 4237 },
      { epoch: 2, loss: 1.1, testLoss: 0.8412, testAccuracy: 0.7123, seconds: 11.6, imagesPerSecond: 4312.4 },
    ],
    seconds: 30.94,
    imagesPerSecond: 4275,
    stepSeconds: { data: 0.0005, compute: 0.008, allreduce: 0.001, apply: 0.00025, wait: 0.00025 },
    byWorker: [],
    straggler: null,
    peakRssBytes: { coordinator: 121_000_000, workers: [481_000_000, 492_000_000] },
    ...changes,
  };
}
