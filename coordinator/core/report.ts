// The closing account of a run, derived from the state machine: report.json.

import { REPORT_SCHEMA_VERSION, type RunReport } from '../../protocol/report.ts';
import type { Outcome } from './effects.ts';
import type { Run } from './run.ts';
import { stragglerOf } from './step-times.ts';

export function reportOf(
  run: Run,
  outcome: Outcome,
  place: {
    readonly lockstep: string;
    readonly seconds: number;
    readonly coordinatorPeakRssBytes: number;
    readonly dataSet: string;
    readonly augment: string;
    readonly nats: RunReport['nats'];
    readonly jobChanges: RunReport['jobChanges'];
  },
): RunReport {
  const { config } = run.options;
  const { progress } = run;
  const members = [...run.workers.values()].toSorted((a, b) => (a.lastRank ?? Infinity) - (b.lastRank ?? Infinity));
  const engine = members.find((w) => w.ready !== null)?.ready ?? null;
  return {
    schema: REPORT_SCHEMA_VERSION,
    lockstep: place.lockstep,
    job: config.jobName,
    run: config.run,
    state: outcome,
    engine: {
      name: engine?.engine.name ?? config.engine,
      library: engine?.engine.library ?? 'none started',
      device: engine?.engine.device ?? 'none started',
      threads: engine?.engine.threads ?? 1,
      settings: engine?.engine.settings ?? {},
      fingerprint: engine?.fingerprint ?? '',
      precision: config.precision,
    },
    transport: config.transport,
    nats: place.nats,
    traffic: progress.bytesSent,
    gradientCompression: config.gradientCompression,
    reproducible: run.reproducible && place.jobChanges.length === 0,
    jobChanges: place.jobChanges,
    seed: config.seed,
    globalBatch: config.globalBatch,
    microbatches: config.microbatches,
    learningRate: config.learningRate,
    augment: place.augment,
    dataSet: { name: place.dataSet, trainSamples: config.trainSamples, testSamples: config.testSamples },
    epochs: config.epochs,
    steps: run.step,
    resumedFromStep: run.options.resumed?.step ?? null,
    samples: progress.samples,
    workersStarted: run.workers.size,
    generations: run.generation,
    workersLost: run.workersLost,
    stepsLost: run.stepsLost,
    microbatchesRecomputed: run.microbatchesRecomputed,
    digest: run.digest,
    digestStep: run.digestStep,
    finalLoss: progress.lastLoss,
    testLoss: progress.test.loss,
    testAccuracy: progress.test.accuracy,
    byEpoch: progress.byEpoch,
    seconds: place.seconds,
    imagesPerSecond: progress.steadyImagesPerSecond,
    stepSeconds: progress.stepSeconds,
    byWorker: members.flatMap(({ id, lastRank, host, times }) =>
      lastRank === null || times.mean === null ? [] : [{ worker: id, rank: lastRank, host, stepSeconds: times.mean }],
    ),
    straggler: stragglerOf(
      run.members().map(({ id, times }) => ({ worker: id, steps: times.steps, phases: times.mean })),
    ),
    peakRssBytes: {
      coordinator: place.coordinatorPeakRssBytes,
      workers: members.map((w) => w.peakRssBytes ?? 0),
    },
  };
}
