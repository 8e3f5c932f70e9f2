// The run's metrics for Prometheus, made from the catalogue (protocol/metrics.ts) and fed by events, reports and the present
// view. A registry of its own: nothing global, no metric that is not in the catalogue. Cost: a few microseconds a report.

import { Counter, Gauge, Histogram, Registry, type Metric } from 'prom-client';
import type { LinkTraffic, StepReport } from '../../protocol/messages.ts';
import {
  METRICS,
  PHASES,
  RECORD_PARTS,
  WORKER_STATES,
  type MetricDefinition,
  type MetricName,
  type RecordPart,
} from '../../protocol/metrics.ts';
import type { RunEvent } from '../../protocol/run-event.ts';
import type { RunView } from '../../protocol/run-view.ts';

export interface RunMetrics {
  observe(event: RunEvent): void;
  observeWorkerStep(worker: string, report: StepReport): void;
  /** @param peer the worker at the link's other end */
  observeTraffic(worker: string, peer: string, link: LinkTraffic): void;
  countRefusal(code: string): void;
  countRecordFailure(part: RecordPart): void;
  setView(view: RunView): void;
  render(): Promise<{ contentType: string; text: string }>;
}

/** Codes that may stand as a label; others are counted as `other`, so that a peer cannot make labels without end. */
const REFUSAL_CODES: ReadonlySet<string> = new Set([
  'E_UNAUTHORIZED',
  'E_ORIGIN',
  'E_MESSAGE',
  'E_PROTOCOL',
  'E_PROTOCOL_VERSION',
  'E_FINGERPRINT',
  'E_DIGEST',
  'E_HANDSHAKE',
  'E_TOO_MANY',
]);

export function createMetrics(run: { readonly run: string; readonly transport: string }): RunMetrics {
  const registry = new Registry();
  const made = new Map<string, Metric>();
  for (const [name, definition] of Object.entries<MetricDefinition>(METRICS)) {
    const common = { name, help: definition.help, labelNames: [...definition.labels], registers: [registry] };
    if (definition.kind === 'counter') made.set(name, new Counter(common));
    else if (definition.kind === 'gauge') made.set(name, new Gauge(common));
    else made.set(name, new Histogram({ ...common, buckets: [...(definition.buckets ?? [])] }));
  }
  const labels = { run: run.run };
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
  }
  for (const part of RECORD_PARTS) add('lockstep_record_failures_total', 0, { part });
  /** Totals that the view has: the counter follows them. */
  const totals = new Map<MetricName, number>();
  const follow = (name: MetricName, total: number): void => {
    add(name, Math.max(0, total - (totals.get(name) ?? 0)));
    totals.set(name, total);
  };
  /** Workers whose mismatch is counted: a mismatch or refusal, and the failure that it becomes, are one. */
  const mismatched = new Set<string>();
  const countMismatch = (workers: readonly string[]): void => {
    if (workers.some((worker) => mismatched.has(worker))) return;
    for (const worker of workers) mismatched.add(worker);
    add('lockstep_digest_mismatches_total', 1);
  };

  return {
    observe: (event) => {
      switch (event.kind) {
        case 'step':
          add('lockstep_images_total', event.samples);
          set('lockstep_step_last_timestamp_seconds', Date.now() / 1000);
          return;
        case 'checkpoint':
          observeValue('lockstep_checkpoint_duration_seconds', event.seconds);
          set('lockstep_checkpoint_last_timestamp_seconds', Date.now() / 1000);
          return;
        case 'worker-ready': {
          const { name, library, device } = event.engine;
          set('lockstep_engine_info', 1, { worker: event.worker, engine: name, library, device });
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
          return;
        case 'waiting':
        case 'listening':
        case 'resumed':
        case 'warning':
        case 'worker-joined':
        case 'generation':
        case 'epoch':
        case 'stopping':
        case 'finished':
          return;
      }
    },
    observeWorkerStep: (worker, report) => {
      for (const phase of PHASES) {
        observeValue('lockstep_step_duration_seconds', report.phases[phase], { worker, phase });
      }
      const duration = report.phases.allreduce + report.phases.wait;
      observeValue('lockstep_allreduce_duration_seconds', duration, { worker, transport: run.transport });
      set('lockstep_worker_resident_memory_bytes', report.rssBytes, { worker });
    },
    observeTraffic: (worker, peer, { transport, bytesOut, bytesIn }) => {
      add('lockstep_allreduce_bytes_total', bytesOut, { worker, peer, transport });
      add('lockstep_allreduce_received_bytes_total', bytesIn, { worker, peer, transport });
    },
    countRefusal: (code) =>
      add('lockstep_workers_refused_total', 1, { code: REFUSAL_CODES.has(code) ? code : 'other' }),
    countRecordFailure: (part) => add('lockstep_record_failures_total', 1, { part }),
    setView: (view) => {
      set('lockstep_step', view.step);
      set('lockstep_steps', view.steps);
      set('lockstep_epoch', view.epoch);
      set('lockstep_loss', view.loss);
      set('lockstep_accuracy', view.accuracy);
      set('lockstep_test_loss', view.testLoss);
      set('lockstep_test_accuracy', view.testAccuracy);
      set('lockstep_learning_rate', view.learningRate);
      set('lockstep_gradient_norm', view.gradientNorm);
      set('lockstep_images_per_second', view.imagesPerSecond);
      set('lockstep_generation', view.generation);
      for (const state of WORKER_STATES) {
        set('lockstep_workers', view.workers.filter((w) => w.state === state).length, { state });
      }
      follow('lockstep_workers_lost_total', view.workersLost);
      follow('lockstep_steps_lost_total', view.stepsLost);
      follow('lockstep_microbatches_recomputed_total', view.microbatchesRecomputed);
    },
    render: async () => ({ contentType: registry.contentType, text: await registry.metrics() }),
  };
}
