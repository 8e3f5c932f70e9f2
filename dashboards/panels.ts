// The kinds of panels that there are, with what is the same in all: the data source and run of the selectors, a unit, a description, and
// what an empty panel says, so that it is told from a broken one.

import type { Builder } from '@grafana/grafana-foundation-sdk/cog';
import {
  BigValueColorMode,
  BigValueGraphMode,
  BigValueTextMode,
  GraphDrawStyle,
  LegendDisplayMode,
  LegendPlacement,
  LineInterpolation,
  ReduceDataOptionsBuilder,
  SortOrder,
  StackingConfigBuilder,
  StackingMode,
  TooltipDisplayMode,
  VisibilityMode,
  VizLegendOptionsBuilder,
  type DataSourceRef,
} from '@grafana/grafana-foundation-sdk/common';
import { ThresholdsConfigBuilder, ThresholdsMode, type Panel } from '@grafana/grafana-foundation-sdk/dashboard';
import { DataqueryBuilder, PromQueryFormat } from '@grafana/grafana-foundation-sdk/prometheus';
import { PanelBuilder as StatPanel } from '@grafana/grafana-foundation-sdk/stat';
import { PanelBuilder as TablePanel } from '@grafana/grafana-foundation-sdk/table';
import { PanelBuilder as TimeseriesPanel } from '@grafana/grafana-foundation-sdk/timeseries';

export const DATASOURCE: DataSourceRef = { type: 'prometheus', uid: '${datasource}' };

/** Grafana's grid is 24 wide. */
export const WIDTH = { stat: 4, third: 8, half: 12, whole: 24 } as const;
const HEIGHT = { stat: 4, graph: 8 } as const;

export interface Query {
  readonly expr: string;
  /** In Grafana's form: `{{worker}}`. */
  readonly legend: string;
}

export interface About {
  readonly title: string;
  /** What it is and what to do about it, for who looks at it for the first time. */
  readonly description: string;
  /** One of Grafana's units. */
  readonly unit: string;
  /** Said where there is nothing to show. */
  readonly empty: string;
  readonly queries: readonly Query[];
  readonly width?: number;
  readonly decimals?: number;
}

/** Values from which on a figure is shown in a colour. */
export type Thresholds = readonly {
  readonly from: number | null;
  readonly color: 'green' | 'yellow' | 'red' | 'blue';
}[];

/** Largest first. */
const TOOLTIP = {
  build: () => ({ mode: TooltipDisplayMode.Multi, sort: SortOrder.Descending }),
};

const REFERENCES = ['A', 'B', 'C', 'D', 'E'];

const queriesOf = ({ queries }: About, isInstant: boolean): DataqueryBuilder[] =>
  queries.map(({ expr, legend }, i) => {
    const query = new DataqueryBuilder()
      .datasource(DATASOURCE)
      .expr(expr)
      .legendFormat(legend)
      .refId(REFERENCES[i] ?? `Q${i}`);
    return isInstant ? query.instant() : query.range();
  });

const thresholdsOf = (thresholds: Thresholds): ThresholdsConfigBuilder =>
  new ThresholdsConfigBuilder()
    .mode(ThresholdsMode.Absolute)
    .steps(thresholds.map(({ from, color }) => ({ value: from, color })));

const ONE_COLOR: Thresholds = [{ from: null, color: 'blue' }];

/** One figure, as it is now. */
export function figure(
  about: About & { readonly thresholds?: Thresholds; readonly shows?: 'value' | 'name'; readonly sparkline?: boolean },
): Builder<Panel> {
  const panel = new StatPanel()
    .title(about.title)
    .description(about.description)
    .datasource(DATASOURCE)
    .unit(about.unit)
    .noValue(about.empty)
    .span(about.width ?? WIDTH.stat)
    .height(HEIGHT.stat)
    .thresholds(thresholdsOf(about.thresholds ?? ONE_COLOR))
    .colorMode(BigValueColorMode.Value)
    .graphMode(about.sparkline === true ? BigValueGraphMode.Area : BigValueGraphMode.None)
    .textMode(about.shows === 'name' ? BigValueTextMode.Name : BigValueTextMode.Auto)
    .reduceOptions(new ReduceDataOptionsBuilder().calcs(['lastNotNull']).fields('').values(false))
    .targets(queriesOf(about, about.sparkline !== true));
  return about.decimals === undefined ? panel : panel.decimals(about.decimals);
}

/** Curves over time. */
export function graph(
  about: About & {
    readonly kind?: 'line' | 'stacked' | 'steps' | 'bars';
    readonly min?: number;
    readonly max?: number;
    readonly legendValues?: readonly string[];
  },
): Builder<Panel> {
  const { kind = 'line' } = about;
  const panel = new TimeseriesPanel()
    .title(about.title)
    .description(about.description)
    .datasource(DATASOURCE)
    .unit(about.unit)
    .noValue(about.empty)
    .span(about.width ?? WIDTH.half)
    .height(HEIGHT.graph)
    .lineWidth(kind === 'stacked' ? 1 : 2)
    .fillOpacity(kind === 'stacked' ? 40 : kind === 'bars' ? 60 : 0)
    .drawStyle(kind === 'bars' ? GraphDrawStyle.Bars : GraphDrawStyle.Line)
    .lineInterpolation(kind === 'steps' ? LineInterpolation.StepAfter : LineInterpolation.Linear)
    .showPoints(VisibilityMode.Never)
    .stacking(new StackingConfigBuilder().mode(kind === 'stacked' ? StackingMode.Normal : StackingMode.None).group('A'))
    .legend(
      new VizLegendOptionsBuilder()
        .displayMode(LegendDisplayMode.Table)
        .placement(LegendPlacement.Bottom)
        .showLegend(true)
        .calcs([...(about.legendValues ?? ['lastNotNull'])]),
    )
    .tooltip(TOOLTIP)
    .targets(queriesOf(about, false));
  if (about.min !== undefined) panel.min(about.min);
  if (about.max !== undefined) panel.max(about.max);
  return about.decimals === undefined ? panel : panel.decimals(about.decimals);
}

/** Labels as rows. */
export function table(about: About & { readonly columns: Readonly<Record<string, string>> }): Builder<Panel> {
  const [query] = queriesOf(about, true);
  return new TablePanel()
    .title(about.title)
    .description(about.description)
    .datasource(DATASOURCE)
    .unit(about.unit)
    .noValue(about.empty)
    .span(about.width ?? WIDTH.whole)
    .height(HEIGHT.graph)
    .targets(query === undefined ? [] : [query.format(PromQueryFormat.Table)])
    .withTransformation({
      id: 'organize',
      options: {
        includeByName: Object.fromEntries(Object.keys(about.columns).map((name) => [name, true])),
        indexByName: Object.fromEntries(Object.keys(about.columns).map((name, i) => [name, i])),
        renameByName: about.columns,
      },
    });
}
