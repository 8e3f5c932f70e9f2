// What an observer sees of a run at one moment: the value behind `/api/run`, the metrics and the terminal's live line.

import type { PhaseSeconds } from './messages.ts';
import type { RecordPart, RunPhase, WorkerState } from './metrics.ts';
import type { EpochReport, Straggler } from './report.ts';

export type { RunPhase } from './metrics.ts';

export interface WorkerView {
  /** Name for its life: w0, w1, ... in the order of arrival. */
  readonly id: string;
  /** Rank in the present generation; null for a spare or a newcomer. */
  readonly rank: number | null;
  readonly state: WorkerState;
  readonly pid: number;
  readonly host: string;
  /** The device that its engine really runs on; null before it said so. */
  readonly device: string | null;
  readonly rssBytes: number | null;
  /** Where its own metrics are served; null where they are not, or it is gone. */
  readonly metricsUrl: string | null;
  /** Where a step's time goes on it: mean seconds over its last steps, by phase. Null before the first. */
  readonly stepSeconds: PhaseSeconds | null;
}

/** Something of the run directory that can't be written at present: a full or read-only disk. */
export interface RecordAlarm {
  readonly part: RecordPart;
  /** Writes that failed since the last one that went well. */
  readonly failures: number;
  readonly because: string;
}

export interface RunView {
  readonly job: string;
  readonly run: string;
  readonly phase: RunPhase;
  /** Why it is in this phase, e.g. `1 of 2 workers ready`. */
  readonly because: string;
  /** Epoch in progress, from 1. */
  readonly epoch: number;
  readonly epochs: number;
  /** Steps done, of how many; and within the epoch. */
  readonly step: number;
  readonly steps: number;
  readonly epochStep: number;
  readonly epochSteps: number;
  readonly generation: number;
  /** Mean training loss of the last global batch. */
  readonly loss: number | null;
  /** Mean loss over the epoch so far. */
  readonly epochLoss: number | null;
  /** Share classified right over the epoch so far; before its first step, over the epoch before. */
  readonly accuracy: number | null;
  readonly testLoss: number | null;
  readonly testAccuracy: number | null;
  readonly learningRate: number;
  readonly gradientNorm: number | null;
  readonly imagesTotal: number;
  readonly imagesPerSecond: number;
  /** Of all steps so far, without the first one of each generation. */
  readonly imagesPerSecondMean: number;
  readonly secondsElapsed: number;
  readonly secondsLeft: number | null;
  /** What the workers are reached over: `ws` or `nats`. */
  readonly transport: string;
  readonly coordinator: { readonly pid: number; readonly host: string };
  readonly workers: readonly WorkerView[];
  /** Null when nobody stands out. */
  readonly straggler: Straggler | null;
  readonly byEpoch: readonly EpochReport[];
  readonly workersLost: number;
  readonly stepsLost: number;
  readonly microbatchesRecomputed: number;
  readonly checkpointStep: number | null;
  /** Steps after which all members' weights were compared by digest; microbatches that two workers computed. */
  readonly digestChecks: number;
  readonly audits: number;
  /** Empty when all is well. */
  readonly alarms: readonly RecordAlarm[];
}
