// Training: how far it is and how well it goes.

import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard';
import { dashboard } from './frame.ts';
import { figure, graph, WIDTH } from './panels.ts';
import { rate, series } from './queries.ts';

const NO_STEP = 'no step yet';
const NO_TEST = 'no epoch has been evaluated yet';

export const training = (): Dashboard =>
  dashboard({
    uid: 'lockstep-training',
    title: 'Training',
    description: 'How far a training run is and how well it goes: loss, accuracy, throughput, time left.',
    sections: [
      {
        title: 'Now',
        panels: [
          figure({
            title: 'State',
            description: 'What the run is doing. Its coordinator’s page and `lockstep status` say why.',
            unit: 'none',
            empty: 'no such run',
            queries: [{ expr: `${series('lockstep_run_state')} == 1`, legend: '{{state}}' }],
            shows: 'name',
          }),
          figure({
            title: 'Steps done',
            description: 'Optimizer steps done, of all that the run will do.',
            unit: 'percentunit',
            empty: NO_STEP,
            decimals: 1,
            queries: [{ expr: `${series('lockstep_step')} / ${series('lockstep_steps')}`, legend: 'done' }],
          }),
          figure({
            title: 'Time left',
            description: 'Until the last step at the present throughput; evaluations come on top.',
            unit: 'dtdurations',
            empty: 'not known yet',
            queries: [{ expr: series('lockstep_time_left_seconds'), legend: 'left' }],
          }),
          figure({
            title: 'Training loss',
            description: 'Mean over the last global batch.',
            unit: 'none',
            empty: NO_STEP,
            decimals: 4,
            sparkline: true,
            queries: [{ expr: series('lockstep_loss'), legend: 'loss' }],
          }),
          figure({
            title: 'Test accuracy',
            description: 'Share of the test set that was classified right after the last epoch.',
            unit: 'percentunit',
            empty: NO_TEST,
            decimals: 1,
            queries: [{ expr: series('lockstep_test_accuracy'), legend: 'test' }],
          }),
          figure({
            title: 'Throughput',
            description: 'Training samples a second over the last steps, evaluation left out.',
            unit: 'short',
            empty: NO_STEP,
            sparkline: true,
            queries: [{ expr: series('lockstep_images_per_second'), legend: 'img/s' }],
          }),
        ],
      },
      {
        title: 'How well it goes',
        panels: [
          graph({
            title: 'Loss',
            description:
              'Training: mean over the last global batch, as it was trained on (augmented, before the update). Test: mean over the test set after each epoch.',
            unit: 'none',
            empty: NO_STEP,
            decimals: 4,
            legendValues: ['lastNotNull', 'min'],
            queries: [
              { expr: series('lockstep_loss'), legend: 'training' },
              { expr: series('lockstep_test_loss'), legend: 'test' },
            ],
          }),
          graph({
            title: 'Accuracy',
            description:
              'Share classified right. Training: over the epoch so far. Test: over the test set after each epoch; where training rises and test does not, the model learns by heart.',
            unit: 'percentunit',
            empty: NO_STEP,
            legendValues: ['lastNotNull', 'max'],
            queries: [
              { expr: series('lockstep_accuracy'), legend: 'training' },
              { expr: series('lockstep_test_accuracy'), legend: 'test' },
            ],
          }),
          graph({
            title: 'Gradient norm',
            description:
              'Euclidean norm of the mean gradient of the last global batch. One that grows without end, or is not a number, says that the learning rate is too high.',
            unit: 'none',
            empty: NO_STEP,
            legendValues: ['lastNotNull', 'max'],
            queries: [{ expr: series('lockstep_gradient_norm'), legend: 'gradient norm' }],
          }),
          graph({
            title: 'Learning rate',
            description: 'The learning rate in force.',
            unit: 'none',
            empty: 'no such run',
            kind: 'steps',
            queries: [{ expr: series('lockstep_learning_rate'), legend: 'learning rate' }],
          }),
        ],
      },
      {
        title: 'How far it is',
        panels: [
          graph({
            title: 'Epochs',
            description: 'Epochs done: those before the one in progress, and the part of it that is done.',
            unit: 'none',
            empty: 'no such run',
            decimals: 2,
            min: 0,
            width: WIDTH.third,
            queries: [
              {
                expr: `${series('lockstep_epoch')} - 1 + ${series('lockstep_epoch_progress_ratio')}`,
                legend: 'done',
              },
              { expr: series('lockstep_epochs'), legend: 'of' },
            ],
          }),
          graph({
            title: 'Throughput',
            description:
              'Training samples a second. Last steps: while training, evaluation left out. Wall clock: of committed steps, with all that lies between them; it falls to 0 while nothing is committed.',
            unit: 'short',
            empty: NO_STEP,
            min: 0,
            width: WIDTH.third,
            legendValues: ['lastNotNull', 'mean'],
            queries: [
              { expr: series('lockstep_images_per_second'), legend: 'last steps' },
              { expr: rate('lockstep_images_total'), legend: 'wall clock' },
              { expr: series('lockstep_images_per_second_mean'), legend: 'mean of the run' },
            ],
          }),
          graph({
            title: 'Time left, over time',
            description: 'Until the last step at the present throughput; evaluations come on top.',
            unit: 's',
            empty: 'not known yet',
            min: 0,
            width: WIDTH.third,
            queries: [{ expr: series('lockstep_time_left_seconds'), legend: 'left' }],
          }),
        ],
      },
    ],
  });
