// The metric catalogue: every name that Lockstep exposes, as data. Dashboards and rules use no name that is not on it.
// Units last; label sets bounded: `run` (one a process), `worker` (w0, w1, ...), `peer` (a worker, too: links have one each, and there
// are no more of them than microbatches), `phase`, `transport`, `state`, `part`, `mode`.
//
// METRICS are the coordinator's, of the whole run; WORKER_METRICS each worker's own, of its process. No name is in both, so that a sum
// over what Prometheus scraped counts nothing twice.

export type MetricKind = 'counter' | 'gauge' | 'histogram';

export interface MetricDefinition {
  readonly kind: MetricKind;
  readonly help: string;
  readonly labels: readonly string[];
  /** Upper bounds of a histogram's buckets, in its unit. */
  readonly buckets?: readonly number[];
}

/** Why a thread was late for a timer: the engine's own calls take milliseconds, and tenths of a second are trouble. */
const LAG_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

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

export const RUN_PHASES = [
  'gathering',
  'training',
  'evaluating',
  'waiting',
  'stopping',
  'done',
  'stopped',
  'failed',
] as const;
export type RunPhase = (typeof RUN_PHASES)[number];

/** What a coordinator writes of the run. */
export const RECORD_PARTS = ['checkpoint', 'journal', 'metrics', 'report', 'model', 'timeline', 'upload'] as const;
export type RecordPart = (typeof RECORD_PARTS)[number];
/** And what scrapes have shown, which only those need who scrape: no alarm. */
export const WRITTEN_PARTS = [...RECORD_PARTS, 'counters'] as const;

/** Codes of refusals that may stand as a label; others are counted as `other`, so that a peer cannot make labels without end. */
const REFUSAL_CODES: ReadonlySet<string> = new Set([
  'E_UNAUTHORIZED',
  'E_TOKEN_EXPIRED',
  'E_FORBIDDEN',
  'E_ORIGIN',
  'E_HOST',
  'E_TLS',
  'E_HANDSHAKE',
  'E_TOO_MANY',
  'E_TOO_LARGE',
  'E_TOO_FAST',
  'E_REPLAYED',
  'E_REQUEST',
  'E_FRAME',
  'E_MESSAGE',
  'E_PROTOCOL',
  'E_PROTOCOL_VERSION',
  'E_FINGERPRINT',
  'E_DIGEST',
]);

export function isRefusalCode(code: string): boolean {
  return REFUSAL_CODES.has(code);
}

export const METRICS = {
  lockstep_step: { kind: 'gauge', help: 'Optimizer steps done by the run.', labels: ['run'] },
  lockstep_steps: { kind: 'gauge', help: 'Optimizer steps that the run will do.', labels: ['run'] },
  lockstep_epoch: { kind: 'gauge', help: 'Epoch in progress, from 1.', labels: ['run'] },
  lockstep_epochs: { kind: 'gauge', help: 'Epochs that the run will do.', labels: ['run'] },
  lockstep_epoch_progress_ratio: {
    kind: 'gauge',
    help: 'Share of the steps of the epoch in progress that are done, 0 to 1.',
    labels: ['run'],
  },
  lockstep_time_left_seconds: {
    kind: 'gauge',
    help: 'Time until the last step at the present throughput, evaluation left out, in seconds.',
    labels: ['run'],
  },
  lockstep_run_state: {
    kind: 'gauge',
    help: '1 for the state that the run is in, 0 for the others.',
    labels: ['run', 'state'],
  },
  lockstep_run_start_timestamp_seconds: {
    kind: 'gauge',
    help: 'Unix time at which the run was begun, by whichever coordinator, in seconds.',
    labels: ['run'],
  },
  lockstep_loss: {
    kind: 'gauge',
    help: 'Mean training loss of the last global batch.',
    labels: ['run'],
  },
  lockstep_accuracy: {
    kind: 'gauge',
    help: 'Share of the training samples of the epoch so far that were classified right; before its first step, of the epoch before.',
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
    help: 'Euclidean norm of the mean gradient of the last global batch; NaN: it was not finite, which ends the run.',
    labels: ['run'],
  },
  lockstep_images_total: {
    kind: 'counter',
    help: 'Training samples of committed steps; a step that is done again after a break counts once.',
    labels: ['run'],
  },
  lockstep_images_per_second: {
    kind: 'gauge',
    help: 'Training samples a second over the last steps, evaluation left out.',
    labels: ['run'],
  },
  lockstep_images_per_second_mean: {
    kind: 'gauge',
    help: 'Training samples a second since the coordinator began, without evaluation and the first step of each generation.',
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
  lockstep_members_wanted: {
    kind: 'gauge',
    help: 'Workers that compute when all are there: those asked for, as far as there are places for them.',
    labels: ['run'],
  },
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
    help: 'Connections, requests, messages and workers that the coordinator refused, by code.',
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
  lockstep_recovery_duration_seconds: {
    kind: 'histogram',
    help: 'Time without a step around the loss of a member, in seconds: from the last step before it to the first of the next generation.',
    labels: ['run'],
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300],
  },
  lockstep_coordinator_restarts_total: {
    kind: 'counter',
    help: 'Coordinators that have gone on with this run after the first.',
    labels: ['run'],
  },
  lockstep_coordinator_event_loop_lag_seconds: {
    kind: 'histogram',
    help: 'How late a timer of the coordinator fired, in seconds: how long its thread was held by something else.',
    labels: ['run'],
    buckets: LAG_SECONDS,
  },
  lockstep_coordinator_resident_memory_bytes: {
    kind: 'gauge',
    help: 'Resident memory of the coordinator, in bytes.',
    labels: ['run'],
  },
  lockstep_coordinator_cpu_seconds_total: {
    kind: 'counter',
    help: 'Processor time of the coordinators of this run, in seconds.',
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
  lockstep_record_alarms: {
    kind: 'gauge',
    help: '1 while that part of the run directory can not be written, else 0.',
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
  lockstep_digest_checks_total: {
    kind: 'counter',
    help: 'Steps after which the digests of the weights of all members were compared.',
    labels: ['run'],
  },
  lockstep_audits_total: {
    kind: 'counter',
    help: 'Microbatches that two workers computed and whose bits were compared.',
    labels: ['run'],
  },
  lockstep_engine_info: {
    kind: 'gauge',
    help: 'Always 1; the labels name the engine that really runs.',
    labels: ['run', 'worker', 'engine', 'library', 'device'],
  },
} as const satisfies Record<`lockstep_${string}`, MetricDefinition>;

export type MetricName = keyof typeof METRICS;

/** Where a worker's memory is: the process as a whole, and of that JavaScript's objects, its buffers, and tensors. */
export const MEMORY_PARTS = ['resident', 'heap', 'buffers', 'engine'] as const;
export const CPU_MODES = ['user', 'system'] as const;

export const WORKER_METRICS = {
  lockstep_worker_start_timestamp_seconds: {
    kind: 'gauge',
    help: 'Unix time at which this worker joined the run, in seconds.',
    labels: ['run', 'worker'],
  },
  lockstep_worker_step: {
    kind: 'gauge',
    help: 'Optimizer steps done by the replica of this worker.',
    labels: ['run', 'worker'],
  },
  lockstep_worker_steps_total: {
    kind: 'counter',
    help: 'Steps that this process has computed.',
    labels: ['run', 'worker'],
  },
  lockstep_worker_phase_seconds_total: {
    kind: 'counter',
    help: 'Time that the steps of this process took by phase, in seconds; data: until samples were ready, wait: for peers.',
    labels: ['run', 'worker', 'phase'],
  },
  lockstep_worker_cpu_seconds_total: {
    kind: 'counter',
    help: 'Processor time of this process, all its threads together, in seconds.',
    labels: ['run', 'worker', 'mode'],
  },
  lockstep_worker_memory_bytes: {
    kind: 'gauge',
    help: 'Memory of this process by part, in bytes; engine: tensors that it knows of.',
    labels: ['run', 'worker', 'part'],
  },
  lockstep_worker_event_loop_lag_seconds: {
    kind: 'histogram',
    help: 'How late a timer of this process fired, in seconds: how long the engine or something else held its thread.',
    labels: ['run', 'worker'],
    buckets: LAG_SECONDS,
  },
  lockstep_worker_refused_total: {
    kind: 'counter',
    help: 'Peers and requests that this worker refused, by code.',
    labels: ['run', 'worker', 'code'],
  },
  lockstep_worker_gpu_utilization_ratio: {
    kind: 'gauge',
    help: 'Share of the last second or so in which the GPU of this worker was at work, by nvidia-smi, 0 to 1.',
    labels: ['run', 'worker', 'gpu'],
  },
  lockstep_worker_gpu_memory_bytes: {
    kind: 'gauge',
    help: 'Memory in use on the GPU of this worker, by whichever process, by nvidia-smi, in bytes.',
    labels: ['run', 'worker', 'gpu'],
  },
} as const satisfies Record<`lockstep_worker_${string}`, MetricDefinition>;

export type WorkerMetricName = keyof typeof WORKER_METRICS;
