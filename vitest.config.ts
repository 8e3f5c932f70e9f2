// Three kinds of test. `unit`: one process each file, nothing started but short helpers, many at once. `e2e`: real coordinators and
// workers on real ports and cores, so one file at a time, with time to train. `e2e-pairs`: likewise, of which no result depends on when
// anything happens, so two files at a time. No retries: a test that fails once has failed.

import { defineConfig } from 'vitest/config';

const REAL_PROCESSES = ['test/e2e/**/*.test.ts', 'test/cluster/**/*.test.ts'];
/** Bits, files and words, not times; or mostly waiting. */
const TRAINED = ['train', 'own-job', 'compression', 'node24', 'verify', 'tls', 'nats-record', 'nats-links', 'promtool'];
const STORIES = ['attacks', 'launch', 'nats', 'nats-cluster', 'slurm'];
const PAIRS = ['test/cluster/survive.test.ts', ...[...TRAINED, ...STORIES].map((name) => `test/e2e/${name}.test.ts`)];
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
          exclude: PAIRS,
          pool: 'forks',
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 10 * MINUTE_MS,
          hookTimeout: 10 * MINUTE_MS,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'e2e-pairs',
          include: PAIRS,
          pool: 'forks',
          maxWorkers: 2,
          testTimeout: 10 * MINUTE_MS,
          hookTimeout: 10 * MINUTE_MS,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
