// The whole run as a curve of at most POINTS_MAX points, however long it is: steps are counted into bins of equal width, and when
// the bins are used up, two become one. A page that is opened late, or a coordinator that follows another, shows the run from its
// first step. Cost: one addition a step; 512 bins of some hundred bytes. What a bin forgets is which of its steps did what: it keeps
// the mean and the range of their losses.
//
// Each bin remembers the revision in which it changed last, so that who has seen revision r needs only what came after it.

export const POINTS_MAX = 512;

/** One step as it is counted; `correct` and `samples` of its global batch, `seconds` that it took. */
export interface CurveStep {
  /** Steps done with it, from 1. */
  readonly step: number;
  readonly loss: number;
  readonly accuracy: number;
  readonly samples: number;
  readonly seconds: number;
}

/** [last step, mean loss, least, greatest, accuracy, images a second]; null where no finite number is known. */
export type CurvePoint = readonly [number, number | null, number | null, number | null, number | null, number | null];

export interface CurvePart {
  /** Steps a point stands for, at most. */
  readonly width: number;
  /** Points that stay before these; 0: these are all of them. */
  readonly from: number;
  readonly points: readonly CurvePoint[];
}

interface Bin {
  index: number;
  lastStep: number;
  steps: number;
  lossSum: number;
  lossLeast: number;
  lossGreatest: number;
  correct: number;
  samples: number;
  seconds: number;
  revision: number;
}

/** Six digits are more than a page has pixels. */
const short = (value: number): number | null => (Number.isFinite(value) ? Number(value.toPrecision(6)) : null);

function pointOf(bin: Bin): CurvePoint {
  return [
    bin.lastStep,
    short(bin.lossSum / bin.steps),
    short(bin.lossLeast),
    short(bin.lossGreatest),
    short(bin.correct / bin.samples),
    bin.seconds > 0 ? short(bin.samples / bin.seconds) : null,
  ];
}

function merge(into: Bin, from: Bin): void {
  into.lastStep = from.lastStep;
  into.steps += from.steps;
  into.lossSum += from.lossSum;
  into.lossLeast = Math.min(into.lossLeast, from.lossLeast);
  into.lossGreatest = Math.max(into.lossGreatest, from.lossGreatest);
  into.correct += from.correct;
  into.samples += from.samples;
  into.seconds += from.seconds;
}

export class Curve {
  private bins: Bin[] = [];
  private width = 1;
  private lastStep = 0;
  /** Since then only the last bins changed; who has seen less needs all of them. */
  private wholeSince = 0;

  /** Counts a step. One that was counted before is done again: what was known of it and of later ones is forgotten. */
  add({ step, loss, accuracy, samples, seconds }: CurveStep, revision: number): void {
    if (step <= this.lastStep) this.forgetFrom(step, revision);
    this.lastStep = step;
    const one: Bin = {
      index: Math.floor((step - 1) / this.width),
      lastStep: step,
      steps: 1,
      lossSum: loss,
      lossLeast: loss,
      lossGreatest: loss,
      correct: accuracy * samples,
      samples,
      seconds,
      revision,
    };
    const last = this.bins.at(-1);
    if (last?.index === one.index) {
      merge(last, one);
      last.revision = revision;
      return;
    }
    this.bins.push(one);
    while (this.bins.length > POINTS_MAX) this.halve(revision);
  }

  /** A bin that began before `step` goes as a whole: what of it remains is not known. */
  private forgetFrom(step: number, revision: number): void {
    const index = Math.floor((step - 1) / this.width);
    this.bins = this.bins.filter((bin) => bin.index < index);
    this.wholeSince = revision;
  }

  private halve(revision: number): void {
    const before = this.bins;
    this.bins = [];
    this.width *= 2;
    for (const bin of before) {
      bin.index = Math.floor(bin.index / 2);
      const last = this.bins.at(-1);
      if (last?.index === bin.index) merge(last, bin);
      else this.bins.push(bin);
    }
    this.wholeSince = revision;
  }

  /** What changed after revision `seen`; null when nothing did. */
  since(seen: number): CurvePart | null {
    const changed = this.bins.findIndex((bin) => bin.revision > seen);
    const isWhole = seen < this.wholeSince;
    if (changed === -1 && !isWhole) return null;
    const from = isWhole ? 0 : changed;
    return { width: this.width, from, points: this.bins.slice(from).map(pointOf) };
  }
}

/** A line of metrics.jsonl as a step; null for one that is torn, foreign, or without the numbers. JSON writes null for NaN. */
export function stepOfLine(line: unknown): CurveStep | null {
  if (typeof line !== 'object' || line === null) return null;
  if (!('step' in line && 'samples' in line && 'seconds' in line)) return null;
  const { step, samples, seconds } = line;
  if (typeof step !== 'number' || typeof samples !== 'number' || typeof seconds !== 'number') return null;
  const number = (value: unknown): number => (typeof value === 'number' ? value : Number.NaN);
  return {
    step,
    samples,
    seconds,
    loss: number('loss' in line ? line.loss : null),
    accuracy: number('accuracy' in line ? line.accuracy : null),
  };
}
