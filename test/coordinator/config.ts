// The configuration of a small run that the coordinator's tests go by: 10 samples in batches of 4, three steps an epoch, two epochs.

import type { RunConfig } from '../../protocol/run-config.ts';

export const CONFIG: RunConfig = {
  run: 'r',
  job: { kind: 'built-in', name: 'j', sha256: '0'.repeat(64) },
  jobName: 'j',
  seed: 1,
  globalBatch: 4,
  microbatches: 4,
  epochs: 2,
  steps: 6,
  learningRate: 0.1,
  augment: false,
  trainSamples: 10,
  testSamples: 5,
  engine: 'tensorflow',
  engineMode: 'graph',
  precision: 'float32',
  transport: 'ws',
  bucketBytes: null,
  dataThreads: null,
  gradientCompression: 'none',
  checkpointEverySteps: 0,
  digestEverySteps: 0,
  auditRate: 0,
};
