// The run as an observer sees it now, derived from the state machine: the value behind `/api/run`, metrics and the live line.

import { stepsPerEpoch } from '../../protocol/batch-plan.ts';
import type { RecordAlarm, RunView } from '../../protocol/run-view.ts';
import type { Run } from './run.ts';
import { stragglerOf } from './step-times.ts';

/** `place`: what the process knows of itself. Times in milliseconds on the monotonic clock. */
export function viewOf(
  run: Run,
  place: {
    readonly pid: number;
    readonly host: string;
    readonly startedAtMs: number;
    readonly nowMs: number;
    readonly alarms: readonly RecordAlarm[];
  },
): RunView {
  const { config, plan } = run.options;
  const perEpoch = stepsPerEpoch(plan);
  const { progress } = run;
  const done = Math.min(run.step, config.steps);
  // While an epoch's last step is the newest, that epoch is still the one in progress.
  const epochIndex = Math.max(0, Math.ceil(done / perEpoch) - 1);
  const epochStep = done - epochIndex * perEpoch;
  const speed = progress.recentImagesPerSecond;
  const left = (config.steps - done) * config.globalBatch;
  const current = done % perEpoch !== 0 || done === 0;
  const lastEpoch = progress.byEpoch.at(-1);
  return {
    job: config.jobName,
    run: config.run,
    phase: run.phase,
    because: run.because,
    epoch: epochIndex + 1,
    epochs: config.epochs,
    step: done,
    steps: config.steps,
    epochStep,
    epochSteps: perEpoch,
    generation: run.generation,
    loss: progress.lastLoss,
    epochLoss: current ? progress.epochLoss : (lastEpoch?.loss ?? null),
    accuracy: progress.epochAccuracy,
    testLoss: progress.test.loss,
    testAccuracy: progress.test.accuracy,
    learningRate: config.learningRate,
    gradientNorm: progress.gradientNorm,
    imagesTotal: progress.samples,
    imagesPerSecond: speed,
    imagesPerSecondMean: progress.steadyImagesPerSecond,
    secondsElapsed: (place.nowMs - place.startedAtMs) / 1000,
    secondsLeft: speed > 0 ? left / speed : null,
    transport: config.transport,
    coordinator: { pid: place.pid, host: place.host },
    workers: [...run.workers.values()].map((worker) => ({
      id: worker.id,
      rank: worker.rank,
      state: run.phase === 'evaluating' && worker.state === 'training' ? 'evaluating' : worker.state,
      pid: worker.pid,
      host: worker.host,
      device: worker.ready?.engine.device ?? null,
      rssBytes: worker.rssBytes,
      metricsUrl: worker.isConnected && worker.state !== 'lost' ? (worker.ready?.metricsUrl ?? null) : null,
      stepSeconds: worker.times.now,
    })),
    straggler: stragglerOf(
      run.members().map(({ id, times }) => ({ worker: id, steps: times.steps, phases: times.now })),
    ),
    byEpoch: progress.byEpoch,
    workersLost: run.workersLost,
    stepsLost: run.stepsLost,
    microbatchesRecomputed: run.microbatchesRecomputed,
    checkpointStep: run.checkpointStep,
    digestChecks: run.digests.compared,
    audits: run.audits.compared,
    alarms: place.alarms,
  };
}
