// The run's metrics for Prometheus, made from the catalogue (protocol/metrics.ts) and fed by events, reports and the present
// view. A registry of its own: nothing global, no metric that is not in the catalogue. Cost: a few microseconds a report.
//
// Counters belong to the run, not to the process: one that takes over begins with what the one before has shown (record/counters.ts) and
// adds its own to it. What the journal tells of the whole run is taken from there.

import { Counter, Gauge, Histogram, Registry, type Metric } from 'prom-client';
import type { BatchPlan } from '../../protocol/batch-plan.ts';
import { placeOfStep } from '../../protocol/batch-plan.ts';
import { OPENMETRICS_TYPE, TEXT_TYPE, wantsOpenMetrics, type Exposition } from '../../protocol/exposition.ts';
import type { LinkTraffic, StepReport } from '../../protocol/messages.ts';
import {
  isRefusalCode,
  METRICS,
  PHASES,
  RECORD_PARTS,
  RUN_PHASES,
  WORKER_STATES,
  WRITTEN_PARTS,
  type MetricDefinition,
  type MetricName,
} from '../../protocol/metrics.ts';
import type { RunEvent } from '../../protocol/run-event.ts';
import type { RunView } from '../../protocol/run-view.ts';
import { linesOf, totalsOf, workerIn, type Totals } from './series.ts';

/** What scrapes have shown by then. */
export interface ShownCounters {
  /** Steps that the run had done. */
  readonly step: number;
  /** Of counters and histograms, by the metric's name. */
  readonly metrics: Readonly<Record<string, Totals>>;
}

/** What the record says of the run before this process. */
export interface RunPast {
  readonly startedAtSeconds: number;
  /** Coordinators that it has had. */
  readonly coordinators: number;
  /** Null: none yet. */
  readonly lastStepAtSeconds: number | null;
  readonly lastCheckpointAtSeconds: number | null;
  /** Null: nothing was shown, or that is not known any more. */
  readonly shown: ShownCounters | null;
}

export interface MetricsOptions {
  readonly run: string;
  readonly transport: string;
  readonly plan: BatchPlan;
  /** Workers that compute when all are there. */
  readonly membersWanted: number;
  readonly past: RunPast;
}

export interface RunMetrics {
  observe(event: RunEvent): void;
  /** @param isRepeated it was made to another coordinator, too, which may have counted it */
  observeWorkerStep(worker: string, report: StepReport, isRepeated: boolean): void;
  /** @param peer the worker at the link's other end */
  observeTraffic(worker: string, peer: string, link: LinkTraffic): void;
  /** A generation of these members is on record. */
  observeMembership(generation: number, members: readonly string[], isLost: (worker: string) => boolean): void;
  /** A timer that was due every so often has fired. */
  observeTick(everyMs: number): void;
  countRefusal(code: string): void;
  countRecordFailure(part: (typeof WRITTEN_PARTS)[number]): void;
  setView(view: RunView): void;
  /** What is shown, and what must be kept so that the next coordinator does not show less. */
  render(accept?: string): Promise<Exposition & { readonly shown: ShownCounters }>;
}

/** Workers that are gone and still shown: names are used once, so a run that loses many would show ever more. */
export const PAST_WORKERS_MAX = 32;

/** Samples of the first `steps` steps. */
function samplesOf(plan: BatchPlan, steps: number): number {
  const { epoch, batch } = placeOfStep(plan, steps);
  return epoch * plan.samples + Math.min(plan.samples, batch * plan.globalBatch);
}

export function createMetrics(options: MetricsOptions): RunMetrics {
  const { plan, past } = options;
  const registry = new Registry();
  const made = new Map<string, Metric>();
  for (const [name, definition] of Object.entries<MetricDefinition>(METRICS)) {
    const common = { name, help: definition.help, labelNames: [...definition.labels], registers: [registry] };
    if (definition.kind === 'counter') made.set(name, new Counter(common));
    else if (definition.kind === 'gauge') made.set(name, new Gauge(common));
    else made.set(name, new Histogram({ ...common, buckets: [...(definition.buckets ?? [])] }));
  }
  const labels = { run: options.run };
  const set = (name: MetricName, value: number | null, more: Record<string, string> = {}): void => {
    const metric = made.get(name);
    if (metric instanceof Gauge && value !== null) metric.set({ ...labels, ...more }, value);
  };
  const add = (name: MetricName, value: number, more: Record<string, string> = {}): void => {
    const metric = made.get(name);
    if (metric instanceof Counter) metric.inc({ ...labels, ...more }, value);
  };
  const observeValue = (name: MetricName, value: number, more: Record<string, string> = {}): void => {
    const metric = made.get(name);
    if (metric instanceof Histogram) metric.observe({ ...labels, ...more }, value);
  };
  // Counters are there from the start: a rate over a counter that appears with its first event misses that event.
  for (const [name, definition] of Object.entries<MetricDefinition>(METRICS)) {
    const metric = made.get(name);
    if (metric instanceof Counter && definition.labels.length === 1) metric.inc(labels, 0);
    if (metric instanceof Histogram && definition.labels.length === 1) metric.zero(labels);
  }
  for (const part of WRITTEN_PARTS) add('lockstep_record_failures_total', 0, { part });

  /** What other processes have shown of counters and histograms, by the metric's name and the series. */
  const shownBefore = new Map(
    Object.entries(past.shown?.metrics ?? {}).map(([name, totals]) => [name, new Map(totals)] as const),
  );
  const before = (name: MetricName): number =>
    [...(shownBefore.get(name)?.values() ?? [])].reduce((sum, value) => sum + value, 0);
  /** Totals of this process: the counter follows them. */
  const followed = new Map<MetricName, number>();
  const follow = (name: MetricName, total: number): void => {
    add(name, Math.max(0, total - (followed.get(name) ?? 0)));
    followed.set(name, Math.max(total, followed.get(name) ?? 0));
  };
  /** Totals of the whole run: what another process has shown of them is a part. */
  const followRun = (name: MetricName, total: number): void => follow(name, total - before(name));

  set('lockstep_run_start_timestamp_seconds', past.startedAtSeconds);
  set('lockstep_members_wanted', options.membersWanted);
  set('lockstep_step_last_timestamp_seconds', past.lastStepAtSeconds);
  set('lockstep_checkpoint_last_timestamp_seconds', past.lastCheckpointAtSeconds);
  followRun('lockstep_coordinator_restarts_total', past.coordinators);

  /** Workers whose mismatch is counted: a mismatch or refusal, and the failure that it becomes, are one. */
  const mismatched = new Set<string>();
  const countMismatch = (workers: readonly string[]): void => {
    if (workers.some((worker) => mismatched.has(worker))) return;
    for (const worker of workers) mismatched.add(worker);
    add('lockstep_digest_mismatches_total', 1);
  };

  const engines = new Map<string, Record<string, string>>();
  /** What a worker has and runs now is nothing once it is gone; what it did stays counted. */
  const end = (worker: string): void => {
    made.get('lockstep_worker_resident_memory_bytes')?.remove({ ...labels, worker });
    made.get('lockstep_engine_info')?.remove({ ...labels, ...engines.get(worker) });
    engines.delete(worker);
  };

  let members: readonly string[] = [];
  let lastStepAtMs: number | null = null;
  /** Since when there has been no step for the loss of a member, and the generation whose first step ends that. */
  let recovering: { readonly sinceMs: number; generation: number } | null = null;
  let hasBegun = false;
  let isGradientFinite = true;
  let lastTickAtMs: number | null = null;

  const forget = async (worker: string): Promise<void> => {
    const isIts = (series: string): boolean =>
      workerIn(series, 'worker') === worker || workerIn(series, 'peer') === worker;
    for (const totals of shownBefore.values())
      for (const series of totals.keys()) if (isIts(series)) totals.delete(series);
    for (const metric of made.values()) {
      for (const { labels: found } of (await metric.get()).values) {
        const { le: _bound, ...its } = found;
        if (its['worker'] === worker || its['peer'] === worker) metric.remove(its);
      }
    }
  };

  /** Workers that something is shown of. */
  const known = new Set(
    [...shownBefore.values()].flatMap((totals) =>
      [...totals.keys()].flatMap((series) => workerIn(series, 'worker') ?? []),
    ),
  );
  const forgetOldest = async (view: RunView): Promise<void> => {
    const living = new Set(view.workers.filter(({ state }) => state !== 'lost').map(({ id }) => id));
    const gone = [...known].filter((name) => !living.has(name));
    const inOrder = gone.toSorted((a, b) => a.localeCompare(b, 'en', { numeric: true }));
    for (const worker of inOrder.slice(0, Math.max(0, inOrder.length - PAST_WORKERS_MAX))) {
      known.delete(worker);
      await forget(worker);
    }
  };
  let view: RunView | null = null;

  return {
    observe: (event) => {
      switch (event.kind) {
        case 'step': {
          const nowMs = performance.now();
          set('lockstep_step_last_timestamp_seconds', Date.now() / 1000);
          if (recovering !== null && event.generation >= recovering.generation) {
            observeValue('lockstep_recovery_duration_seconds', (nowMs - recovering.sinceMs) / 1000);
            recovering = null;
          }
          lastStepAtMs = nowMs;
          return;
        }
        case 'generation':
          hasBegun = true;
          return;
        case 'checkpoint':
          observeValue('lockstep_checkpoint_duration_seconds', event.seconds);
          set('lockstep_checkpoint_last_timestamp_seconds', Date.now() / 1000);
          return;
        case 'worker-ready': {
          const { name, library, device } = event.engine;
          known.add(event.worker);
          const its = { worker: event.worker, engine: name, library, device };
          engines.set(event.worker, its);
          set('lockstep_engine_info', 1, its);
          return;
        }
        case 'worker-refused':
          if (event.code === 'E_DIGEST') countMismatch([event.worker]);
          return;
        case 'mismatch':
          countMismatch(event.workers);
          return;
        case 'failed':
        case 'worker-lost':
          if (event.cause.code === 'E_DIGEST') countMismatch([event.cause.who]);
          if (event.cause.code === 'E_NOT_FINITE') isGradientFinite = false;
          return;
        case 'waiting':
        case 'listening':
        case 'resumed':
        case 'warning':
        case 'worker-joined':
        case 'epoch':
        case 'stopping':
        case 'finished':
          return;
      }
    },
    observeWorkerStep: (worker, report, isRepeated) => {
      if (isRepeated && report.step <= (past.shown?.step ?? 0)) return;
      known.add(worker);
      for (const phase of PHASES) {
        observeValue('lockstep_step_duration_seconds', report.phases[phase], { worker, phase });
      }
      const duration = report.phases.allreduce + report.phases.wait;
      observeValue('lockstep_allreduce_duration_seconds', duration, { worker, transport: options.transport });
      set('lockstep_worker_resident_memory_bytes', report.rssBytes, { worker });
    },
    observeTraffic: (worker, peer, { transport, bytesOut, bytesIn }) => {
      add('lockstep_allreduce_bytes_total', bytesOut, { worker, peer, transport });
      add('lockstep_allreduce_received_bytes_total', bytesIn, { worker, peer, transport });
    },
    observeMembership: (generation, present, isLost) => {
      const hasLost = members.some((member) => !present.includes(member) && isLost(member));
      members = present;
      // Another loss before the first step makes it longer, not another one.
      if (recovering !== null) recovering.generation = generation;
      else if (hasLost) recovering = { sinceMs: lastStepAtMs ?? performance.now(), generation };
    },
    observeTick: (everyMs) => {
      const nowMs = performance.now();
      if (lastTickAtMs !== null) {
        const late = Math.max(0, nowMs - lastTickAtMs - everyMs);
        observeValue('lockstep_coordinator_event_loop_lag_seconds', late / 1000);
      }
      lastTickAtMs = nowMs;
    },
    countRefusal: (code) => add('lockstep_workers_refused_total', 1, { code: isRefusalCode(code) ? code : 'other' }),
    countRecordFailure: (part) => add('lockstep_record_failures_total', 1, { part }),
    setView: (now) => {
      view = now;
      set('lockstep_step', now.step);
      set('lockstep_steps', now.steps);
      set('lockstep_epoch', now.epoch);
      set('lockstep_epochs', now.epochs);
      set('lockstep_epoch_progress_ratio', now.epochStep / now.epochSteps);
      set('lockstep_time_left_seconds', now.secondsLeft);
      set('lockstep_loss', now.loss);
      set('lockstep_accuracy', now.accuracy);
      set('lockstep_test_loss', now.testLoss);
      set('lockstep_test_accuracy', now.testAccuracy);
      set('lockstep_learning_rate', now.learningRate);
      set('lockstep_gradient_norm', isGradientFinite ? now.gradientNorm : Number.NaN);
      set('lockstep_images_per_second', now.imagesPerSecond);
      set('lockstep_images_per_second_mean', now.imagesPerSecondMean);
      set('lockstep_generation', now.generation);
      for (const state of RUN_PHASES) set('lockstep_run_state', now.phase === state ? 1 : 0, { state });
      for (const state of WORKER_STATES) {
        set('lockstep_workers', now.workers.filter((w) => w.state === state).length, { state });
      }
      for (const { id, state } of now.workers) if (state === 'lost' && engines.has(id)) end(id);
      for (const part of RECORD_PARTS) {
        set('lockstep_record_alarms', now.alarms.some((alarm) => alarm.part === part) ? 1 : 0, { part });
      }
      followRun('lockstep_images_total', samplesOf(plan, now.step));
      followRun('lockstep_workers_lost_total', now.workersLost);
      // Until a generation begins, whoever is still there may have the steps that seem to be lost.
      if (hasBegun) follow('lockstep_steps_lost_total', now.stepsLost);
      follow('lockstep_microbatches_recomputed_total', now.microbatchesRecomputed);
      follow('lockstep_digest_checks_total', now.digestChecks);
      follow('lockstep_audits_total', now.audits);
      const { user, system } = process.cpuUsage();
      follow('lockstep_coordinator_cpu_seconds_total', (user + system) / 1e6);
      set('lockstep_coordinator_resident_memory_bytes', process.memoryUsage.rss());
    },
    render: async (accept) => {
      if (view !== null) await forgetOldest(view);
      // All are read at once: what is shown together belongs together.
      const families = await Promise.all(
        Object.entries<MetricDefinition>(METRICS).map(async ([name, definition]) => {
          const { values = [] } = (await made.get(name)?.get()) ?? {};
          return { name, ...definition, values };
        }),
      );
      const shown: Record<string, Totals> = {};
      const isOpenMetrics = wantsOpenMetrics(accept);
      const parts = families.map((family) => {
        const totals = totalsOf(family, family.labels, shownBefore.get(family.name));
        if (family.kind !== 'gauge') shown[family.name] = totals;
        return linesOf(family, totals, isOpenMetrics);
      });
      return {
        contentType: isOpenMetrics ? OPENMETRICS_TYPE : TEXT_TYPE,
        text: isOpenMetrics ? `${parts.join('')}# EOF\n` : parts.join('\n'),
        shown: { step: view?.step ?? 0, metrics: shown },
      };
    },
  };
}
