// What a worker's process says of itself, from the catalogue (WORKER_METRICS): sums that a step adds numbers to, and all else read when
// somebody asks. A step costs a handful of additions; an exposition, some 60 lines, a fraction of a millisecond of the engine's thread.

import { Counter, Gauge, Histogram, Registry, type Metric } from 'prom-client';
import { expositionOf, type Exposition } from '../../protocol/exposition.ts';
import type { StepReport } from '../../protocol/messages.ts';
import {
  isRefusalCode,
  PHASES,
  WORKER_METRICS,
  type CPU_MODES,
  type MEMORY_PARTS,
  type MetricDefinition,
  type WorkerMetricName,
} from '../../protocol/metrics.ts';
import type { GpuReading } from './gpu.ts';

/** What is looked up when somebody asks. */
export interface Readings {
  readonly cpuSeconds: Readonly<Record<(typeof CPU_MODES)[number], number>>;
  readonly memoryBytes: Readonly<Record<(typeof MEMORY_PARTS)[number], number>>;
  /** Null: it has none, or nothing is known of it. */
  readonly gpu: GpuReading | null;
}

export interface OwnMetrics {
  /** The name that the coordinator knows this worker by, which another coordinator may change. */
  rename(worker: string): void;
  observeStep(report: Pick<StepReport, 'step' | 'phases'>): void;
  observeLag(seconds: number): void;
  countRefusal(code: string): void;
  /** @param accept the Accept header of who asks */
  render(readings: Readings, accept: string | undefined): Promise<Exposition>;
}

export function ownMetrics(about: {
  readonly run: string;
  readonly worker: string;
  readonly startedAtSeconds: number;
}): OwnMetrics {
  const registry = new Registry();
  const made = new Map<string, Metric>();
  for (const [name, { kind, help, labels, buckets = [] }] of Object.entries<MetricDefinition>(WORKER_METRICS)) {
    // Those two are added to every sample when it is shown.
    const labelNames = labels.filter((label) => label !== 'run' && label !== 'worker');
    const common = { name, help, labelNames, registers: [registry] };
    if (kind === 'counter') made.set(name, new Counter(common));
    else if (kind === 'gauge') made.set(name, new Gauge(common));
    else made.set(name, new Histogram({ ...common, buckets: [...buckets] }));
  }
  const rename = (worker: string): void => registry.setDefaultLabels({ run: about.run, worker });
  rename(about.worker);

  const set = (name: WorkerMetricName, value: number, labels: Record<string, string> = {}): void => {
    const metric = made.get(name);
    if (metric instanceof Gauge) metric.set(labels, value);
  };
  /** A counter to what it has come to. */
  const shown = new Map<string, number>();
  const follow = (name: WorkerMetricName, total: number, labels: Record<string, string> = {}): void => {
    const metric = made.get(name);
    const key = `${name} ${Object.values(labels).join(' ')}`;
    if (metric instanceof Counter) metric.inc(labels, Math.max(0, total - (shown.get(key) ?? 0)));
    shown.set(key, Math.max(total, shown.get(key) ?? 0));
  };
  const lag = made.get('lockstep_worker_event_loop_lag_seconds');

  set('lockstep_worker_start_timestamp_seconds', about.startedAtSeconds);
  const refused = made.get('lockstep_worker_refused_total');
  if (refused instanceof Counter) refused.inc({ code: 'E_UNAUTHORIZED' }, 0);
  const phaseSeconds = { data: 0, compute: 0, allreduce: 0, apply: 0, wait: 0 };
  let steps = 0;
  let step = 0;

  return {
    rename,
    observeStep: (report) => {
      step = report.step;
      steps++;
      for (const phase of PHASES) phaseSeconds[phase] += report.phases[phase];
    },
    observeLag: (seconds) => {
      if (lag instanceof Histogram) lag.observe(seconds);
    },
    countRefusal: (code) => {
      if (refused instanceof Counter) refused.inc({ code: isRefusalCode(code) ? code : 'other' });
    },
    render: async ({ cpuSeconds, memoryBytes, gpu }, accept) => {
      set('lockstep_worker_step', step);
      follow('lockstep_worker_steps_total', steps);
      for (const phase of PHASES) follow('lockstep_worker_phase_seconds_total', phaseSeconds[phase], { phase });
      for (const [mode, seconds] of Object.entries(cpuSeconds)) {
        follow('lockstep_worker_cpu_seconds_total', seconds, { mode });
      }
      for (const [part, bytes] of Object.entries(memoryBytes)) set('lockstep_worker_memory_bytes', bytes, { part });
      for (const name of ['lockstep_worker_gpu_utilization_ratio', 'lockstep_worker_gpu_memory_bytes'] as const) {
        const metric = made.get(name);
        // A reading that is out of date is none.
        if (metric instanceof Gauge) metric.reset();
      }
      if (gpu !== null) {
        set('lockstep_worker_gpu_utilization_ratio', gpu.utilization, { gpu: gpu.name });
        set('lockstep_worker_gpu_memory_bytes', gpu.memoryBytes, { gpu: gpu.name });
      }
      return expositionOf(await registry.metrics(), accept);
    },
  };
}
