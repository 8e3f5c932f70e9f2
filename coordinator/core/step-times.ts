// Where one worker's steps spend their time: means over its last steps, for who watches, and over all of them, for the report. And from
// those of all workers, whom the others wait for. Core: every number comes in with a report.
//
// Backward time is no mark of a straggler: where the exchange runs beside it, all ranks seem equally slow. The wait is one: a rank
// that is waited for comes last, finds everybody's parts there, and waits least itself.

import type { PhaseSeconds } from '../../protocol/messages.ts';
import type { Straggler } from '../../protocol/report.ts';

/** Steps that the present means are taken over. */
const RECENT_STEPS = 50;
/** Nobody is called a straggler by fewer. */
const JUDGED_STEPS = 20;
/** Of a step, that the others must lose by waiting: less is the noise of machines. */
const STRAGGLER_SHARE = 0.1;

const NONE: PhaseSeconds = { data: 0, compute: 0, allreduce: 0, apply: 0, wait: 0 };

const plus = (a: PhaseSeconds, b: PhaseSeconds): PhaseSeconds => ({
  data: a.data + b.data,
  compute: a.compute + b.compute,
  allreduce: a.allreduce + b.allreduce,
  apply: a.apply + b.apply,
  wait: a.wait + b.wait,
});

const over = (sum: PhaseSeconds, count: number): PhaseSeconds => ({
  data: sum.data / count,
  compute: sum.compute / count,
  allreduce: sum.allreduce / count,
  apply: sum.apply / count,
  wait: sum.wait / count,
});

const secondsOf = (phases: PhaseSeconds): number =>
  phases.data + phases.compute + phases.allreduce + phases.apply + phases.wait;

export class StepTimes {
  private recent: PhaseSeconds[] = [];
  private sum = NONE;
  private count = 0;

  add(phases: PhaseSeconds): void {
    this.sum = plus(this.sum, phases);
    this.count++;
    this.recent.push(phases);
    if (this.recent.length > RECENT_STEPS) this.recent.shift();
  }

  /** Mean of the last steps; null before the first. */
  get now(): PhaseSeconds | null {
    return this.recent.length === 0 ? null : over(this.recent.reduce(plus, NONE), this.recent.length);
  }

  /** Mean of all steps; null before the first. */
  get mean(): PhaseSeconds | null {
    return this.count === 0 ? null : over(this.sum, this.count);
  }

  get steps(): number {
    return this.count;
  }

  /** Steps that `now` is taken over. */
  get recentSteps(): number {
    return this.recent.length;
  }

  /** Another membership: what is recent begins anew. */
  begin(): void {
    this.recent = [];
  }
}

interface Timed {
  readonly worker: string;
  readonly steps: number;
  readonly phases: PhaseSeconds | null;
}

/** Whom the others wait for, `least` of a step or longer; null when nobody stands out, or too little is known. */
export function stragglerOf(workers: readonly Timed[], least = STRAGGLER_SHARE): Straggler | null {
  const known = workers.flatMap(({ worker, steps, phases }) =>
    phases === null || steps < JUDGED_STEPS ? [] : [{ worker, phases }],
  );
  const [last, ...others] = known.toSorted((a, b) => a.phases.wait - b.phases.wait);
  if (last === undefined || others.length === 0 || known.length < workers.length) return null;
  const mean = (of: (phases: PhaseSeconds) => number): number =>
    others.reduce((sum, { phases }) => sum + of(phases), 0) / others.length;
  const waitedSeconds = mean(({ wait }) => wait) - last.phases.wait;
  const share = waitedSeconds / mean(secondsOf);
  if (!(share >= least)) return null;
  const ms = (seconds: number): string => `${(1000 * seconds).toFixed(2)} ms`;
  const work = ({ data, compute }: PhaseSeconds): number => data + compute;
  return {
    worker: last.worker,
    waitedSeconds,
    because: `the others wait ${ms(waitedSeconds)} a step for it (${Math.round(100 * share)} %): it computes for ${ms(work(last.phases))}, they for ${ms(mean(work))}`,
  };
}
