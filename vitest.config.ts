// Two kinds of test. `unit`: one process each file, nothing started but short helpers, many at once. `e2e`: real coordinators and
// workers on real ports and cores, so one file at a time, with time to train. No retries: a test that fails once has failed.

import { defineConfig } from 'vitest/config';

const REAL_PROCESSES = ['test/e2e/**/*.test.ts', 'test/cluster/**/*.test.ts'];
const MINUTE_MS = 60_000;

export default defineConfig({
  test: {
    retry: 0,
    allowOnly: false,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: REAL_PROCESSES,
          pool: 'forks',
          testTimeout: MINUTE_MS,
          hookTimeout: MINUTE_MS,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'e2e',
          include: REAL_PROCESSES,
          pool: 'forks',
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 10 * MINUTE_MS,
          hookTimeout: 10 * MINUTE_MS,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
