// The all-reduce core of several ranks, with every frame in the hands of a seeded scheduler: any order between links is tried.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { pieceOf } from '../../../protocol/batch-plan.ts';
import { decodeFrame, encodeFrameHeader, type Frame } from '../../../protocol/frame.ts';
import { AllReduce, type Outgoing } from '../../../worker/collective/all-reduce.ts';
import { planCollective } from '../../../worker/collective/plan.ts';
import { Fold } from '../../../worker/collective/tree.ts';
import { bitsOf, canonicalSum, spreadFloats } from './canonical-sum.ts';

function frameOf(outgoing: Outgoing): Frame {
  const header = encodeFrameHeader(outgoing.header);
  const bytes = new Uint8Array(header.byteLength + outgoing.payload.byteLength);
  bytes.set(header);
  bytes.set(
    new Uint8Array(outgoing.payload.buffer, outgoing.payload.byteOffset, outgoing.payload.byteLength),
    header.byteLength,
  );
  return decodeFrame(bytes);
}

interface World {
  readonly worldSize: number;
  readonly microbatches: number;
  readonly length: number;
  readonly bucketFloats: number;
}

/** Runs `steps` steps over `world`; `choose(n)` picks which of n links delivers next. Returns each rank's sum of each step. */
function runWorld(world: World, steps: (Float32Array | null)[][], choose: (n: number) => number): Float32Array[][] {
  const plan = planCollective(world);
  const sums: Float32Array[][] = steps.map(() => []);
  const ranks = Array.from({ length: world.worldSize }, (_, rank) => ({
    rank,
    core: new AllReduce(plan, rank, 1),
    fold: new Fold(world.length),
    out: new Float32Array(world.length),
    step: -1,
  }));
  /** Frames under way, in order for each pair of ranks. */
  const links = new Map<string, { from: number; to: number; queue: Frame[] }>();
  const send = (from: number, outgoing: Outgoing[]): void => {
    for (const o of outgoing) {
      const key = `${from}>${o.to}`;
      const link = links.get(key) ?? { from, to: o.to, queue: [] };
      links.set(key, link);
      link.queue.push(frameOf(o));
    }
  };
  const advance = (r: (typeof ranks)[number]): void => {
    while (r.core.done && r.step + 1 <= steps.length) {
      if (r.step >= 0) {
        (sums[r.step] as Float32Array[])[r.rank] = r.out.slice();
        r.core.end();
        r.fold.clear();
      }
      r.step++;
      const vectors = steps[r.step];
      if (vectors === undefined) return;
      r.out.fill(Number.NaN);
      const mine = pieceOf({ start: 0, end: world.microbatches }, world.worldSize, r.rank);
      for (let m = mine.start; m < mine.end; m++) r.fold.push(m, vectors[m] ?? null);
      send(r.rank, r.core.begin(r.step, r.fold.partials(), r.out));
    }
  };
  // Ranks begin at moments of the scheduler's choice, too.
  const unbegun = [...ranks];
  for (;;) {
    const busy = [...links.values()].filter((l) => l.queue.length > 0);
    const choices = busy.length + unbegun.length;
    if (choices === 0) break;
    const pick = choose(choices);
    const link = busy[pick];
    if (link === undefined) {
      const [rank] = unbegun.splice(pick - busy.length, 1);
      if (rank !== undefined) advance(rank);
      continue;
    }
    const receiver = ranks[link.to];
    const frame = link.queue.shift();
    if (receiver === undefined || frame === undefined) continue;
    send(receiver.rank, receiver.core.receive(link.from, frame));
    if (receiver.step >= 0) advance(receiver);
  }
  return sums;
}

describe('AllReduce', () => {
  it('gives every rank the canonical sum, bit for bit, for every world size, bucket size and order of arrival', () => {
    fc.assert(
      fc.property(
        fc.record({
          power: fc.integer({ min: 0, max: 4 }),
          world: fc.integer({ min: 1, max: 16 }),
          length: fc.integer({ min: 1, max: 50 }),
          bucketFloats: fc.integer({ min: 1, max: 60 }),
          seed: fc.nat({ max: 1_000_000 }),
        }),
        fc.infiniteStream(fc.nat({ max: 1_000_000 })),
        fc.infiniteStream(fc.integer({ min: 0, max: 5 })),
        ({ power, world, length, bucketFloats, seed }, order, absence) => {
          const microbatches = 2 ** power;
          const worldSize = Math.min(world, microbatches);
          const steps = [0, 1, 2].map((step) =>
            Array.from({ length: microbatches }, (_, m) =>
              absence.next().value === 0 ? null : spreadFloats(length, seed + 100 * step + m),
            ),
          );
          const sums = runWorld(
            { worldSize, microbatches, length, bucketFloats },
            steps,
            (n) => order.next().value % n,
          );
          for (const [step, vectors] of steps.entries()) {
            const expected = bitsOf(canonicalSum(vectors) ?? new Float32Array(length));
            expect(sums[step]).toHaveLength(worldSize);
            for (const sum of sums[step] ?? []) expect(bitsOf(sum)).toEqual(expected);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it('differs from a left fold in the order of the ranks, which is why the tree is there', () => {
    const vectors = Array.from({ length: 4 }, (_, m) => spreadFloats(1000, m));
    const [sum] =
      runWorld({ worldSize: 2, microbatches: 4, length: 1000, bucketFloats: 1000 }, [vectors], () => 0)[0] ?? [];
    const left = vectors.reduce((a, b) => Float32Array.from(a, (x, i) => Math.fround(x + (b[i] ?? 0))));
    expect(bitsOf(sum as Float32Array)).not.toEqual(bitsOf(left));
  });

  it('conserves the mass: close to the sum in float64', () => {
    const vectors = Array.from({ length: 8 }, (_, m) => spreadFloats(200, m).map((x) => Math.abs(x)));
    const [sum] =
      runWorld({ worldSize: 3, microbatches: 8, length: 200, bucketFloats: 64 }, [vectors], () => 0)[0] ?? [];
    for (let i = 0; i < 200; i++) {
      const exact = vectors.reduce((a, v) => a + (v[i] ?? 0), 0);
      expect(Math.abs((sum?.[i] ?? 0) - exact)).toBeLessThanOrEqual(exact * 2 ** -21);
    }
  });
});

describe('a frame out of place', () => {
  const plan = planCollective({ worldSize: 2, microbatches: 2, length: 4 });
  const frame = (change: Partial<Frame> = {}): Frame => ({
    kind: 'scatter',
    generation: 3,
    step: 0,
    rank: 1,
    bucket: 0,
    node: { start: 1, size: 1 },
    offset: 0,
    count: 2,
    payload: new Uint8Array(8),
    ...change,
  });
  const begun = (): AllReduce => {
    const core = new AllReduce(plan, 0, 3);
    core.begin(0, [{ node: { start: 0, size: 1 }, vector: new Float32Array(4) }], new Float32Array(4));
    return core;
  };

  it('of an older generation is dropped', () => {
    expect(begun().receive(1, frame({ generation: 2 }))).toEqual([]);
  });

  it.each([
    ['a later generation', { generation: 4 }, 'rank 1 sent generation 4, present 3'],
    ['a step after the next', { step: 2 }, 'rank 1 sent step 2 while this rank is at 0'],
    ['another rank', { rank: 0 }, 'rank 1 sent rank 0 in its frame'],
    ['a bucket that is not there', { bucket: 7 }, 'rank 1 sent bucket 7'],
    ["a node that is not the sender's", { node: { start: 0, size: 1 } }, 'rank 1 sent node 0+1, which is not its own'],
    ['another slice', { offset: 2 }, 'rank 1 sent floats 2+2 of a slice 0+2'],
    ['another length', { count: 1, payload: new Uint8Array(4) }, 'rank 1 sent floats 0+1 of a slice 0+2'],
    ["the receiver's slice as a gather", { kind: 'gather' as const }, 'rank 1 sent floats 0+2 of its slice 2+2'],
  ])('of %s is refused by name', (_what, change, message) => {
    expect(() => begun().receive(1, frame(change))).toThrow(message);
  });

  it('that comes twice is refused, before and after the sum', () => {
    const core = begun();
    core.receive(1, frame());
    expect(() => core.receive(1, frame())).toThrow('rank 1 sent node 1 twice');
    const gather = frame({ kind: 'gather', offset: 2, node: { start: 0, size: 0 } });
    core.receive(1, gather);
    expect(core.done).toBe(true);
    expect(() => core.receive(1, gather)).toThrow('rank 1 sent its slice twice');
  });

  it('of the next step is kept for it, up to as many as a step has', () => {
    const core = begun();
    for (let i = 0; i < 4; i++) core.receive(1, frame({ step: 1 }));
    expect(() => core.receive(1, frame({ step: 1 }))).toThrow('rank 1 sent more frames than a step has');
  });
});
