// A metric's values as lines of an exposition, and their totals with what other processes have counted of the same series. prom-client can do
// both, by way of objects that it makes and hashes for every line: that took several times as long, and a scrape costs little else.
//
// A series is known by its text, `name{label="value",...}`, in an answer and in the record of what was shown.

import type { LabelValues, MetricObjectWithValues, MetricValueWithName } from 'prom-client';
import type { MetricKind } from '../../protocol/metrics.ts';

/** Series with what they have come to. */
export type Totals = readonly (readonly [series: string, total: number])[];

/** As prom-client's registry tells a metric, all of whose values are read at once. */
export type Family = Pick<MetricObjectWithValues<MetricValueWithName<string>>, 'name' | 'values'>;

const SPECIAL = /[\\\n"]/;

function escaped(text: string): string {
  if (!SPECIAL.test(text)) return text;
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('"', '\\"');
}

/** Labels in the order of their names in the catalogue, a bucket's bound first: the same series has the same text in every process. */
function seriesOf(name: string, labelNames: readonly string[], labels: LabelValues<string>): string {
  const { le } = labels;
  let text = le === undefined ? '' : `le="${le}"`;
  for (const label of labelNames) {
    const value = labels[label];
    if (value !== undefined) text += `${text === '' ? '' : ','}${label}="${escaped(String(value))}"`;
  }
  return text === '' ? name : `${name}{${text}}`;
}

function valueText(value: number): string {
  if (Number.isFinite(value)) return String(value);
  return Number.isNaN(value) ? 'NaN' : value < 0 ? '-Inf' : '+Inf';
}

/**
 * The family's series with their totals: its own values and what others have come to.
 *
 * @param earlier of a counter or histogram, by series; those that this process has not counted yet follow its own
 */
export function totalsOf(
  { name, values }: Family,
  labelNames: readonly string[],
  earlier: ReadonlyMap<string, number> | null = null,
): Totals {
  const own = values.map(({ value, labels, metricName = name }): readonly [string, number] => {
    const series = seriesOf(metricName, labelNames, labels);
    return [series, value + (earlier?.get(series) ?? 0)];
  });
  if (earlier === null) return own;
  const known = new Set(own.map(([series]) => series));
  return [...own, ...[...earlier].filter(([series]) => !known.has(series))];
}

/** A family as it stands in an answer. In OpenMetrics a counter's family is named without `_total`. */
export function linesOf(
  { name, help, kind }: { readonly name: string; readonly help: string; readonly kind: MetricKind },
  totals: Totals,
  isOpenMetrics: boolean,
): string {
  const called = isOpenMetrics && kind === 'counter' ? name.replace(/_total$/, '') : name;
  let text = `# HELP ${called} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}\n# TYPE ${called} ${kind}\n`;
  for (const [series, total] of totals) text += `${series} ${valueText(total)}\n`;
  return text;
}

/** The value of a label of a series that is a worker's name; null: it has no such label. */
export function workerIn(series: string, label: 'worker' | 'peer'): string | null {
  return new RegExp(`[{,]${label}="(\\w+)"`).exec(series)?.[1] ?? null;
}
