// What makes a value a job, field by field.

import { expect, test } from 'vitest';
import { jobProblem } from '../../deploy/job-shape.ts';
import cifar from '../../jobs/cifar10-cnn.ts';
import small from './jobs/small.ts';

test('jobs that are whole have no problem', () => {
  expect(jobProblem(small)).toBeNull();
  expect(jobProblem(cifar)).toBeNull();
});

test.each([
  ['name', '../x', '`name` must be 1 to 100 letters, digits, - and _, not "../x"'],
  ['name', undefined, '`name` must be 1 to 100 letters, digits, - and _, not undefined'],
  ['title', 3, '`title` must be a text, not 3'],
  ['model', {}, '`model` must be a function that makes the model, not {}'],
  ['batchSize', 0, '`batchSize` must be a whole number of at least 1, not 0'],
  ['batchSize', '64', '`batchSize` must be a whole number of at least 1, not "64"'],
  ['epochs', Number.NaN, '`epochs` must be a whole number of at least 1, not "NaN"'],
  ['epochs', 1.5, '`epochs` must be a whole number of at least 1, not 1.5'],
  ['microbatches', 6, '`microbatches` must be a power of two from 1 to 64, not 6'],
  ['microbatches', 128, '`microbatches` must be a power of two from 1 to 64, not 128'],
  ['data', null, '`data` must be a data set, not null'],
  ['data', { open: () => {} }, '`data.name` must be a text'],
  ['data', { name: 'd' }, '`data.open` must be a function that opens the data set'],
  [
    'data',
    { name: 'd', open: () => {}, source: { name: '..' } },
    '`data.source.name` must be a plain directory name, not ".."',
  ],
  ['data', { name: 'd', open: () => {}, source: { name: 'd' } }, '`data.source.files` must be a list'],
  [
    'loss',
    'mse',
    '`loss` must be \'sparseCategoricalCrossentropy\' or an object with `name` and `perSample`, not "mse"',
  ],
  [
    'optimizer',
    'adam',
    '`optimizer` must be one of jobs/optimizers.ts, or an object with `name`, `learningRate`, `slots`, `settings` and `update`',
  ],
  ['optimizer', { ...small.optimizer, learningRate: -1 }, '`optimizer.learningRate` must be a number above 0, not -1'],
  ['optimizer', { ...small.optimizer, slots: [1] }, '`optimizer.slots` must be a list of names'],
  ['augment', true, '`augment` must be one of jobs/augment.ts, or an object with `name` and `apply`, not true'],
])('%s: %j', (field, value, expected) => {
  expect(jobProblem({ ...small, [field]: value })).toBe(expected);
});

test('what is no object is no job', () => {
  expect(jobProblem(42)).toBe('its default export is 42, not a job; write `export default defineJob({ ... })`');
  expect(jobProblem(() => small)).toBe(
    'its default export is a function, not a job; write `export default defineJob({ ... })`',
  );
  expect(jobProblem([small])).toContain('not a job');
});
