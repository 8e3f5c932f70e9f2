// The all-reduce core of several ranks, with every byte in the hands of a seeded scheduler: any order between links is tried.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { FrameHeader } from '../../../protocol/frame.ts';
import { AllReduce, planMemory } from '../../../worker/collective/all-reduce.ts';
import { planCollective } from '../../../worker/collective/plan.ts';
import { bitsOf, canonicalSum, compressedSum, spreadFloats } from './canonical-sum.ts';
import { plainMemory } from './plain-memory.ts';
import { inTurns, runWorld } from './world.ts';

describe('AllReduce', () => {
  it('gives every rank the canonical sum, bit for bit, for every world size, bucket size, grouping by host, order of arrival, and whoever has which microbatches', () => {
    fc.assert(
      fc.property(
        fc.record({
          power: fc.integer({ min: 0, max: 4 }),
          world: fc.integer({ min: 1, max: 16 }),
          length: fc.integer({ min: 1, max: 50 }),
          bucketFloats: fc.integer({ min: 1, max: 60 }),
          hostSize: fc.integer({ min: 1, max: 5 }),
          isEven: fc.boolean(),
          seed: fc.nat({ max: 1_000_000 }),
        }),
        fc.infiniteStream(fc.nat({ max: 1_000_000 })),
        fc.infiniteStream(fc.integer({ min: 0, max: 5 })),
        ({ power, world, length, bucketFloats, hostSize, isEven, seed }, order, absence) => {
          const microbatches = 2 ** power;
          const worldSize = Math.min(world, microbatches);
          const steps = [0, 1, 2].map((step) =>
            Array.from({ length: microbatches }, (_, m) =>
              absence.next().value === 0 ? null : spreadFloats(length, seed + 100 * step + m),
            ),
          );
          const hosts = Array.from({ length: worldSize }, (_, rank) => `host ${Math.floor(rank / hostSize)}`);
          // One each at least, the others as it comes: neighbours or not.
          const turn = Number(order.next().value);
          const owners = Array.from({ length: microbatches }, (_, m) =>
            m < worldSize ? m : Number(order.next().value) % worldSize,
          );
          const shares = Array.from({ length: worldSize }, (_, rank) =>
            owners.flatMap((__, m) => (owners[(m + turn) % microbatches] === rank ? [m] : [])),
          );
          const { sums } = runWorld(
            { worldSize, microbatches, length, bucketFloats, hosts, ...(!isEven && { shares }) },
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
      { numRuns: 600 },
    );
  });

  it("works on the caller's own arrays, one for vector and sum, to the same bits, and is done with them when the sum is there", () => {
    fc.assert(
      fc.property(
        fc.record({
          power: fc.integer({ min: 0, max: 3 }),
          world: fc.integer({ min: 1, max: 8 }),
          length: fc.integer({ min: 1, max: 50 }),
          bucketFloats: fc.integer({ min: 1, max: 60 }),
          seed: fc.nat({ max: 1_000_000 }),
        }),
        fc.infiniteStream(fc.nat({ max: 1_000_000 })),
        fc.infiniteStream(fc.integer({ min: 0, max: 5 })),
        ({ power, world, length, bucketFloats, seed }, order, absence) => {
          const microbatches = 2 ** power;
          // Of three ranks with four microbatches, two can.
          const worldSize = Math.min(world, microbatches);
          const steps = [0, 1, 2].map((step) =>
            Array.from({ length: microbatches }, (_, m) =>
              absence.next().value === 0 ? null : spreadFloats(length, seed + 100 * step + m),
            ),
          );
          const { sums } = runWorld(
            { worldSize, microbatches, length, bucketFloats, outside: true },
            steps,
            (n) => order.next().value % n,
          );
          for (const [step, vectors] of steps.entries()) {
            const expected = bitsOf(canonicalSum(vectors) ?? new Float32Array(length));
            for (const sum of sums[step] ?? []) expect(bitsOf(sum)).toEqual(expected);
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('differs from a left fold in the order of the ranks, which is why the tree is there', () => {
    const vectors = Array.from({ length: 4 }, (_, m) => spreadFloats(1000, m));
    const world = { worldSize: 2, microbatches: 4, length: 1000, bucketFloats: 1000 };
    const [sum] = runWorld(world, [vectors], inTurns()).sums[0] ?? [];
    const left = vectors.reduce((a, b) => Float32Array.from(a, (x, i) => Math.fround(x + (b[i] ?? 0))));
    expect(bitsOf(sum as Float32Array)).not.toEqual(bitsOf(left));
  });

  it('conserves the mass: close to the sum in float64', () => {
    const vectors = Array.from({ length: 8 }, (_, m) => spreadFloats(200, m).map((x) => Math.abs(x)));
    const world = { worldSize: 3, microbatches: 8, length: 200, bucketFloats: 64 };
    const [sum] = runWorld(world, [vectors], inTurns()).sums[0] ?? [];
    for (let i = 0; i < 200; i++) {
      const exact = vectors.reduce((a, v) => a + (v[i] ?? 0), 0);
      expect(Math.abs((sum?.[i] ?? 0) - exact)).toBeLessThanOrEqual(exact * 2 ** -21);
    }
  });

  it("sends each host's part over the network once: of 2 hosts with 4 ranks a quarter of what a mesh sends", () => {
    const vectors = Array.from({ length: 8 }, (_, m) => spreadFloats(800, m));
    const world = { worldSize: 8, microbatches: 8, length: 800, bucketFloats: 800 };
    const between = (hosts: string): number =>
      runWorld({ ...world, hosts: hosts.split('') }, [vectors], inTurns()).bytesBetweenHosts;
    // Each host sends its sum of the other's half, and the sum of its own half: 2 x 400 floats each way.
    expect(between('aaaabbbb')).toBe(2 * 2 * 400 * 4);
    // Scattered over the hosts, no two levels: every rank sends its vector's slices and its sum to each of the 4 ranks elsewhere.
    expect(between('abababab')).toBe(8 * 2 * 4 * 100 * 4);
  });
});

describe.each(['bf16', 'fp16'] as const)('AllReduce of gradients in %s', (elements) => {
  it('gives every rank the same bits for every world size, bucket size, grouping by host and order of arrival, and leaves the same residuals', () => {
    fc.assert(
      fc.property(
        fc.record({
          power: fc.integer({ min: 0, max: 4 }),
          world: fc.integer({ min: 1, max: 16 }),
          gradient: fc.integer({ min: 1, max: 40 }),
          rest: fc.integer({ min: 0, max: 9 }),
          bucketFloats: fc.integer({ min: 1, max: 60 }),
          hostSize: fc.integer({ min: 1, max: 5 }),
          seed: fc.nat({ max: 1_000_000 }),
        }),
        fc.infiniteStream(fc.nat({ max: 1_000_000 })),
        fc.infiniteStream(fc.integer({ min: 0, max: 5 })),
        ({ power, world, gradient, rest, bucketFloats, hostSize, seed }, order, absence) => {
          const microbatches = 2 ** power;
          const worldSize = Math.min(world, microbatches);
          const length = gradient + rest;
          const steps = [0, 1, 2, 3].map((step) =>
            Array.from({ length: microbatches }, (_, m) =>
              absence.next().value === 0 ? null : spreadFloats(length, seed + 100 * step + m),
            ),
          );
          const hosts = Array.from({ length: worldSize }, (_, rank) => `host ${Math.floor(rank / hostSize)}`);
          const compression = { elements, floats: gradient };
          const { sums, residuals } = runWorld(
            { worldSize, microbatches, length, bucketFloats, hosts, compression },
            steps,
            (n) => order.next().value % n,
          );
          const left = Array.from({ length: microbatches }, () => new Float32Array(gradient));
          for (const [step, vectors] of steps.entries()) {
            const part = (from: number, to: number): (Float32Array | null)[] =>
              vectors.map((v) => v?.subarray(from, to) ?? null);
            const expected = [
              ...bitsOf(compressedSum(elements, part(0, gradient), left) ?? new Float32Array(gradient)),
              ...bitsOf(canonicalSum(part(gradient, length)) ?? new Float32Array(rest)),
            ];
            expect(sums[step]).toHaveLength(worldSize);
            for (const sum of sums[step] ?? []) expect(bitsOf(sum)).toEqual(expected);
          }
          expect(residuals.map(bitsOf)).toEqual(left.map(bitsOf));
        },
      ),
      { numRuns: 200 },
    );
  });

  it('sends half the bytes, and the rest of the vector in float32', () => {
    const vectors = Array.from({ length: 4 }, (_, m) => spreadFloats(1003, m));
    const world = { worldSize: 4, microbatches: 4, length: 1003, bucketFloats: 300 };
    const plain = runWorld(world, [vectors], inTurns()).bytes;
    const compressed = runWorld({ ...world, compression: { elements, floats: 1000 } }, [vectors], inTurns()).bytes;
    // Of each float 3 of 4 ranks send their part and get the sum.
    expect(plain).toBe(2 * 3 * 1003 * 4);
    expect(compressed).toBe(2 * 3 * (1000 * 2 + 3 * 4));
  });

  it('loses nothing but what sums round: what was sent and what is left make up what came, whatever its size', () => {
    // Half of the numbers are below the smallest of fp16, one is far beyond its largest.
    const vector = Float32Array.from({ length: 64 }, (_, i) => (i % 2 === 0 ? 1e-9 * (i + 1) : 0.1 * i));
    vector[7] = -300_000;
    const steps = Array.from({ length: 40 }, () => [vector]);
    const world = { worldSize: 1, microbatches: 1, length: 64, bucketFloats: 64 };
    const { sums, residuals } = runWorld({ ...world, compression: { elements, floats: 64 } }, steps, inTurns());
    for (const [i, x] of vector.entries()) {
      const came = sums.reduce((a, [sum]) => a + (sum?.[i] ?? 0), residuals[0]?.[i] ?? 0);
      expect(Math.abs(came - 40 * x)).toBeLessThanOrEqual(Math.abs(40 * x) * 2 ** -20);
    }
  });

  it('lets a gradient that is not finite through to every rank, and never makes one', () => {
    const huge = Array.from({ length: 4 }, (_, m) =>
      Float32Array.of(3e38, -3e38, m === 2 ? Infinity : 1, m === 1 ? Number.NaN : 1),
    );
    const world = { worldSize: 2, microbatches: 4, length: 4, bucketFloats: 4, compression: { elements, floats: 4 } };
    for (const sum of runWorld(world, [huge], inTurns()).sums[0] ?? []) {
      const most = elements === 'fp16' ? 65_504 : (2 - 2 ** -7) * 2 ** 127;
      expect([...sum]).toEqual([most, -most, Infinity, Number.NaN]);
    }
  });
});

describe('a frame out of place', () => {
  const plan = planCollective({ worldSize: 2, microbatches: 2, length: 4 });
  const header = (change: Partial<FrameHeader> = {}): FrameHeader => ({
    kind: 'scatter',
    elements: 'float32',
    generation: 3,
    step: 0,
    rank: 1,
    bucket: 0,
    slice: 0,
    node: { start: 1, size: 1 },
    offset: 0,
    count: 2,
    ...change,
  });
  const sumOfPeer = header({ kind: 'gather', slice: 1, offset: 2, node: { start: 0, size: 0 } });
  /** Rank 0 with its vector in; `take` takes a frame of rank 1 with zeros in it. */
  function begun(): { core: AllReduce; sent: FrameHeader[]; take(h: FrameHeader): void } {
    const places = planMemory(plan, 0);
    const memory = plainMemory(places.floats);
    const sent: FrameHeader[] = [];
    const send = (_to: number, h: FrameHeader): void => void sent.push(h);
    const core = new AllReduce({ plan, rank: 0, generation: 3, firstStep: 0, memory, places, send });
    core.begin();
    core.offer(0, 0, 0);
    const sink = core.sink(1);
    return {
      core,
      sent,
      take: (h) => {
        sink.begin(h);
        sink.data(new Uint8Array(4 * h.count));
        sink.end();
      },
    };
  }

  it('of an older generation is dropped', () => {
    const { take, sent, core } = begun();
    take(header({ generation: 2 }));
    expect(sent.map((h) => h.kind)).toEqual(['scatter']);
    expect(core.everyoneHeard).toBe(false);
    take(header());
    expect(sent.map((h) => h.kind)).toEqual(['scatter', 'gather']);
  });

  it.each([
    ['a later generation', { generation: 4 }, 'rank 1 sent generation 4, present 3'],
    ['a later step', { step: 1 }, 'rank 1 sent step 1 of a slice at step 0'],
    ['another rank', { rank: 0 }, 'rank 1 sent rank 0 in its frame'],
    ['other numbers than agreed', { elements: 'bf16' as const }, 'rank 1 sent bf16 where float32 was agreed'],
    ['a bucket that is not there', { bucket: 7 }, 'rank 1 sent bucket 7, slice 0'],
    ['a slice that is not collected here', { slice: 1 }, 'rank 1 sent bucket 0, slice 1'],
    ["a node that is not the sender's", { node: { start: 0, size: 1 } }, 'rank 1 sent node 0+1, which is not its own'],
    ['a node that is none', { node: { start: 1, size: 3 } }, 'rank 1 sent node 1+3, which is not its own'],
    ['another range', { offset: 2 }, 'rank 1 sent floats 2+2 of a slice 0+2'],
    ['another length', { count: 1 }, 'rank 1 sent floats 0+1 of a slice 0+2'],
    ["the receiver's slice as a sum", { kind: 'gather' as const }, 'rank 1 sent the sum of bucket 0, slice 0'],
    ['a sum before its time', { ...sumOfPeer, step: 1 }, 'rank 1 sent a sum of step 1 while this rank is at 0'],
  ])('of %s is refused by name', (_what, change, message) => {
    const { take } = begun();
    expect(() => take(header(change))).toThrow(message);
  });

  it('that comes twice is refused, before and after the sum', () => {
    const { core, take } = begun();
    take(header());
    // Its slice is summed, so this would be the next step's part.
    expect(() => take(header())).toThrow('rank 1 sent step 0 of a slice at step 1');
    take(sumOfPeer);
    expect(core.done).toBe(true);
    expect(() => take(sumOfPeer)).toThrow('rank 1 sent slice 1 twice');
  });

  it('of the next step is taken as soon as the slice is summed, once', () => {
    const { core, take } = begun();
    take(header());
    take(header({ step: 1 }));
    expect(() => take(header({ step: 1 }))).toThrow('rank 1 sent node 1 twice');
    take(sumOfPeer);
    core.end();
    core.begin();
    expect(core.everyoneHeard).toBe(true);
  });
});
