// The dashboards, as far as they can be judged without a Grafana: that the JSON is what the code makes, that every query parses and asks
// for nothing that is not in the catalogue, and that each panel says what it shows. test/e2e/prometheus.test.ts runs the queries.

import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { dashboards, files } from '../../dashboards/all.ts';
import { METRICS, WORKER_METRICS, type MetricDefinition } from '../../protocol/metrics.ts';
import { promtoolPath } from '../e2e/programs.ts';
import {
  annotationQueries,
  filledIn,
  metricsIn,
  nodesOf,
  panelQueries,
  ruleQueries,
  rulesIn,
  selectors,
  type ShippedQuery,
} from './queries.ts';

const GRAFANA = new URL('../../dashboards/grafana/', import.meta.url);
const all = (): ShippedQuery[] => [...panelQueries(), ...annotationQueries(), ...ruleQueries()];

const definitions: Record<string, MetricDefinition> = { ...METRICS, ...WORKER_METRICS };
const catalogue = new Set(
  Object.entries(definitions).flatMap(([name, { kind }]) =>
    kind === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
  ),
);
const recorded = new Set(rulesIn('recording.yml').map(({ record }) => record));

describe('the generated files', () => {
  it('are what the code makes: `npm run dashboards`', () => {
    const onDisk = new Map(
      readdirSync(GRAFANA).map((name) => [name, readFileSync(new URL(name, GRAFANA), 'utf8')] as const),
    );
    expect(onDisk).toEqual(files());
  });
});

describe('queries', () => {
  it('there are some, under names of their own', () => {
    const names = all().map(({ name }) => name);
    expect(names.length).toBeGreaterThan(80);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  });

  it('parse', () => {
    const broken = all().filter(({ expr }) => nodesOf(filledIn(expr, 'r', '1m'), '⚠').length > 0);
    expect(broken).toEqual([]);
    // It can fail.
    expect(nodesOf('sum(rate(lockstep_images_total[1m])', '⚠')).not.toEqual([]);
  });

  it('of dashboards read nothing that is not on the catalogue; of rules nothing else but what they record', () => {
    const strangers = (queries: ShippedQuery[], known: (metric: string) => boolean): string[] =>
      queries.flatMap(({ name, expr }) =>
        metricsIn(filledIn(expr, 'r', '1m'))
          .filter((metric) => !known(metric))
          .map((metric) => `${name}: ${metric}`),
      );
    const isInCatalogue = (metric: string): boolean => catalogue.has(metric);
    expect(strangers([...panelQueries(), ...annotationQueries()], isInCatalogue)).toEqual([]);
    expect(strangers(ruleQueries(), (metric) => isInCatalogue(metric) || recorded.has(metric))).toEqual([]);
    expect(strangers([{ name: 'q', expr: 'sum(up)' }], isInCatalogue)).toEqual(['q: up']);
    const ofRun = { metric: 'lockstep_step', label: 'run' };
    expect(selectors()).toEqual([ofRun, ofRun, ofRun]);
  });

  it('match labels that their metrics have', () => {
    const wrong = all().flatMap(({ name, expr }) =>
      nodesOf(filledIn(expr, 'r', '1m'), 'VectorSelector').flatMap((selector) => {
        const metric = /^[\w:]+/.exec(selector)?.[0] ?? '';
        const labels = definitions[metric.replace(/_(bucket|sum|count)$/, '')]?.labels ?? definitions[metric]?.labels;
        return nodesOf(selector, 'LabelName')
          .filter((label) => labels !== undefined && !labels.includes(label))
          .map((label) => `${name}: ${metric} has no ${label}`);
      }),
    );
    expect(wrong).toEqual([]);
  });

  it('of dashboards are about the chosen run only', () => {
    const of = [...panelQueries(), ...annotationQueries()].flatMap(({ name, expr }) =>
      nodesOf(filledIn(expr, 'CHOSEN', '1m'), 'VectorSelector').map((selector) => ({ name, selector })),
    );
    expect(of.filter(({ selector }) => !selector.includes('run="CHOSEN"'))).toEqual([]);
  });
});

describe('panels', () => {
  const panels = dashboards().flatMap(({ title, panels: own = [] }) =>
    own.flatMap((panel) => ('targets' in panel ? [{ board: title, panel }] : [])),
  );

  it('say what they show, in which unit, and what it means when there is nothing', () => {
    const silent = panels.filter(({ panel: { title, description, fieldConfig, targets } }) => {
      const { unit, noValue } = fieldConfig?.defaults ?? {};
      return [title, description, unit, noValue].some((text) => (text ?? '') === '') || (targets ?? []).length === 0;
    });
    expect(silent.map(({ panel }) => panel.title)).toEqual([]);
  });

  it('have titles of their own within a section, and lie beside one another, not on', () => {
    for (const { title, panels: own = [] } of dashboards()) {
      const cells = own.flatMap(({ gridPos }) => {
        const { x = 0, y = 0, w = 0, h = 0 } = gridPos ?? {};
        return Array.from({ length: w * h }, (_, i) => `${x + (i % w)},${y + Math.floor(i / w)}`);
      });
      expect([title, new Set(cells).size]).toEqual([title, cells.length]);
      expect(Math.max(...own.map(({ gridPos }) => (gridPos?.x ?? 0) + (gridPos?.w ?? 0)))).toBe(24);
    }
  });

  it('and their dashboards take data source and run from the selectors, mark what happened, and lead to one another', () => {
    for (const { templating, annotations, links, uid } of dashboards()) {
      expect(uid).toMatch(/^lockstep-/);
      expect((templating?.list ?? []).map(({ name }) => name)).toEqual(['datasource', 'run']);
      expect((annotations?.list ?? []).map(({ name }) => name)).toEqual(['Generations', 'Lost workers', 'Checkpoints']);
      expect((links ?? []).map(({ tags, includeVars }) => [tags, includeVars])).toEqual([[['lockstep'], true]]);
    }
    const foreign = panels.filter(({ panel }) => panel.datasource?.uid !== '${datasource}');
    expect(foreign).toEqual([]);
  });

  it('show every metric of the catalogue but these', () => {
    const read = new Set(panelQueries().flatMap(({ expr }) => metricsIn(filledIn(expr, 'r', '1m'))));
    const unread = [...catalogue].filter((name) => !read.has(name) && !/_(sum|count|bucket)$/.test(name));
    // Those of a process are shown for the run by the coordinator's; the run's start is for the rules.
    expect(unread.toSorted()).toEqual([
      'lockstep_run_start_timestamp_seconds',
      'lockstep_worker_phase_seconds_total',
      'lockstep_worker_start_timestamp_seconds',
      'lockstep_worker_step',
      'lockstep_worker_steps_total',
    ]);
  });
});

describe('alerts', () => {
  it('say how bad it is, what has happened to which run, and what to do', () => {
    for (const { alert = '', labels, annotations } of rulesIn('alerts.yml')) {
      expect([alert, labels?.['severity']]).toEqual([alert, expect.stringMatching(/^(critical|warning)$/)]);
      expect([alert, annotations?.['summary']]).toEqual([alert, expect.stringContaining('{{ $labels.run }}')]);
      expect([alert, annotations?.['description']]).toEqual([alert, expect.stringMatching(/\.$/)]);
    }
  });

  it('have cases that fire and cases that do not, each', () => {
    const { tests } = parse(readFileSync(new URL('rules.yml', import.meta.url), 'utf8')) as {
      tests: { promql_expr_test: { expr: string; exp_samples: unknown[] }[] }[];
    };
    const cases = tests.flatMap(({ promql_expr_test: own }) => own);
    for (const { alert = '' } of rulesIn('alerts.yml')) {
      const own = cases.filter(({ expr }) => expr.includes(`"${alert}"`));
      const fires = new Set(own.map(({ exp_samples: samples }) => samples.length > 0));
      expect([alert, fires]).toEqual([alert, new Set([true, false])]);
    }
  });
});

describe('promtool', () => {
  const promtool = (...args: string[]): string => {
    const { status, stdout, stderr } = spawnSync(promtoolPath(), args, { encoding: 'utf8' });
    return status === 0 ? 'good' : `${stdout}${stderr}`;
  };
  const path = (file: string): string => fileURLToPath(new URL(file, import.meta.url));

  it('finds the configuration and the rules valid', () => {
    expect(promtool('check', 'config', path('../../dashboards/prometheus.yml'))).toBe('good');
    expect(
      promtool('check', 'rules', ...['recording.yml', 'alerts.yml'].map((f) => path(`../../dashboards/rules/${f}`))),
    ).toBe('good');
  });

  it('finds each alert to fire when it should, and only then', () => {
    expect(promtool('test', 'rules', path('rules.yml'))).toBe('good');
  });
});
