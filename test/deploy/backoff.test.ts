// How long what failed waits before it is tried again.

import { describe, expect, it } from 'vitest';
import { FailuresInARow, waitAfter } from '../../deploy/backoff.ts';

describe('back-off', () => {
  it('does not wait after the first failure, then doubles, up to a limit', () => {
    const waits = [1, 2, 3, 4, 5, 6, 7, 8, 100].map((n) => waitAfter(n, { firstMs: 1000, mostMs: 30_000 }));
    expect(waits).toEqual([0, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  });

  it('counts by what failed, and anew for what lived for long', () => {
    const failures = new FailuresInARow<string>(10_000);
    expect([failures.failed('a', 5), failures.failed('a', 9999), failures.failed('b', 5)]).toEqual([1, 2, 1]);
    expect([failures.failed('a', 10_000), failures.failed('a', 5)]).toEqual([1, 2]);
  });
});
