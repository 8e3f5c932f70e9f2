// Several ranks' all-reduce cores in one place, with every byte between them in the hands of a scheduler: which link delivers
// next, and how much, is its choice, and so is the moment at which a rank offers its next vector.

import { encodeFrameHeader, FrameReader } from '../../../protocol/frame.ts';
import type { Shares } from '../../../protocol/shares.ts';
import { AllReduce, canWorkOutside, planMemory } from '../../../worker/collective/all-reduce.ts';
import { planCollective, type Compression } from '../../../worker/collective/plan.ts';
import { plainMemory } from './plain-memory.ts';

export interface World {
  readonly worldSize: number;
  readonly microbatches: number;
  readonly length: number;
  readonly bucketFloats: number;
  /** Evenly, where there are none. */
  readonly shares?: Shares;
  readonly hosts?: readonly string[];
  readonly compression?: Compression | null;
  /** Where a rank can, its vector lies in an array of its own, which the sum takes the place of; in its memory are its own slices alone. */
  readonly outside?: boolean;
}

export interface WorldRun {
  /** By step, then by rank. */
  readonly sums: Float32Array[][];
  /** By microbatch, after the last step; none without compression. */
  readonly residuals: Float32Array[];
  /** Bytes of payload between ranks of different hosts, and between any two. */
  readonly bytesBetweenHosts: number;
  readonly bytes: number;
  /** Frames and bytes of payload by `from>to`. */
  readonly sent: ReadonlyMap<string, { readonly frames: number; readonly bytes: number }>;
}

/** A scheduler that takes one after the other. */
export function inTurns(): (n: number) => number {
  let turn = 0;
  return (n) => turn++ % n;
}

interface Pipe {
  readonly from: number;
  readonly to: number;
  readonly reader: FrameReader;
  readonly queue: Uint8Array[];
}

/**
 * Runs `steps` (each a vector a microbatch, null: no samples). `choose(n)` gives a whole number from 0 to n - 1. Sent payloads are
 * read when they are delivered, not when they are sent, as from a socket that is slow: what is overwritten too early shows.
 */
export function runWorld(world: World, steps: (Float32Array | null)[][], choose: (n: number) => number): WorldRun {
  const plan = planCollective(world);
  const pipes = new Map<string, Pipe>();
  let bytesBetweenHosts = 0;
  let sentBytes = 0;
  const sent = new Map<string, { frames: number; bytes: number }>();
  const sums: Float32Array[][] = steps.map(() => []);

  const ranks = Array.from({ length: world.worldSize }, (_, rank) => {
    const places = planMemory(plan, rank);
    const memory = plainMemory(places.floats);
    const freed: number[] = [];
    const core = new AllReduce({
      plan,
      rank,
      generation: 1,
      firstStep: 0,
      memory,
      places,
      send: (to, header, payload) => {
        const pipe = pipes.get(`${rank}>${to}`);
        if (pipe === undefined) throw new Error('no such pipe');
        pipe.queue.push(encodeFrameHeader(header), payload);
        sentBytes += payload.byteLength;
        const { frames = 0, bytes = 0 } = sent.get(`${rank}>${to}`) ?? {};
        sent.set(`${rank}>${to}`, { frames: frames + 1, bytes: bytes + payload.byteLength });
        if (world.hosts !== undefined && world.hosts[rank] !== world.hosts[to]) bytesBetweenHosts += payload.byteLength;
      },
      freed: (slot) => freed.push(slot),
    });
    return { rank, core, memory, places, freed, todo: actions(rank), step: -1, sumAt: 0 };
  });
  type Rank = (typeof ranks)[number];
  for (const { rank: from } of ranks) {
    for (const receiver of ranks) {
      if (receiver.rank === from) continue;
      const reader = new FrameReader(receiver.core.sink(from));
      pipes.set(`${from}>${receiver.rank}`, { from, to: receiver.rank, reader, queue: [] });
    }
  }

  /** What a rank does by itself, one at a time: begins steps, writes vectors into slots, offers their buckets. */
  function* actions(rank: number): Generator<'stuck' | 'moved'> {
    const me = ranks[rank] as Rank;
    const mine = plan.shares[rank] ?? [];
    for (const [step, vectors] of steps.entries()) {
      const isOutside = world.outside === true && canWorkOutside(plan, rank);
      const outside = isOutside ? new Float32Array(world.length) : null;
      if (outside !== null) outside.set(vectors[mine[0] ?? 0] ?? []);
      me.sumAt = me.core.begin(outside === null ? null : { vector: outside, sum: outside });
      const ownSlices = plan.slices.map((slices) => slices[rank] ?? { start: 0, end: 0 });
      const free = AllReduce.slotsOf(me.places, step).toReversed();
      me.freed.length = 0;
      yield 'moved';
      for (const m of mine) {
        const vector = vectors[m] ?? null;
        if (vector !== null) while (free.length === 0 && me.freed.length === 0) yield 'stuck';
        const slot = vector === null ? null : (free.pop() ?? me.freed.pop() ?? 0);
        if (vector !== null && slot !== null) {
          const place = me.memory.floats(me.places.slots[slot] ?? 0, world.length);
          if (outside === null) place.set(vector);
          else for (const { start, end } of ownSlices) place.set(vector.subarray(start, end), start);
        }
        for (const bucket of [...plan.buckets.keys()].toReversed()) {
          me.core.offer(m, bucket, slot);
          yield 'moved';
        }
      }
      while (!me.core.done) yield 'stuck';
      const sum = me.memory.floats(me.sumAt, world.length);
      if (outside !== null) for (const { start, end } of ownSlices) outside.set(sum.subarray(start, end), start);
      (sums[step] as Float32Array[])[rank] = (outside ?? sum).slice();
      // The caller's again.
      outside?.fill(Number.NaN);
      // As the training loop does with what it was given: a sum is used up.
      me.core.end();
      yield 'moved';
    }
  }

  const deliver = (pipe: Pipe): void => {
    const bytes = pipe.queue[0];
    if (bytes === undefined) return;
    // Read to where the receiver wants it, as from a socket, or handed over.
    const landing = choose(2) === 0 ? pipe.reader.landing() : null;
    const most = Math.min(bytes.byteLength, landing?.byteLength ?? bytes.byteLength);
    const cut = Math.min(most, 1 + choose(Math.max(1, 2 * bytes.byteLength)));
    if (landing === null) pipe.reader.push(bytes.slice(0, cut));
    else {
      landing.set(bytes.subarray(0, cut));
      pipe.reader.landed(cut);
    }
    if (cut === bytes.byteLength) pipe.queue.shift();
    else pipe.queue[0] = bytes.subarray(cut);
  };

  const finished = new Set<number>();
  let idle = 0;
  while (finished.size < ranks.length || [...pipes.values()].some((p) => p.queue.length > 0)) {
    const busy = [...pipes.values()].filter((p) => p.queue.length > 0);
    const alive = ranks.filter((r) => !finished.has(r.rank));
    const pick = choose(busy.length + alive.length);
    const pipe = busy[pick];
    idle++;
    if (pipe !== undefined) {
      deliver(pipe);
      idle = 0;
    } else {
      const me = alive[pick - busy.length] as Rank;
      const { done, value } = me.todo.next();
      if (done === true) finished.add(me.rank);
      if (value !== 'stuck') idle = 0;
    }
    if (idle > 100_000) throw new Error('the ranks wait for each other');
  }
  const residuals = ranks.flatMap(({ memory, places }) =>
    places.residuals.map((at) => memory.floats(at, world.compression?.floats ?? 0).slice()),
  );
  return { sums, residuals, bytesBetweenHosts, bytes: sentBytes, sent };
}
