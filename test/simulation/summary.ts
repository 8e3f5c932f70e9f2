// What many seeds went through, in some lines: so that one sees that they tested something.

import type { Simulated } from './simulate.ts';

export function summaryOf(runs: readonly Simulated[], seconds: number): string[] {
  const sum = (of: (run: Simulated) => number): number => runs.reduce((total, run) => total + of(run), 0);
  const count = (keys: readonly (readonly [string, number])[]): string => {
    const totals = new Map<string, number>();
    for (const [key, value] of keys) totals.set(key, (totals.get(key) ?? 0) + value);
    return [...totals].map(([key, total]) => `${key} ${total}`).join(', ') || 'none';
  };
  return [
    `${runs.length} seeds in ${seconds.toFixed(1)} s: ${(runs.length / seconds).toFixed(1)} seeds/s, ${Math.round(sum((run) => run.events) / seconds)} events/s`,
    `ended: ${count(runs.map((run) => [run.outcome, 1]))}; ${Math.round(sum((run) => run.virtualSeconds))} s of virtual time`,
    `faults: ${count(runs.flatMap((run) => Object.entries(run.faults)))}; failed writes ${sum((run) => run.failedWrites)}`,
    `generations ${sum((run) => run.generations)}, steps ${sum((run) => run.steps)}, microbatches ${sum((run) => run.microbatches)}`,
  ];
}
