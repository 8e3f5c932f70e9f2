// A generation's collective on the engine's own thread: sums are made and frames handed over between two calls of the engine, and
// while the step waits for its peers.

import { availableParallelism } from 'node:os';
import type { Link } from '../../../protocol/link.ts';
import type { AllReduceTiming } from '../../train.ts';
import { AllReduce, planMemory } from '../all-reduce.ts';
import { residualsOf, type OpenCollective } from './generation.ts';
import { Exchange, type GenerationPlan, type StepFigures } from './exchange.ts';
import { nameOf, type Member } from './link-up.ts';
import { reservePages, vectorMemory } from './memory.ts';
import { backward, planCollective } from '../plan.ts';
import { TrafficMeter } from './traffic.ts';

/**
 * How long to look for a peer's frames before sleeping until it wakes this process: not long for a peer that is still computing, which
 * may want the core; longer once all of them exchange, when the next frame is under way.
 */
const LOOK_MS = { whileTheyCompute: 0.1, whileTheyExchange: 2 };

export function inPlace(
  plan: GenerationPlan,
  members: readonly Member[],
  links: ReadonlyMap<number, Link>,
): OpenCollective {
  const collective = planCollective(plan);
  const places = planMemory(collective, plan.rank);
  const memory = vectorMemory(reservePages(places.floats, false));
  const { buckets, length } = collective;
  const meter = new TrafficMeter();
  const free: number[] = [];
  let failure: Error | null = null;
  let figures: StepFigures | null = null;
  let wake: () => void = () => {};
  const exchange = new Exchange({
    plan,
    links,
    memory,
    finished: (done) => {
      figures = done;
    },
    freed: (slot) => free.push(slot),
    nameOf: (rank) => nameOf(members, rank),
    failed: (error) => {
      failure = error;
      wake();
    },
    stirred: () => wake(),
  });
  let step = plan.firstStep;
  let sumAt: number | null = null;
  let microbatch = 0;
  let slot = 0;
  const begin = (): void => {
    if (sumAt !== null) return;
    figures = null;
    sumAt = exchange.begin();
    // Taken from the end.
    free.splice(0, free.length, ...AllReduce.slotsOf(places, step).toReversed());
    step++;
  };
  // Where ranks outnumber cores, a rank that looks keeps one from working.
  const here = members.filter((member) => member.host === members[plan.rank]?.host).length;
  const isCrowded = here > availableParallelism();
  const lookMs = (): number => {
    if (isCrowded) return 0;
    return exchange.everyoneHeard ? LOOK_MS.whileTheyExchange : LOOK_MS.whileTheyCompute;
  };
  /** Until a peer has sent something. */
  const stirred = async (): Promise<void> => {
    const asleep = new Promise<void>((resolve) => {
      wake = resolve;
    });
    exchange.sleep(true);
    // Something may have come before the word that this process must be woken.
    if (!exchange.poll()) await asleep;
    exchange.sleep(false);
  };

  return {
    rank: plan.rank,
    worldSize: plan.worldSize,
    buckets: backward(buckets),
    residuals: residualsOf(collective, plan.rank, places, (at, count) => memory.floats(at, count)),
    slot: async (index) => {
      if (failure !== null) throw failure;
      begin();
      const taken = free.pop();
      if (taken === undefined) throw new Error('there is a slot for every microbatch that is not yet added');
      [microbatch, slot] = [index, taken];
      return memory.floats(places.slots[taken] ?? 0, length);
    },
    ready: (bucket) => {
      exchange.offer(microbatch, buckets.length - 1 - bucket, slot);
      exchange.poll();
    },
    absent: async (index) => {
      begin();
      for (const bucket of buckets.keys()) exchange.offer(index, bucket, null);
    },
    allReduce: async (_step, out): Promise<AllReduceTiming> => {
      const startedAt = performance.now();
      // Once a step at least the process listens to others than its peers.
      await nextTurn();
      let movedAt = performance.now();
      for (;;) {
        if (failure !== null) throw failure;
        if (figures !== null) break;
        if (exchange.poll()) movedAt = performance.now();
        else if (exchange.hasPolledLinks && performance.now() - movedAt < lookMs()) await nextTurn();
        else {
          await stirred();
          movedAt = performance.now();
        }
      }
      out.set(memory.floats(sumAt ?? 0, length));
      sumAt = null;
      return meter.timing(figures, (performance.now() - startedAt) / 1000);
    },
    close: () => exchange.close('the generation is over'),
  };
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
