// Against what prom-client writes itself: of one process, and of two whose values are added up.

import { AggregatorRegistry, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { expect, it } from 'vitest';
import type { MetricKind } from '../../../protocol/metrics.ts';
import { linesOf, totalsOf, workerIn, type Totals } from '../../../coordinator/http/series.ts';

const LABELS = ['run', 'worker', 'peer'];

/** A process that has counted so far as `scale` says. */
function counted(scale: number): Registry {
  const registry = new Registry();
  const registers = [registry];
  const steps = new Counter({ name: 'steps_total', help: 'Steps.', labelNames: LABELS, registers });
  const state = new Gauge({ name: 'state', help: 'A path: C:\\new,\nin two lines.', labelNames: LABELS, registers });
  const seconds = new Histogram({ name: 's', help: 'S.', labelNames: LABELS, buckets: [0.5, 1, 10], registers });
  for (let i = 0; i < 3 + scale; i++) {
    const labels = { run: 'r "1"\\\n', worker: `w${i}` };
    steps.inc({ ...labels, peer: 'w9' }, i + scale / 8);
    state.set(labels, i === 0 ? Number.NaN : i === 1 ? -Infinity : 0.1 * i * scale);
    for (const value of [0.25, 0.7, 3, 100]) seconds.observe(labels, value * scale);
  }
  new Gauge({ name: 'plain', help: 'Without labels.', registers }).set(1e21 * scale);
  registry.registerMetric(
    new Counter({ name: 'nothing_total', help: 'Nothing yet.', labelNames: LABELS, registers: [] }),
  );
  return registry;
}

type Whole = Awaited<ReturnType<Counter['get']>>;
const headOf = ({ name, help, type }: Whole) => ({ name, help, kind: String(type) as MetricKind });
const familiesOf = async (registry: Registry): Promise<Whole[]> =>
  Promise.all(registry.getMetricsAsArray().map(async (metric) => registry.getSingleMetric(metric.name)!.get()));

it('one process’s values stand as prom-client writes them, but for its spelling of what is no number', async () => {
  const registry = counted(1);
  const families = await familiesOf(registry);
  const text = families.map((family) => linesOf(headOf(family), totalsOf(family, LABELS), false)).join('\n');
  expect(text).toBe((await registry.metrics()).replaceAll(' Nan\n', ' NaN\n'));
});

it('in OpenMetrics a counter’s family is named without _total', () => {
  const family = { name: 'steps_total', help: 'Steps.', kind: 'counter' } as const;
  expect(linesOf(family, [['steps_total{run="r"}', 3]], true)).toBe(
    '# HELP steps Steps.\n# TYPE steps counter\nsteps_total{run="r"} 3\n',
  );
});

it('what others have come to is added to the same series, and there where this process has none', async () => {
  const [mine, theirs] = [counted(1), counted(3)];
  const earlier = new Map<string, Map<string, number>>();
  for (const family of await familiesOf(theirs)) {
    const totals = JSON.parse(JSON.stringify(totalsOf(family, LABELS))) as Totals;
    earlier.set(family.name, new Map(totals));
  }
  const both = AggregatorRegistry.aggregate([await mine.getMetricsAsJSON(), await theirs.getMetricsAsJSON()]);
  for (const family of await familiesOf(mine)) {
    if (family.name === 'state' || family.name === 'plain') continue;
    const totals = totalsOf(family, LABELS, earlier.get(family.name));
    const expected = (await both.getSingleMetricAsString(family.name))
      .split('\n')
      .filter((line) => !line.startsWith('#'));
    expect(totals.map(([series, total]) => `${series} ${total}`)).toEqual(expected);
  }
});

it('of a series it is known whose it is, and with whom', () => {
  const link = 'a_total{run="w7",worker="w1",peer="w20",transport="shm"}';
  expect([workerIn(link, 'worker'), workerIn(link, 'peer')]).toEqual(['w1', 'w20']);
  expect(workerIn('a_bucket{le="1",worker="w1",phase="apply"}', 'worker')).toBe('w1');
  expect(workerIn('a_total{run="r"}', 'worker')).toBe(null);
});
