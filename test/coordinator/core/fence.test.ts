// When a coordinator looks whether another has its run.

import { expect, it } from 'vitest';
import { Fence, LOOK_EVERY_MS, type Successor } from '../../../coordinator/core/fence.ts';

const OTHER: Successor = { term: 2, host: 'red', pid: 7 };

it('looks before what happens after a silence, not again at what comes right after it, and always before what can’t be undone', () => {
  let looks = 0;
  let successor: Successor | null = null;
  const fence = new Fence(() => {
    looks++;
    return successor;
  });
  expect(fence.whenDue(1000)).toBeNull();
  expect(fence.whenDue(1000 + LOOK_EVERY_MS - 1)).toBeNull();
  expect(looks).toBe(1);
  successor = OTHER;
  expect(fence.whenDue(1000 + LOOK_EVERY_MS - 1)).toBeNull();
  expect(fence.now(1000 + LOOK_EVERY_MS - 1)).toBe(OTHER);
  expect(fence.whenDue(1000 + 2 * LOOK_EVERY_MS)).toBe(OTHER);
  expect(looks).toBe(3);
});
