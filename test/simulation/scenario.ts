// What a seed stands for: a job, a cluster, a network's weather, and what goes wrong in it.

import { stepsPerEpoch } from '../../protocol/batch-plan.ts';
import type { Chance } from './chance.ts';
import type { Weather } from './network.ts';
import type { Manners } from './peer-links.ts';
import { toyJob, type ToyJob } from './toy.ts';

export const FAULTS = [
  'crash',
  'crash of several',
  'crash of all',
  'lost host',
  'coordinator crash',
  'newcomer',
  'pause',
  'coordinator pause',
  'coordinator replaced',
  'cut',
  'stop',
  'delays',
  'clock jump',
  'full disk',
  'stranger',
  'duplicate',
  'echo',
  'hang',
  'bit flip',
] as const;
export type FaultKind = (typeof FAULTS)[number];

export interface Scenario {
  readonly job: ToyJob;
  readonly workers: number;
  readonly spares: number;
  readonly hosts: number;
  readonly checkpointEverySteps: number;
  readonly digestEverySteps: number;
  readonly auditRate: number;
  readonly stragglerLimit: number;
  readonly bucketFloats: number;
  /** The engine holds its process's one thread while it computes. */
  readonly blocking: boolean;
  /** Microseconds that a microbatch takes: between these. */
  readonly computeUs: readonly [number, number];
  readonly supervised: boolean;
  readonly minWorkers: number;
  readonly maxWorkers: number;
  readonly weather: Weather;
  readonly manners: Manners;
  /** Each with the number of the event before which it happens. */
  readonly faults: readonly { readonly atEvent: number; readonly kind: FaultKind }[];
}

export function drawScenario(chance: Chance): Scenario {
  const microbatches = chance.pick([4, 4, 8]);
  const globalBatch = microbatches * chance.between(1, 3);
  const batches = chance.between(3, 10);
  // The last batch is short, and may have microbatches without samples.
  const samples = globalBatch * (batches - 1) + chance.between(1, globalBatch);
  const epochs = chance.between(1, 2);
  const plan = { samples, globalBatch, microbatches, seed: chance.below(1000) };
  const whole = epochs * stepsPerEpoch(plan);
  const steps = chance.happens(0.2) ? chance.between(1, whole) : whole;
  const job = toyJob({ plan, steps, epochs, testSamples: chance.pick([0, 20, 270]) });
  const workers = chance.between(1, 4);
  const computeUs = chance.spread(200, 50_000);
  const leastUs = chance.spread(5, 500);
  const weather: Weather = {
    leastUs,
    mostUs: leastUs * chance.between(2, 20),
    spikes: chance.pick([0, 0.01, 0.1]),
    spikeUs: chance.spread(10_000, 400_000),
  };
  const manners: Manners = {
    cuts: chance.pick([0, 0.1, 0.5]),
    joins: chance.pick([0, 0.5, 0.9]),
    landings: chance.pick([0, 0.5, 1]),
    stale: chance.pick([0, 0, 0.05]),
    polled: chance.pick([0, 0, 0, 0.5, 1]),
  };
  return {
    job,
    workers,
    spares: chance.pick([0, 0, 1]),
    hosts: chance.pick([1, 2, workers]),
    checkpointEverySteps: chance.pick([0, 1, 3]),
    digestEverySteps: chance.pick([0, 1, 3]),
    auditRate: chance.pick([0, 0, 0.3, 1]),
    stragglerLimit: chance.pick([0, 0, 0.1, 0.5]),
    bucketFloats: chance.pick([8, 16, 1024]),
    blocking: chance.happens(0.5),
    computeUs: [computeUs, computeUs * chance.between(1, 4)],
    supervised: chance.happens(0.5),
    minWorkers: chance.happens(0.7) ? 1 : chance.between(1, workers),
    maxWorkers: chance.happens(0.7) ? microbatches : chance.between(workers, microbatches),
    weather,
    manners,
    faults: drawFaults(chance),
  };
}

function drawFaults(chance: Chance): Scenario['faults'] {
  // Bits do not flip among them: whoever has wrong ones must live, among two others, until that is seen.
  // Engines hang rarely: each takes minutes to be found.
  const kinds = FAULTS.filter((kind) => chance.happens(kind === 'hang' ? 0.1 : 0.4) && kind !== 'bit flip');
  if (kinds.length === 0) return [];
  // From a rare fault to one on the heels of another.
  const count = chance.spread(1, 20) - 1;
  const last = chance.spread(100, 2000);
  return Array.from({ length: count }, () => ({ atEvent: chance.between(5, last), kind: chance.pick(kinds) })).toSorted(
    (a, b) => a.atEvent - b.atEvent,
  );
}
