import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { paced } from '../../../coordinator/http/paced.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test('the first is made at once; who asks sooner waits, and all who wait get the same', async () => {
  let made = 0;
  const next = paced(() => ++made, 100);
  expect(await next()).toBe(1);
  const waiting = [next(), next(), next()];
  await vi.advanceTimersByTimeAsync(99);
  expect(made).toBe(1);
  await vi.advanceTimersByTimeAsync(1);
  expect(await Promise.all(waiting)).toEqual([2, 2, 2]);
  await vi.advanceTimersByTimeAsync(500);
  expect(await next()).toBe(3);
});

test('who asks again as soon as it is answered is answered ten times in a second at a pace of 100 ms', async () => {
  let made = 0;
  const next = paced(() => ++made, 100);
  const loop = async (): Promise<void> => {
    for (let i = 0; i < 50; i++) await next();
  };
  void loop();
  void loop();
  await vi.advanceTimersByTimeAsync(1000);
  expect(made).toBe(11);
});

test('one that fails fails for who waited for it, and the next is made anew', async () => {
  let made = 0;
  const next = paced(() => {
    if (++made === 1) throw new Error('planted');
    return made;
  }, 100);
  await expect(next()).rejects.toThrow('planted');
  const second = next();
  await vi.advanceTimersByTimeAsync(100);
  expect(await second).toBe(2);
});
