// What all dashboards have: the selectors of data source and run, links to one another, and the marks of what happened.

import type { Builder } from '@grafana/grafana-foundation-sdk/cog';
import {
  AnnotationQueryBuilder,
  DashboardBuilder,
  DashboardCursorSync,
  DashboardLinkBuilder,
  DashboardLinkType,
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  RowBuilder,
  VariableRefresh,
  VariableSort,
  type Dashboard,
  type Panel,
} from '@grafana/grafana-foundation-sdk/dashboard';
import type { MetricName } from '../protocol/metrics.ts';
import { DATASOURCE } from './panels.ts';
import { series } from './queries.ts';

const TAG = 'lockstep';
/** A run that has begun is seen within that long. */
const REFRESH = '10s';
const RUNS: MetricName = 'lockstep_step';

/** What is marked: at the first look at which the value is another than a minute before. */
const MARKS: readonly { name: string; metric: MetricName; color: string; text: string }[] = [
  {
    name: 'Generations',
    metric: 'lockstep_generation',
    color: 'blue',
    text: 'another generation: who is in has changed',
  },
  { name: 'Lost workers', metric: 'lockstep_workers_lost_total', color: 'red', text: 'a worker was lost' },
  {
    name: 'Checkpoints',
    metric: 'lockstep_checkpoint_last_timestamp_seconds',
    color: 'green',
    text: 'a checkpoint was written',
  },
];
const LOOK = '1m';

export interface Section {
  readonly title: string;
  readonly panels: readonly Builder<Panel>[];
}

export function dashboard(about: {
  readonly uid: string;
  readonly title: string;
  readonly description: string;
  readonly sections: readonly Section[];
}): Dashboard {
  const builder = new DashboardBuilder(`Lockstep / ${about.title}`)
    .uid(about.uid)
    .description(about.description)
    .tags([TAG])
    .readonly()
    .timezone('browser')
    .time({ from: 'now-30m', to: 'now' })
    .refresh(REFRESH)
    .tooltip(DashboardCursorSync.Crosshair)
    .link(
      new DashboardLinkBuilder('Lockstep')
        .type(DashboardLinkType.Dashboards)
        .tags([TAG])
        .asDropdown(false)
        .includeVars(true)
        .keepTime(true),
    )
    .withVariable(
      new DatasourceVariableBuilder('datasource')
        .label('Prometheus')
        .description('Where the metrics are.')
        .type('prometheus'),
    )
    .withVariable(
      new QueryVariableBuilder('run')
        .label('Run')
        .description('A training run: the last part of its run directory.')
        .datasource(DATASOURCE)
        .query({ query: `label_values(${RUNS}, run)`, refId: 'runs' })
        .refresh(VariableRefresh.OnTimeRangeChanged)
        // oxlint-disable-next-line unicorn/no-array-sort -- a builder's, not an array's
        .sort(VariableSort.AlphabeticalDesc)
        .multi(false)
        .includeAll(false),
    );
  for (const { name, metric, color, text } of MARKS) {
    builder.annotation(
      new AnnotationQueryBuilder()
        .name(name)
        .datasource(DATASOURCE)
        .enable(true)
        .iconColor(color)
        .expr(`changes(${series(metric)}[${LOOK}]) > 0`)
        .step(LOOK)
        .titleFormat(name)
        .textFormat(text),
    );
  }
  for (const { title, panels } of about.sections) {
    builder.withRow(new RowBuilder(title));
    for (const panel of panels) builder.withPanel(panel);
  }
  const built = builder.build();
  // For links to one panel.
  built.panels?.forEach((panel, i) => (panel.id = i + 1));
  return built;
}
