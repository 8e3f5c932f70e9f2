// Every PromQL query that the product ships: of the dashboards' panels, marks and selectors, and of the rules; and what a query asks for,
// by the parser that Prometheus's own page has.

import { readFileSync } from 'node:fs';
import { VariableType } from '@grafana/grafana-foundation-sdk/dashboard';
import { parser } from '@prometheus-io/lezer-promql';
import { parse } from 'yaml';
import { z } from 'zod';
import { dashboards } from '../../dashboards/all.ts';

export interface ShippedQuery {
  /** `Training / Loss: training`, or the rule's name. */
  readonly name: string;
  readonly expr: string;
}

const targetSchema = z.object({ expr: z.string(), legendFormat: z.string(), refId: z.string() });
const variableQuerySchema = z.object({ query: z.string() });

export function panelQueries(): ShippedQuery[] {
  return dashboards().flatMap(({ title = '', panels = [] }) =>
    panels.flatMap((panel) =>
      ('targets' in panel ? (panel.targets ?? []) : []).map((target) => {
        const { expr, legendFormat, refId } = targetSchema.parse(target);
        const board = title.replace('Lockstep / ', '');
        return { name: `${board} / ${panel.title}: ${legendFormat === '' ? refId : legendFormat}`, expr };
      }),
    ),
  );
}

export function annotationQueries(): ShippedQuery[] {
  return dashboards().flatMap(({ title = '', annotations }) =>
    (annotations?.list ?? []).map(({ name, expr = '' }) => ({
      name: `${title.replace('Lockstep / ', '')} marks ${name}`,
      expr,
    })),
  );
}

/** `label_values(METRIC, LABEL)` of the selectors. */
export function selectors(): { readonly metric: string; readonly label: string }[] {
  return dashboards().flatMap(({ templating }) =>
    (templating?.list ?? []).flatMap(({ type, query }) => {
      if (type !== VariableType.Query) return [];
      const found = /^label_values\((\w+), (\w+)\)$/.exec(variableQuerySchema.parse(query).query);
      return [{ metric: found?.[1] ?? '', label: found?.[2] ?? '' }];
    }),
  );
}

const ruleSchema = z.object({
  groups: z.array(
    z.object({
      name: z.string(),
      rules: z.array(
        z.object({
          record: z.string().optional(),
          alert: z.string().optional(),
          expr: z.string(),
          labels: z.record(z.string(), z.string()).optional(),
          annotations: z.record(z.string(), z.string()).optional(),
        }),
      ),
    }),
  ),
});
export type Rule = z.infer<typeof ruleSchema>['groups'][number]['rules'][number];

export const RULES = new URL('../../dashboards/rules/', import.meta.url);

export function rulesIn(file: 'recording.yml' | 'alerts.yml'): Rule[] {
  return ruleSchema.parse(parse(readFileSync(new URL(file, RULES), 'utf8'))).groups.flatMap(({ rules }) => rules);
}

export const ruleQueries = (): ShippedQuery[] =>
  [...rulesIn('recording.yml'), ...rulesIn('alerts.yml')].map(({ record, alert, expr }) => ({
    name: record ?? alert ?? '',
    expr,
  }));

/** As Grafana fills in a query. */
export function filledIn(expr: string, run: string, rateInterval: string): string {
  return expr.replaceAll('$run', run).replaceAll('$__rate_interval', rateInterval);
}

/** The texts of a query's nodes of a kind; `⚠` stands for what does not parse. */
export function nodesOf(expr: string, kind: string): string[] {
  const found: string[] = [];
  parser.parse(expr).iterate({
    enter: ({ type, from, to }) => {
      if (type.name === kind) found.push(expr.slice(from, to));
    },
  });
  return found;
}

/** The names of the metrics that a query reads. */
export function metricsIn(expr: string): string[] {
  return nodesOf(expr, 'VectorSelector').map((selector) => /^[\w:]+/.exec(selector)?.[0] ?? selector);
}
