// The metric catalogue: every name that Lockstep exposes, as data. Dashboards and rules use no name that is not on it.
// Units last; label sets bounded: `run` (one a process), `worker` (w0, w1, ...), `peer` (a worker, too: links have one each, and there
// are no more of them than microbatches), `phase`, `transport`, `state`, `part`.

export type MetricKind = 'counter' | 'gauge' | 'histogram';

export interface MetricDefinition {
  readonly kind: MetricKind;
  readonly help: string;
  readonly labels: readonly string[];
  /** Upper bounds of a histogram's buckets, in its unit. */
  readonly buckets?: readonly number[];
}

const STEP_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

export const PHASES = ['data', 'compute', 'allreduce', 'apply', 'wait'] as const;

export const WORKER_STATES = [
  'joining',
  'preparing',
  'ready',
  'spare',
  'training',
  'evaluating',
  'finished',
  'lost',
] as const;
export type WorkerState = (typeof WORKER_STATES)[number];

/** What a coordinator writes to the run directory. */
export const RECORD_PARTS = ['checkpoint', 'journal', 'metrics', 'report', 'model'] as const;
export type RecordPart = (typeof RECORD_PARTS)[number];

export const METRICS = {
  lockstep_step: { kind: 'gauge', help: 'Optimizer steps done by the run.', labels: ['run'] },
  lockstep_steps: { kind: 'gauge', help: 'Optimizer steps that the run will do.', labels: ['run'] },
  lockstep_epoch: { kind: 'gauge', help: 'Epoch in progress, from 1.', labels: ['run'] },
  lockstep_loss: {
    kind: 'gauge',
    help: 'Mean training loss of the last global batch.',
    labels: ['run'],
  },
  lockstep_accuracy: {
    kind: 'gauge',
    help: 'Share of the training samples of the epoch so far that were classified right.',
    labels: ['run'],
  },
  lockstep_test_loss: {
    kind: 'gauge',
    help: 'Mean loss over the test set after the last epoch.',
    labels: ['run'],
  },
  lockstep_test_accuracy: {
    kind: 'gauge',
    help: 'Share of the test set classified right after the last epoch.',
    labels: ['run'],
  },
  lockstep_learning_rate: { kind: 'gauge', help: 'Learning rate in force.', labels: ['run'] },
  lockstep_gradient_norm: {
    kind: 'gauge',
    help: 'Euclidean norm of the mean gradient of the last global batch.',
    labels: ['run'],
  },
  lockstep_images_total: { kind: 'counter', help: 'Training samples used.', labels: ['run'] },
  lockstep_images_per_second: {
    kind: 'gauge',
    help: 'Training samples a second over the last steps, evaluation left out.',
    labels: ['run'],
  },
  lockstep_step_duration_seconds: {
    kind: 'histogram',
    help: 'Wall time of a step by phase and worker, in seconds; wait: for peers still computing. A straggler waits least.',
    labels: ['run', 'worker', 'phase'],
    buckets: STEP_SECONDS,
  },
  lockstep_allreduce_bytes_total: {
    kind: 'counter',
    help: 'Bytes that the all-reduce sent, by worker, peer and what carries the link between them.',
    labels: ['run', 'worker', 'peer', 'transport'],
  },
  lockstep_allreduce_received_bytes_total: {
    kind: 'counter',
    help: 'Bytes that the all-reduce received, by worker, peer and what carries the link between them.',
    labels: ['run', 'worker', 'peer', 'transport'],
  },
  lockstep_allreduce_duration_seconds: {
    kind: 'histogram',
    help: 'Wall time of the all-reduce of a step, waiting for peers included, in seconds.',
    labels: ['run', 'worker', 'transport'],
    buckets: STEP_SECONDS,
  },
  lockstep_workers: { kind: 'gauge', help: 'Workers by state.', labels: ['run', 'state'] },
  lockstep_worker_resident_memory_bytes: {
    kind: 'gauge',
    help: 'Resident memory of a worker at its last report, in bytes.',
    labels: ['run', 'worker'],
  },
  lockstep_generation: {
    kind: 'gauge',
    help: 'Present generation of the membership.',
    labels: ['run'],
  },
  lockstep_workers_lost_total: {
    kind: 'counter',
    help: 'Workers lost while the run needed them.',
    labels: ['run'],
  },
  lockstep_workers_refused_total: {
    kind: 'counter',
    help: 'Connections and workers refused, by code.',
    labels: ['run', 'code'],
  },
  lockstep_steps_lost_total: {
    kind: 'counter',
    help: 'Steps whose work was thrown away.',
    labels: ['run'],
  },
  lockstep_microbatches_recomputed_total: {
    kind: 'counter',
    help: 'Microbatches computed again after a loss.',
    labels: ['run'],
  },
  lockstep_checkpoint_duration_seconds: {
    kind: 'histogram',
    help: 'Wall time of writing a checkpoint, in seconds.',
    labels: ['run'],
    buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
  },
  lockstep_checkpoint_last_timestamp_seconds: {
    kind: 'gauge',
    help: 'Unix time of the last checkpoint, in seconds; its age is time() minus this.',
    labels: ['run'],
  },
  lockstep_record_failures_total: {
    kind: 'counter',
    help: 'Writes to the run directory that failed, by part: a full or read-only disk. Training goes on.',
    labels: ['run', 'part'],
  },
  lockstep_step_last_timestamp_seconds: {
    kind: 'gauge',
    help: 'Unix time of the last committed step, in seconds.',
    labels: ['run'],
  },
  lockstep_digest_mismatches_total: {
    kind: 'counter',
    help: 'Times that workers reported different weights, losses or microbatches for one step.',
    labels: ['run'],
  },
  lockstep_engine_info: {
    kind: 'gauge',
    help: 'Always 1; the labels name the engine that really runs.',
    labels: ['run', 'worker', 'engine', 'library', 'device'],
  },
} as const satisfies Record<`lockstep_${string}`, MetricDefinition>;

export type MetricName = keyof typeof METRICS;
