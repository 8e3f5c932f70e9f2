// Whether another model may take up a checkpoint's state.

import { expect, it } from 'vitest';
import { unfitFor } from '../../../coordinator/core/admission.ts';

const entry = (name: string, shape: number[], trainable = true) => ({
  name,
  shape,
  offset: 0,
  length: shape.reduce((a, b) => a * b, 1),
  trainable,
});
const CHECKPOINT = {
  step: 5,
  layout: [entry('dense_1/kernel', [2, 3]), entry('dense_1/bias', [3])],
  slots: ['m', 'v'],
};
const adam = { name: 'adam', slots: ['m', 'v'] };

it('a changed job of the same shapes and optimizer takes up the state, whatever its weights are called', () => {
  const layout = [entry('dense_7/kernel', [2, 3]), entry('dense_7/bias', [3])];
  expect(unfitFor(CHECKPOINT, { layout, optimizer: adam })).toBeNull();
});

it.each([
  ['as many numbers in another shape', [entry('k', [3, 2]), entry('b', [3])]],
  ['one weight more', [...CHECKPOINT.layout, entry('x', [1])]],
  ['a weight that is not trained', [entry('k', [2, 3]), entry('b', [3], false)]],
])('a model with %s does not', (_, layout) => {
  expect(unfitFor(CHECKPOINT, { layout, optimizer: adam })).toMatch(/model has other weights.*after step 5/);
});

it('an optimizer with other vectors does not, be it one that would begin them at zero', () => {
  const { layout } = CHECKPOINT;
  expect(unfitFor(CHECKPOINT, { layout, optimizer: { name: 'sgd', slots: [] } })).toContain('(none)');
  expect(unfitFor({ ...CHECKPOINT, slots: [] }, { layout, optimizer: adam })).toContain('(m, v)');
});
