// A generation's collective on the engine's own thread: sums are made and frames handed over between two calls of the engine, and
// while the step waits for its peers.

import { availableParallelism } from 'node:os';
import type { Link } from '../../../protocol/link.ts';
import { nextTurn } from '../../next-turn.ts';
import type { AllReduceTiming } from '../../train.ts';
import { AllReduce, canWorkOutside, planMemory, type Outside } from '../all-reduce.ts';
import { residualsOf, type OpenCollective } from './generation.ts';
import { Exchange, type GenerationPlan, type StepFigures } from './exchange.ts';
import { nameOf, type Member } from './link-up.ts';
import { reservePages, shareWithPeers, vectorMemory } from './memory.ts';
import { backward, planCollective } from '../plan.ts';
import { TrafficMeter } from './traffic.ts';

/**
 * How long to look for a peer's frames before sleeping until it wakes this process: not long for a peer that is still computing, which
 * may want the core; longer once all of them exchange, when the next frame is under way, but not so long that a peer without a core waits
 * for one that looks: on a machine with ten other programs 2 ms made a call of 0.49 MB last 16 ms, 0.2 ms 2.4.
 */
const LOOK_MS = { whileTheyCompute: 0.1, whileTheyExchange: 0.2 };

/**
 * Buckets that follow one another faster than this, as from an engine that delivers a gradient in one piece, all leave before what peers
 * have sent is looked at: a part that is taken in after this rank's own is added from where it lies, one that comes before is stored first.
 */
const AT_ONCE_MS = 0.2;

/** How far a vector is copied in ahead of what is here of the sum: what is under way is several buckets, and stays in the cache. */
const COPIED_AHEAD_FLOATS = 1024 * 1024;

export function inPlace(
  plan: GenerationPlan,
  members: readonly Member[],
  links: ReadonlyMap<number, Link>,
): OpenCollective {
  const collective = planCollective(plan);
  const places = planMemory(collective, plan.rank);
  const pages = reservePages(places.floats, false);
  // Before anything is written there: a peer that is ahead has sent its first part already, and receiving begins with the exchange.
  const endSharing = shareWithPeers(pages, links.values());
  const memory = vectorMemory(pages);
  /** Peers that share memory read this rank's vectors there. */
  const isReadByPeers = [...links.values()].some((link) => link.share !== undefined);
  const { buckets, length } = collective;
  const meter = new TrafficMeter();
  const free: number[] = [];
  let failure: Error | null = null;
  let figures: StepFigures | null = null;
  let wake: () => void = () => {};
  /** Told of what is here of the sum. */
  let here: ((start: number, end: number, isOwn: boolean) => void) | null = null;
  const exchange = new Exchange({
    plan,
    links,
    memory,
    finished: (done) => {
      figures = done;
    },
    freed: (slot) => free.push(slot),
    gathered: ({ start, end }, isOwn) => here?.(start, end, isOwn),
    nameOf: (rank) => nameOf(members, rank),
    failed: (error) => {
      failure ??= error;
      wake();
    },
    stirred: () => wake(),
  });
  let step = plan.firstStep;
  let sumAt: number | null = null;
  let microbatch = 0;
  let slot = 0;
  let offeredAt = Number.POSITIVE_INFINITY;
  const begin = (outside: Outside | null = null): void => {
    if (sumAt !== null) return;
    figures = null;
    sumAt = exchange.begin(outside);
    // Taken from the end.
    free.splice(0, free.length, ...AllReduce.slotsOf(places, step).toReversed());
    step++;
  };
  // Where ranks outnumber cores, a rank that looks keeps one from working.
  const ranksHere = members.filter((member) => member.host === members[plan.rank]?.host).length;
  const isCrowded = ranksHere > availableParallelism();
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

  /** Waits, moving what can be moved, while `isMissing()`; while peers compute, with other work meanwhile. */
  const workWhile = async (isMissing: () => boolean, meanwhile?: () => boolean): Promise<void> => {
    let movedAt = performance.now();
    let isMore = meanwhile !== undefined;
    while (isMissing()) {
      if (failure !== null) throw failure;
      if (exchange.poll()) movedAt = performance.now();
      else if (isMore && !exchange.everyoneHeard) {
        isMore = meanwhile?.() ?? false;
        // What comes from sockets, and from the coordinator, is heard between two turns.
        await nextTurn();
      } else if (exchange.hasPolledLinks && performance.now() - movedAt < lookMs()) await nextTurn();
      else {
        await stirred();
        movedAt = performance.now();
      }
    }
  };
  const takeSlot = (index: number): Float32Array => {
    if (failure !== null) throw failure;
    if (sumAt === null) begin();
    else exchange.poll();
    offeredAt = Number.POSITIVE_INFINITY;
    const taken = free.pop();
    if (taken === undefined) throw new Error('there is a slot for every microbatch that is not yet added');
    [microbatch, slot] = [index, taken];
    return memory.floats(places.slots[taken] ?? 0, length);
  };
  const ready = (bucket: number): void => {
    exchange.offer(microbatch, buckets.length - 1 - bucket, slot);
    const now = performance.now();
    if (now - offeredAt > AT_ONCE_MS) exchange.poll();
    offeredAt = now;
  };
  /** The step's figures, once it is done; ends it. */
  const finish = async (startedAt: number, meanwhile?: () => boolean): Promise<AllReduceTiming> => {
    await workWhile(() => figures === null, meanwhile);
    if (figures === null) throw new Error('a step that is done has figures');
    sumAt = null;
    const seconds = (performance.now() - startedAt) / 1000;
    return { ...meter.timing(figures, seconds), marks: exchange.marks?.times ?? null };
  };

  return {
    rank: plan.rank,
    worldSize: plan.worldSize,
    buckets: backward(buckets),
    residuals: residualsOf(collective, plan.rank, places, (at, count) => memory.floats(at, count)),
    slot: async (index) => takeSlot(index),
    ready,
    absent: async (index) => {
      begin();
      for (const bucket of buckets.keys()) exchange.offer(index, bucket, null);
    },
    allReduce: async (meanwhile) => {
      const startedAt = performance.now();
      // Once a step at least the process listens to others than its peers.
      await nextTurn();
      const sum = memory.floats(sumAt ?? 0, length);
      return { ...(await finish(startedAt, meanwhile)), sum };
    },
    allReduceCopied: async (index, vector, out) => {
      const startedAt = performance.now();
      await nextTurn();
      const isOutside = canWorkOutside(collective, plan.rank);
      if (isOutside) begin({ vector: isReadByPeers ? null : vector, sum: out });
      const into = takeSlot(index);
      const sum = memory.floats(sumAt ?? 0, length);
      let offered = 0;
      let copied = 0;
      here = (start, end, isOwn) => {
        if (isOwn || !isOutside) out.set(sum.subarray(start, end), start);
        copied += end - start;
      };
      for (const [bucket, { offset, length: count }] of backward(buckets).entries()) {
        const { start, end } =
          isOutside && !isReadByPeers
            ? (collective.slices[buckets.length - 1 - bucket]?.[plan.rank] ?? { start: 0, end: 0 })
            : { start: offset, end: offset + count };
        into.set(vector.subarray(start, end), start);
        offered += count;
        ready(bucket);
        if (offered - copied > COPIED_AHEAD_FLOATS) await workWhile(() => offered - copied > COPIED_AHEAD_FLOATS);
      }
      const timing = await finish(startedAt);
      here = null;
      return timing;
    },
    abandon: (error) => {
      failure ??= error;
      wake();
    },
    get failure() {
      return failure;
    },
    close: async () => {
      await exchange.close('the generation is over');
      endSharing();
    },
  };
}
