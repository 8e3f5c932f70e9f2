// PromQL over the catalogue's names, for the run that the dashboard's selector says: a name that is not on the catalogue does not compile.
// Shares and efficiencies are taken from the phases of steps, which add up to a step's time on each worker.

import type { MetricName, WorkerMetricName } from '../protocol/metrics.ts';

type Name = MetricName | WorkerMetricName;
type HistogramName = `${Name}_sum` | `${Name}_count` | `${Name}_bucket`;

/** The series of a name in the chosen run, and with these further matchers. */
export function series(name: Name | HistogramName, matchers = ''): string {
  return `${name}{run="$run"${matchers === '' ? '' : `, ${matchers}`}}`;
}

export const rate = (name: Name | HistogramName, matchers = ''): string =>
  `rate(${series(name, matchers)}[$__rate_interval])`;

/** A quantile (0 to 1) of a histogram, by these labels. */
export function quantile(q: number, name: Name, by: readonly string[] = []): string {
  return `histogram_quantile(${q}, sum by (${['le', ...by].join(', ')}) (${rate(`${name}_bucket`)}))`;
}

const PHASE_SUM = 'lockstep_step_duration_seconds_sum';

/** Of workers that are gone the sums stay, and stand still: nothing divided by nothing is no share. */
const some = (expr: string): string => `(${expr} > 0)`;

/** Mean seconds of a step in each phase, over the workers. */
export const STEP_SECONDS_BY_PHASE = `sum by (phase) (${rate(PHASE_SUM)}) / ${some(`sum by (phase) (${rate('lockstep_step_duration_seconds_count')})`)}`;

/** Mean seconds of a step, over the workers: all phases. */
export const STEP_SECONDS = `sum(${rate(PHASE_SUM)}) / ${some(`sum(${rate('lockstep_step_duration_seconds_count', 'phase="compute"')})`)}`;

/** The share of a phase in the time of all workers, or with `by` of each. */
export function shareOfPhase(phase: string, by?: string): string {
  const grouped = by === undefined ? 'sum' : `sum by (${by})`;
  return `${grouped} (${rate(PHASE_SUM, `phase="${phase}"`)}) / ${some(`${grouped} (${rate(PHASE_SUM)})`)}`;
}

/**
 * What a lone worker would need for a step, over what these need together: its data and gradients are all of theirs, and it applies the
 * update once where each of them does. What they lose to one another by sharing a machine's memory and caches is in both, and not seen.
 */
export const SCALING_EFFICIENCY = `(sum(${rate(PHASE_SUM, 'phase=~"data|compute"')}) + avg(${some(rate(PHASE_SUM, 'phase="apply"'))})) / ${some(`sum(${rate(PHASE_SUM)})`)}`;
