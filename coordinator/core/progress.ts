// How far the training is and how well it goes: sums over steps, epochs and evaluations, as they are reported by the workers.
// Core: no clock; every number comes in with a report. It goes whole into each checkpoint, so that a resumed run's epochs read
// as if nothing had happened.

import type { LinkTraffic, PhaseSeconds, StepReport, WorkerMessage } from '../../protocol/messages.ts';
import type { Transport } from '../../protocol/link.ts';
import type { EpochReport } from '../../protocol/report.ts';

export type EvaluationReport = Extract<WorkerMessage, { kind: 'evaluation' }>;

/** What a checkpoint keeps of the progress: sums of the epoch in progress, and the epochs that are complete. */
export interface ProgressRecord {
  readonly epochLossSum: number;
  readonly epochCorrect: number;
  readonly epochSamples: number;
  readonly epochSeconds: number;
  readonly byEpoch: readonly EpochReport[];
  readonly lastLoss: number | null;
  readonly testLoss: number | null;
  readonly testAccuracy: number | null;
}

export const NO_PROGRESS: ProgressRecord = {
  epochLossSum: 0,
  epochCorrect: 0,
  epochSamples: 0,
  epochSeconds: 0,
  byEpoch: [],
  lastLoss: null,
  testLoss: null,
  testAccuracy: null,
};

export interface TestResult {
  readonly loss: number;
  readonly accuracy: number;
  readonly samples: number;
}

/** Sums the pieces of an evaluation in their fixed order, whoever computed them: the same bits for any number of workers. */
export function sumEvaluation(chunks: EvaluationReport['chunks']): TestResult | null {
  const ordered = chunks.toSorted((a, b) => a.index - b.index);
  let lossSum = 0;
  let correct = 0;
  let samples = 0;
  for (const chunk of ordered) {
    lossSum += chunk.lossSum;
    correct += chunk.correct;
    samples += chunk.samples;
  }
  return samples === 0 ? null : { loss: lossSum / samples, accuracy: correct / samples, samples };
}

const NO_PHASES: PhaseSeconds = { data: 0, compute: 0, allreduce: 0, apply: 0, wait: 0 };

export class Progress {
  private epochLossSum: number;
  private epochCorrect: number;
  private epochSamples: number;
  /** Of the epoch before, which is all that is known until a step of the next is done. */
  private accuracyBefore: number | null = null;
  private epochSeconds: number;
  private epochs: EpochReport[];
  /** Epochs that are trained through but not yet evaluated, by their last step. */
  private readonly unfinished = new Map<number, Omit<EpochReport, 'testLoss' | 'testAccuracy'>>();

  lastLoss: number | null;
  gradientNorm: number | null = null;
  test: { loss: number | null; accuracy: number | null };
  /** Samples and seconds of this process's part of the run; `steady` leaves out each generation's first step. */
  samples = 0;
  private readonly sent = new Map<Transport, number>();
  private steadySamples = 0;
  private steadySeconds = 0;
  private phaseSums: PhaseSeconds = NO_PHASES;
  private phaseReports = 0;
  private recent: { samples: number; seconds: number }[] = [];

  constructor(record: ProgressRecord) {
    this.epochLossSum = record.epochLossSum;
    this.epochCorrect = record.epochCorrect;
    this.epochSamples = record.epochSamples;
    this.epochSeconds = record.epochSeconds;
    this.epochs = [...record.byEpoch];
    this.lastLoss = record.lastLoss;
    this.test = { loss: record.testLoss, accuracy: record.testAccuracy };
  }

  /** Counts what a worker sent. */
  traffic(carried: readonly LinkTraffic[]): void {
    for (const { transport, bytesOut } of carried) {
      this.sent.set(transport, (this.sent.get(transport) ?? 0) + bytesOut);
    }
  }

  /** Bytes that all workers sent, by what carried them. */
  get bytesSent(): { transport: Transport; bytes: number }[] {
    return [...this.sent].map(([transport, bytes]) => ({ transport, bytes }));
  }

  /** A step is done: one report of it, taken from one rank. `warmUp`: the first step of a generation. */
  step(report: StepReport, warmUp: boolean): void {
    this.epochLossSum += report.lossSum;
    this.epochCorrect += report.correct;
    this.epochSamples += report.samples;
    this.epochSeconds += report.seconds;
    this.samples += report.samples;
    this.lastLoss = report.lossSum / report.samples;
    this.gradientNorm = report.gradientNorm;
    if (warmUp) return;
    this.steadySamples += report.samples;
    this.steadySeconds += report.seconds;
    this.recent.push({ samples: report.samples, seconds: report.seconds });
    if (this.recent.length > RECENT_STEPS) this.recent.shift();
  }

  /** Where the time of a step went on one rank. */
  phases(seconds: PhaseSeconds): void {
    const sums = this.phaseSums;
    this.phaseSums = {
      data: sums.data + seconds.data,
      compute: sums.compute + seconds.compute,
      allreduce: sums.allreduce + seconds.allreduce,
      apply: sums.apply + seconds.apply,
      wait: sums.wait + seconds.wait,
    };
    this.phaseReports++;
  }

  /** The epoch (from 1) is trained through with step `step`; its evaluation may still be under way. */
  endEpoch(epoch: number, step: number): void {
    this.unfinished.set(step, {
      epoch,
      loss: this.epochLossSum / this.epochSamples,
      seconds: this.epochSeconds,
      imagesPerSecond: this.epochSeconds > 0 ? this.epochSamples / this.epochSeconds : 0,
    });
    this.accuracyBefore = this.epochAccuracy;
    this.epochLossSum = 0;
    this.epochCorrect = 0;
    this.epochSamples = 0;
    this.epochSeconds = 0;
  }

  /** The evaluation after `step` is complete; returns the epoch that it completes, if any. */
  evaluated(step: number, result: TestResult | null): EpochReport | null {
    if (result !== null) this.test = { loss: result.loss, accuracy: result.accuracy };
    return this.complete(step, result);
  }

  /** Completes the epochs that ended before `step` without an evaluation: of who made one, somebody is gone. */
  withoutEvaluation(step: number): { readonly step: number; readonly report: EpochReport }[] {
    const ended = [...this.unfinished.keys()].filter((end) => end < step);
    return ended.flatMap((end) => {
      const report = this.complete(end, null);
      return report === null ? [] : [{ step: end, report }];
    });
  }

  private complete(step: number, result: TestResult | null): EpochReport | null {
    const unfinished = this.unfinished.get(step);
    if (unfinished === undefined) return null;
    this.unfinished.delete(step);
    const { epoch, loss, seconds, imagesPerSecond } = unfinished;
    const tested = { testLoss: result?.loss ?? null, testAccuracy: result?.accuracy ?? null };
    const report: EpochReport = { epoch, loss, ...tested, seconds, imagesPerSecond };
    this.epochs.push(report);
    return report;
  }

  get byEpoch(): readonly EpochReport[] {
    return this.epochs;
  }

  get epochLoss(): number | null {
    return this.epochSamples === 0 ? null : this.epochLossSum / this.epochSamples;
  }

  /** Of the epoch so far; before its first step that of the epoch before. Where an epoch takes milliseconds there is nothing else to see. */
  get epochAccuracy(): number | null {
    return this.epochSamples === 0 ? this.accuracyBefore : this.epochCorrect / this.epochSamples;
  }

  /** Samples a second over the last steps. */
  get recentImagesPerSecond(): number {
    let samples = 0;
    let seconds = 0;
    for (const step of this.recent) {
      samples += step.samples;
      seconds += step.seconds;
    }
    return seconds > 0 ? samples / seconds : 0;
  }

  get steadyImagesPerSecond(): number {
    return this.steadySeconds > 0 ? this.steadySamples / this.steadySeconds : 0;
  }

  /** Mean seconds a step by phase, over ranks and steps. */
  get stepSeconds(): PhaseSeconds {
    const count = Math.max(1, this.phaseReports);
    const sums = this.phaseSums;
    return {
      data: sums.data / count,
      compute: sums.compute / count,
      allreduce: sums.allreduce / count,
      apply: sums.apply / count,
      wait: sums.wait / count,
    };
  }

  record(): ProgressRecord {
    return {
      epochLossSum: this.epochLossSum,
      epochCorrect: this.epochCorrect,
      epochSamples: this.epochSamples,
      epochSeconds: this.epochSeconds,
      byEpoch: [...this.epochs],
      lastLoss: this.lastLoss,
      testLoss: this.test.loss,
      testAccuracy: this.test.accuracy,
    };
  }
}

/** Steps that the live throughput is taken over. */
const RECENT_STEPS = 50;
