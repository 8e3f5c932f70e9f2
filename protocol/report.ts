// The run report: `report.json`, schema 1. Launch scripts, benches and checks read it; fields are added, never renamed.

import type { z } from 'zod';
import type { Transport } from './link.ts';
import type { engineInfoSchema, PhaseSeconds } from './messages.ts';
import type { GradientCompression } from './run-config.ts';

export interface EpochReport {
  /** From 1. */
  readonly epoch: number;
  /** Mean training loss over the epoch's samples, as they were trained on (augmented, before each update). */
  readonly loss: number;
  /** Mean over the test samples after the epoch; null when there are none. */
  readonly testLoss: number | null;
  readonly testAccuracy: number | null;
  /** Training time without evaluation. */
  readonly seconds: number;
  readonly imagesPerSecond: number;
}

/** The job's source was another one from a step on, which `--allow-changed-job` let pass. */
export interface JobChange {
  /** Steps done with the job before. */
  readonly step: number;
  /** SHA-256 of the job's source before and after. */
  readonly from: string;
  readonly to: string;
}

/** The worker that the others wait for. */
export interface Straggler {
  readonly worker: string;
  /** That the others wait longer than it does, a step, on average. */
  readonly waitedSeconds: number;
  readonly because: string;
}

export interface RunReport {
  readonly schema: 1;
  readonly lockstep: string;
  readonly job: string;
  readonly run: string;
  readonly state: 'done' | 'stopped' | 'failed';
  readonly engine: z.infer<typeof engineInfoSchema> & {
    readonly fingerprint: string;
    readonly precision: string;
  };
  /** As asked for: `ws` or `nats`. */
  readonly transport: string;
  /** The NATS server, and its key-value bucket that holds a copy of the record, if JetStream keeps one; null over `ws`. */
  readonly nats: { readonly server: string; readonly bucket: string | null } | null;
  /** What the gradients really went over, and the bytes that all workers sent; empty for a worker alone. */
  readonly traffic: readonly { readonly transport: Transport; readonly bytes: number }[];
  /** How gradients travelled: `none`, or `bf16` or `fp16` with error feedback. */
  readonly gradientCompression: GradientCompression;
  /** False where workers with other engines took part, or the job was changed on the way. */
  readonly reproducible: boolean;
  /** Over the whole life of the run; most have none. */
  readonly jobChanges: readonly JobChange[];
  readonly seed: number;
  readonly globalBatch: number;
  readonly microbatches: number;
  readonly learningRate: number;
  readonly augment: string;
  readonly dataSet: {
    readonly name: string;
    readonly trainSamples: number;
    readonly testSamples: number;
  };
  readonly epochs: number;
  /** Optimizer steps done over the whole life of the run, resumed parts included. */
  readonly steps: number;
  readonly resumedFromStep: number | null;
  /** Training samples used by this process's part of the run. */
  readonly samples: number;
  readonly workersStarted: number;
  readonly generations: number;
  readonly workersLost: number;
  readonly stepsLost: number;
  readonly microbatchesRecomputed: number;
  /** SHA-256 of the final weights' float32 little-endian bytes, in model order. */
  readonly digest: string | null;
  /** Steps done by those weights: fewer than `steps` where the run stopped while it did some again, which had been lost. */
  readonly digestStep: number | null;
  /** Mean training loss of the last step's global batch. */
  readonly finalLoss: number | null;
  readonly testLoss: number | null;
  readonly testAccuracy: number | null;
  readonly byEpoch: readonly EpochReport[];
  /** Wall time from the coordinator's start to the report. */
  readonly seconds: number;
  /** Steady training, without set-up, evaluation and each generation's first step. */
  readonly imagesPerSecond: number;
  /** Mean seconds a step, over ranks. */
  readonly stepSeconds: PhaseSeconds;
  /** The same of each rank. */
  readonly byWorker: readonly {
    readonly worker: string;
    readonly rank: number;
    readonly host: string;
    readonly stepSeconds: PhaseSeconds;
  }[];
  /** As in the view, over the whole run. */
  readonly straggler: Straggler | null;
  readonly peakRssBytes: { readonly coordinator: number; readonly workers: readonly number[] };
}
