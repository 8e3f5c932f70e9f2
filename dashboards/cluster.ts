// Cluster: who is in, who was lost, what that cost, and whether the record is safe.

import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard';
import { dashboard } from './frame.ts';
import { figure, graph, table, WIDTH, type Thresholds } from './panels.ts';
import { quantile, rate, series } from './queries.ts';

const NO_RUN = 'no such run';
const NONE_AT_0: Thresholds = [
  { from: null, color: 'green' },
  { from: 1, color: 'red' },
];
const FEW_AT_0: Thresholds = [
  { from: null, color: 'green' },
  { from: 1, color: 'yellow' },
];
const AT_WORK = 'state=~"joining|training|evaluating|finished"';

const increase = (name: Parameters<typeof series>[0]): string => `increase(${series(name)}[$__rate_interval])`;
const CHECKPOINT_AGE = `time() - ${series('lockstep_checkpoint_last_timestamp_seconds')}`;

export const cluster = (): Dashboard =>
  dashboard({
    uid: 'lockstep-cluster',
    title: 'Cluster',
    description: 'Who is in, who was lost and what that cost; checkpoints, digests and the record.',
    sections: [
      {
        title: 'Now',
        panels: [
          figure({
            title: 'Workers at work',
            description: 'Workers that compute, less those that would if all were there: below 0 some are missing.',
            unit: 'none',
            empty: NO_RUN,
            thresholds: [
              { from: null, color: 'red' },
              { from: 0, color: 'green' },
            ],
            queries: [
              {
                expr: `sum(${series('lockstep_workers', AT_WORK)}) - sum(${series('lockstep_members_wanted')})`,
                legend: 'over or under',
              },
            ],
          }),
          figure({
            title: 'Spares',
            description: 'Workers that stand by and take over when one is lost.',
            unit: 'none',
            empty: NO_RUN,
            queries: [{ expr: series('lockstep_workers', 'state="spare"'), legend: 'spares' }],
          }),
          figure({
            title: 'Workers lost',
            description: 'Over the whole life of the run. Training went on, to the same bits.',
            unit: 'none',
            empty: NO_RUN,
            thresholds: FEW_AT_0,
            queries: [{ expr: series('lockstep_workers_lost_total'), legend: 'lost' }],
          }),
          figure({
            title: 'Coordinator restarts',
            description: 'Coordinators that have gone on with this run after the first.',
            unit: 'none',
            empty: NO_RUN,
            thresholds: FEW_AT_0,
            queries: [{ expr: series('lockstep_coordinator_restarts_total'), legend: 'restarts' }],
          }),
          figure({
            title: 'Checkpoint age',
            description: 'What would be done again if everything were killed now.',
            unit: 's',
            empty: 'no checkpoint yet',
            queries: [{ expr: CHECKPOINT_AGE, legend: 'age' }],
          }),
          figure({
            title: 'Digest mismatches',
            description:
              'Times that weights, losses or microbatches were not the same bits on all workers: a faulty machine.',
            unit: 'none',
            empty: NO_RUN,
            thresholds: NONE_AT_0,
            queries: [{ expr: series('lockstep_digest_mismatches_total'), legend: 'mismatches' }],
          }),
        ],
      },
      {
        title: 'Membership',
        panels: [
          graph({
            title: 'Workers by state',
            description: 'Who is there, by what it does. Lost ones stay counted.',
            unit: 'none',
            empty: NO_RUN,
            kind: 'stacked',
            min: 0,
            queries: [
              { expr: `sum by (state) (${series('lockstep_workers', 'state!="lost"')}) > 0`, legend: '{{state}}' },
            ],
          }),
          graph({
            title: 'Generation',
            description: 'Each change of who is in opens another generation; the journal says why.',
            unit: 'none',
            empty: NO_RUN,
            kind: 'steps',
            min: 0,
            queries: [{ expr: series('lockstep_generation'), legend: 'generation' }],
          }),
          graph({
            title: 'Losses and refusals',
            description: 'Workers lost, and what the coordinator and the workers refused, by code.',
            unit: 'none',
            empty: 'nobody was refused',
            kind: 'bars',
            min: 0,
            queries: [
              { expr: increase('lockstep_workers_lost_total'), legend: 'lost' },
              { expr: `sum by (code) (${increase('lockstep_workers_refused_total')})`, legend: 'refused: {{code}}' },
              {
                expr: `sum by (code) (${increase('lockstep_worker_refused_total')})`,
                legend: 'refused by a worker: {{code}}',
              },
            ],
          }),
          graph({
            title: 'Recoveries',
            description:
              'Time without a step around the loss of a member, from the last step before to the first after it: half, and all but the slowest, take less.',
            unit: 's',
            empty: 'nobody was lost',
            min: 0,
            queries: [
              {
                expr: `histogram_quantile(0.5, ${series('lockstep_recovery_duration_seconds_bucket')}) > 0`,
                legend: 'half',
              },
              {
                expr: `histogram_quantile(0.95, ${series('lockstep_recovery_duration_seconds_bucket')}) > 0`,
                legend: '95 %',
              },
            ],
          }),
        ],
      },
      {
        title: 'What it cost',
        panels: [
          graph({
            title: 'Done again',
            description:
              'Microbatches of the step in flight that were computed again after a loss, and steps that nobody had kept. No step is ever lost to the result.',
            unit: 'none',
            empty: NO_RUN,
            kind: 'steps',
            min: 0,
            width: WIDTH.third,
            queries: [
              { expr: series('lockstep_microbatches_recomputed_total'), legend: 'microbatches' },
              { expr: series('lockstep_steps_lost_total'), legend: 'steps' },
            ],
          }),
          graph({
            title: 'Since the last step',
            description:
              'How long nothing has been committed. Evaluations and checkpoints take their time; minutes are trouble.',
            unit: 's',
            empty: 'no step yet',
            min: 0,
            width: WIDTH.third,
            queries: [{ expr: `time() - ${series('lockstep_step_last_timestamp_seconds')}`, legend: 'since' }],
          }),
          graph({
            title: 'Recoveries and their time',
            description:
              'Recoveries over the whole life of the run, and the time without a step that they took together.',
            unit: 'none',
            empty: NO_RUN,
            kind: 'steps',
            min: 0,
            width: WIDTH.third,
            queries: [
              { expr: series('lockstep_recovery_duration_seconds_count'), legend: 'recoveries' },
              { expr: series('lockstep_recovery_duration_seconds_sum'), legend: 'seconds' },
            ],
          }),
        ],
      },
      {
        title: 'The record',
        panels: [
          graph({
            title: 'Checkpoint age, over time',
            description:
              'What would be done again if everything were killed. It falls with each checkpoint: --checkpoint-every.',
            unit: 's',
            empty: 'no checkpoint yet',
            min: 0,
            width: WIDTH.third,
            queries: [{ expr: CHECKPOINT_AGE, legend: 'age' }],
          }),
          graph({
            title: 'Checkpoint duration',
            description: 'Wall time of writing one: half, and 99 of 100, take less. Training goes on meanwhile.',
            unit: 's',
            empty: 'no checkpoint in this time',
            min: 0,
            width: WIDTH.third,
            queries: [
              { expr: quantile(0.5, 'lockstep_checkpoint_duration_seconds'), legend: 'half' },
              { expr: quantile(0.99, 'lockstep_checkpoint_duration_seconds'), legend: '99 %' },
            ],
          }),
          graph({
            title: 'Writes that failed',
            description:
              'By part of the run directory: a full or read-only disk. Training goes on and what can wait is written later.',
            unit: 'none',
            empty: NO_RUN,
            kind: 'bars',
            min: 0,
            width: WIDTH.third,
            queries: [
              { expr: `sum by (part) (${increase('lockstep_record_failures_total')})`, legend: '{{part}}' },
              { expr: `sum(${series('lockstep_record_alarms')})`, legend: 'alarms now' },
            ],
          }),
          graph({
            title: 'Digest checks and audits',
            description:
              'A second: steps after which all workers’ weights were compared by digest (--digest-every), and microbatches that two workers computed (--audit).',
            unit: 'cps',
            empty: NO_RUN,
            min: 0,
            queries: [
              { expr: rate('lockstep_digest_checks_total'), legend: 'digest checks' },
              { expr: rate('lockstep_audits_total'), legend: 'audits' },
            ],
          }),
          graph({
            title: 'Mismatches',
            description:
              'Weights, losses or microbatches that were not the same bits on all workers. Any is a faulty machine; who it was is in the journal.',
            unit: 'none',
            empty: NO_RUN,
            kind: 'steps',
            min: 0,
            queries: [{ expr: series('lockstep_digest_mismatches_total'), legend: 'mismatches' }],
          }),
          table({
            title: 'Engines',
            description: 'What each worker really runs.',
            unit: 'none',
            empty: 'no worker is ready',
            queries: [{ expr: series('lockstep_engine_info'), legend: '' }],
            columns: { worker: 'worker', engine: 'engine', library: 'library', device: 'device' },
          }),
        ],
      },
    ],
  });
