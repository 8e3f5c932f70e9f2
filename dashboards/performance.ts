// Performance: where a step's time goes, and on whom it waits.

import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard';
import { dashboard } from './frame.ts';
import { figure, graph, WIDTH } from './panels.ts';
import {
  quantile,
  rate,
  SCALING_EFFICIENCY,
  series,
  shareOfPhase,
  STEP_SECONDS,
  STEP_SECONDS_BY_PHASE,
} from './queries.ts';

const NO_STEP = 'no step in this time';
const ALONE = 'a worker alone sends nothing';
const NO_WORKER = 'no worker’s own metrics: does Prometheus ask /sd, and can it reach the workers?';
const NO_GPU = 'no GPU, or nvidia-smi does not tell';

const EXPOSED =
  'Share of the workers’ time in which gradients travel and nothing else is done: what could not be hidden behind computing. What is hidden is not counted: it costs nothing.';
const EFFICIENCY =
  'What one worker alone would need for a step, over what all of these spend on it: data and gradients are the same work for any number of workers, the update is done by each. The rest is lost to waiting and sending. What workers of one machine take from each other in memory and caches is in both, and not seen here.';

export const performance = (): Dashboard =>
  dashboard({
    uid: 'lockstep-performance',
    title: 'Performance',
    description: 'Where the time of a step goes, on whom it waits, and what the processes need.',
    sections: [
      {
        title: 'At a glance',
        panels: [
          figure({
            title: 'Step time',
            description: 'Mean wall time of a step, over the workers.',
            unit: 's',
            empty: NO_STEP,
            sparkline: true,
            queries: [{ expr: STEP_SECONDS, legend: 'step' }],
          }),
          figure({
            title: 'Throughput',
            description: 'Training samples a second over the last steps, evaluation left out.',
            unit: 'short',
            empty: NO_STEP,
            sparkline: true,
            queries: [{ expr: series('lockstep_images_per_second'), legend: 'img/s' }],
          }),
          figure({
            title: 'Scaling efficiency',
            description: EFFICIENCY,
            unit: 'percentunit',
            empty: NO_STEP,
            decimals: 1,
            sparkline: true,
            thresholds: [
              { from: null, color: 'red' },
              { from: 0.6, color: 'yellow' },
              { from: 0.85, color: 'green' },
            ],
            queries: [{ expr: SCALING_EFFICIENCY, legend: 'efficiency' }],
          }),
          figure({
            title: 'Waiting for others',
            description: 'Share of the workers’ time in which they wait for somebody who still computes.',
            unit: 'percentunit',
            empty: NO_STEP,
            decimals: 1,
            sparkline: true,
            queries: [{ expr: shareOfPhase('wait'), legend: 'wait' }],
          }),
          figure({
            title: 'Sending, not hidden',
            description: EXPOSED,
            unit: 'percentunit',
            empty: NO_STEP,
            decimals: 1,
            sparkline: true,
            queries: [{ expr: shareOfPhase('allreduce'), legend: 'all-reduce' }],
          }),
          figure({
            title: 'Waiting for data',
            description: 'Share of the workers’ time until samples were read and augmented.',
            unit: 'percentunit',
            empty: NO_STEP,
            decimals: 1,
            sparkline: true,
            queries: [{ expr: shareOfPhase('data'), legend: 'data' }],
          }),
        ],
      },
      {
        title: 'A step',
        panels: [
          graph({
            title: 'Step time by phase',
            description:
              'Mean over the workers, stacked to the whole step. data: until samples were ready; compute: forward and backward; wait: for others who still compute; allreduce: from then on until the sum is here; apply: the optimizer.',
            unit: 's',
            empty: NO_STEP,
            kind: 'stacked',
            min: 0,
            legendValues: ['mean', 'lastNotNull'],
            queries: [{ expr: STEP_SECONDS_BY_PHASE, legend: '{{phase}}' }],
          }),
          graph({
            title: 'Who is waited for',
            description:
              'Share of its steps in which each worker waits. A straggler is the one that waits least, while the others wait for it: look at its processor, its data and what else runs on its machine.',
            unit: 'percentunit',
            empty: NO_STEP,
            min: 0,
            legendValues: ['mean', 'lastNotNull'],
            queries: [{ expr: shareOfPhase('wait', 'worker'), legend: '{{worker}}' }],
          }),
          graph({
            title: 'Slow gradients',
            description:
              'Forward and backward of a step by worker: 99 of 100 take less. One curve above the others is a slow machine; all of them, a slow model.',
            unit: 's',
            empty: NO_STEP,
            min: 0,
            queries: [
              {
                expr: `histogram_quantile(0.99, sum by (le, worker) (${rate('lockstep_step_duration_seconds_bucket', 'phase="compute"')}))`,
                legend: '{{worker}}',
              },
            ],
          }),
          graph({
            title: 'Scaling efficiency and what it is lost to',
            description: EFFICIENCY,
            unit: 'percentunit',
            empty: NO_STEP,
            min: 0,
            max: 1,
            queries: [
              { expr: SCALING_EFFICIENCY, legend: 'efficiency' },
              { expr: shareOfPhase('wait'), legend: 'lost to waiting' },
              { expr: shareOfPhase('allreduce'), legend: 'lost to sending' },
            ],
          }),
        ],
      },
      {
        title: 'Between the workers',
        panels: [
          graph({
            title: 'All-reduce time',
            description:
              'From the last gradient of a worker until the sum is here, waiting for others included: half of the steps, and 99 of 100, take less.',
            unit: 's',
            empty: NO_STEP,
            min: 0,
            width: WIDTH.third,
            queries: [
              {
                expr: quantile(0.5, 'lockstep_allreduce_duration_seconds', ['transport']),
                legend: 'half, {{transport}}',
              },
              {
                expr: quantile(0.99, 'lockstep_allreduce_duration_seconds', ['transport']),
                legend: '99 %, {{transport}}',
              },
            ],
          }),
          graph({
            title: 'All-reduce bandwidth by transport',
            description:
              'Bytes a second that all workers send, by what carries them: shared memory, a unix socket, TCP, NATS.',
            unit: 'Bps',
            empty: ALONE,
            kind: 'stacked',
            min: 0,
            width: WIDTH.third,
            queries: [
              { expr: `sum by (transport) (${rate('lockstep_allreduce_bytes_total')})`, legend: '{{transport}}' },
            ],
          }),
          graph({
            title: 'Sending, not hidden',
            description: EXPOSED,
            unit: 'percentunit',
            empty: NO_STEP,
            min: 0,
            width: WIDTH.third,
            queries: [{ expr: shareOfPhase('allreduce', 'worker'), legend: '{{worker}}' }],
          }),
          graph({
            title: 'Waiting for data',
            description:
              'Share of its steps in which a worker waits until samples are read and augmented: --data-threads, or a faster disk.',
            unit: 'percentunit',
            empty: NO_STEP,
            min: 0,
            queries: [{ expr: shareOfPhase('data', 'worker'), legend: '{{worker}}' }],
          }),
          graph({
            title: 'Received by worker',
            description: 'Bytes a second of gradients that each worker receives.',
            unit: 'Bps',
            empty: ALONE,
            min: 0,
            queries: [
              { expr: `sum by (worker) (${rate('lockstep_allreduce_received_bytes_total')})`, legend: '{{worker}}' },
            ],
          }),
        ],
      },
      {
        title: 'The processes',
        panels: [
          graph({
            title: 'Resident memory',
            description: 'Of each process. One that grows without end will be killed by the system.',
            unit: 'bytes',
            empty: NO_STEP,
            min: 0,
            width: WIDTH.third,
            queries: [
              { expr: series('lockstep_worker_resident_memory_bytes'), legend: '{{worker}}' },
              { expr: series('lockstep_coordinator_resident_memory_bytes'), legend: 'coordinator' },
            ],
          }),
          graph({
            title: 'Memory of the workers by part',
            description:
              'The largest worker’s. heap: JavaScript’s objects; buffers: its vectors and samples; engine: tensors that it knows of; resident: the whole process.',
            unit: 'bytes',
            empty: NO_WORKER,
            min: 0,
            width: WIDTH.third,
            queries: [{ expr: `max by (part) (${series('lockstep_worker_memory_bytes')})`, legend: '{{part}}' }],
          }),
          graph({
            title: 'Processor',
            description: 'Cores that each process keeps busy, all its threads together.',
            unit: 'short',
            empty: NO_WORKER,
            min: 0,
            decimals: 2,
            width: WIDTH.third,
            queries: [
              { expr: `sum by (worker) (${rate('lockstep_worker_cpu_seconds_total')})`, legend: '{{worker}}' },
              { expr: rate('lockstep_coordinator_cpu_seconds_total'), legend: 'coordinator' },
            ],
          }),
          graph({
            title: 'Event-loop lag',
            description:
              'How late timers fire: 99 of 100 are less late. A worker’s engine holds its thread for as long as a microbatch takes; a coordinator that is late hears late of a loss.',
            unit: 's',
            empty: NO_WORKER,
            min: 0,
            width: WIDTH.third,
            queries: [
              { expr: quantile(0.99, 'lockstep_worker_event_loop_lag_seconds', ['worker']), legend: '{{worker}}' },
              { expr: quantile(0.99, 'lockstep_coordinator_event_loop_lag_seconds'), legend: 'coordinator' },
            ],
          }),
          graph({
            title: 'GPU utilization',
            description: 'Share of the time in which the GPU of each worker is at work, by nvidia-smi.',
            unit: 'percentunit',
            empty: NO_GPU,
            min: 0,
            max: 1,
            width: WIDTH.third,
            queries: [{ expr: series('lockstep_worker_gpu_utilization_ratio'), legend: '{{worker}} on {{gpu}}' }],
          }),
          graph({
            title: 'GPU memory',
            description: 'In use on the GPU of each worker, by whichever process.',
            unit: 'bytes',
            empty: NO_GPU,
            min: 0,
            width: WIDTH.third,
            queries: [{ expr: series('lockstep_worker_gpu_memory_bytes'), legend: '{{worker}} on {{gpu}}' }],
          }),
        ],
      },
    ],
  });
