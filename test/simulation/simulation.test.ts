// The simulation under test: that it is a function of its seed, that the product holds under 2,000 seeds, and that it would tell if
// it did not.

import { describe, expect, it } from 'vitest';
import { PLANTED } from './planted.ts';
import type { Scenario } from './scenario.ts';
import { simulate, SimulationFailure, type Simulated } from './simulate.ts';
import { summaryOf } from './summary.ts';

const SEEDS = 2000;
/** Within which a planted bug must be caught. */
const PLANTED_SEEDS = 200;

describe('the simulation', () => {
  it('is a function of its seed: the same events, at the same times, with the same bits', async () => {
    const hashes = async (): Promise<string[]> => {
      const found: string[] = [];
      for (let seed = 1; seed <= 20; seed++) found.push((await simulate(seed)).traceHash);
      return found;
    };
    const first = await hashes();
    expect(await hashes()).toEqual(first);
    expect(new Set(first).size).toBe(20);
  });

  it(
    `finds no property broken by seeds 1 to ${SEEDS}`,
    async () => {
      const startedMs = performance.now();
      const runs: Simulated[] = [];
      for (let seed = 1; seed <= SEEDS; seed++) {
        try {
          runs.push(await simulate(seed));
        } catch (error) {
          if (!(error instanceof SimulationFailure)) throw error;
          throw new Error(
            `${error.message}\n${error.tail.slice(-20).join('\n')}\nAgain: npm run simulate -- --seed ${seed} --verbose`,
            {
              cause: error,
            },
          );
        }
      }
      console.log(summaryOf(runs, (performance.now() - startedMs) / 1000).join('\n'));
      // It tested something.
      expect(runs.filter((run) => run.outcome === 'done').length).toBeGreaterThan(SEEDS / 2);
    },
    10 * 60_000,
  );

  it('loses nothing by a worker that is killed before any one event', async () => {
    const quiet = (scenario: Scenario): Scenario => ({ ...scenario, workers: 2, spares: 0, minWorkers: 1, faults: [] });
    const { events } = await simulate(3, { change: quiet });
    for (let atEvent = 1; atEvent < events; atEvent++) {
      const { outcome } = await simulate(3, {
        change: (scenario) => ({ ...quiet(scenario), faults: [{ atEvent, kind: 'crash' }] }),
      });
      expect(outcome).toBe('done');
    }
  });

  it('computes nothing again that a survivor had of a step that takes long', async () => {
    let again = 0;
    let short = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const long =
        (computeUs: number) =>
        (scenario: Scenario): Scenario => ({
          ...scenario,
          workers: 3,
          minWorkers: 1,
          auditRate: 0,
          stragglerLimit: 0,
          computeUs: [computeUs, computeUs],
          weather: { ...scenario.weather, spikes: 0 },
          faults: [60, 90, 120].map((event) => ({ atEvent: 200 + 7 * seed + event, kind: 'crash' })),
        });
      const { outcome, computedAgain } = await simulate(seed, { change: long(120_000) });
      expect([seed, outcome]).toEqual([seed, 'done']);
      again += computedAgain;
      // Steps of a few milliseconds are done again whole.
      short += (await simulate(seed, { change: long(1000) })).computedAgain;
    }
    // What it is worth is known after a process's first microbatch.
    expect(short).toBeGreaterThan(50);
    expect(again).toBeLessThan(short / 10);
  });

  it('leaves nothing of a bit that flips in one of three or more, whose digests are compared', async () => {
    const outcomes: string[] = [];
    for (let seed = 1; seed <= 100; seed++) {
      const { outcome } = await simulate(seed, {
        change: (scenario) => ({
          ...scenario,
          workers: Math.max(3, scenario.workers),
          minWorkers: 1,
          digestEverySteps: 1 + (seed % 3),
          auditRate: 0,
          faults: [{ atEvent: 200 + 3 * seed, kind: 'bit flip' }],
        }),
      });
      outcomes.push(outcome);
    }
    // Of four microbatches' places one may be left for two members, who can't tell which of them is wrong.
    expect(outcomes.filter((outcome) => outcome === 'done').length).toBeGreaterThan(90);
  });

  it('finds whose engine hangs, and goes on without it', async () => {
    let hung = 0;
    for (let seed = 1; seed <= 25; seed++) {
      const { outcome, faults, virtualSeconds } = await simulate(seed, {
        change: (scenario) => ({
          ...scenario,
          supervised: true,
          workers: Math.max(2, scenario.workers),
          spares: 0,
          minWorkers: 1,
          faults: [{ atEvent: 150 + 5 * seed, kind: 'hang' }],
        }),
      });
      expect([seed, outcome]).toEqual([seed, 'done']);
      // Nobody ends it by hand: that takes 500 s.
      expect(virtualSeconds).toBeLessThan(450);
      hung += faults.hang ?? 0;
    }
    expect(hung).toBeGreaterThan(12);
  });

  it.each(PLANTED)('catches $bug', async ({ plants, breaks, change }) => {
    for (let seed = 1; seed <= PLANTED_SEEDS; seed++) {
      const failure = await simulate(seed, { plants: plants(), ...(change && { change }) }).then(
        () => null,
        (error: unknown) => error,
      );
      if (failure === null) continue;
      expect(failure).toBeInstanceOf(SimulationFailure);
      expect(breaks).toContain((failure as SimulationFailure).violation.property);
      return;
    }
    expect.fail(`not within ${PLANTED_SEEDS} seeds`);
  });
});
