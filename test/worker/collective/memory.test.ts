// The WebAssembly sums against plain loops: the same bits for every length and alignment, and nothing beside them touched.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { floatsOf, reservePages, vectorMemory } from '../../../worker/collective/shell/memory.ts';
import type { VectorMemory } from '../../../worker/collective/vector-memory.ts';
import { bitsOf, spreadFloats } from './canonical-sum.ts';
import { nearest, valueOf, type Half } from './half-numbers.ts';
import { plainMemory } from './plain-memory.ts';

it('the compiled modules are up to date with its source', () => {
  const read = (name: string): Buffer =>
    readFileSync(new URL(`../../../worker/collective/kernels/${name}`, import.meta.url));
  const hash = createHash('sha256').update(read('assembly.ts')).digest('hex');
  for (const file of ['sums.wasm', 'sums-shared.wasm']) {
    expect(read(file).subarray(-32).toString('hex')).toBe(hash);
  }
});

it.each([
  ['of one thread', false],
  ['that is shared', true],
])('memory %s adds, copies and stores as plain loops do, to the bit', (_what, shared) => {
  const floats = 30_000;
  const work = (
    memory: VectorMemory,
    into: number,
    from: number,
    count: number,
    seed: number,
    cut: number,
  ): number[] => {
    memory.floats(0, floats).set(spreadFloats(floats, seed));
    memory.floats(into, 2).set([-0, Number.MIN_VALUE]);
    memory.add(into, from, count);
    const foreign = new Uint8Array(4 * count + cut);
    foreign.set(new Uint8Array(spreadFloats(count, seed + 1).buffer), cut);
    memory.addBytes(into, foreign.subarray(cut));
    memory.copy(from, into, Math.min(count, 7));
    memory.store(into + count + 1, foreign.subarray(cut, cut + 4 * Math.min(3, count)));
    // What was read to this memory: added from there, or stored, even where it lies already.
    memory.addBytes(into, memory.bytes(from, Math.min(count, 999)));
    memory.store(from + 3, memory.bytes(into, Math.min(count, 5)));
    memory.store(from, memory.bytes(from, Math.min(count, 5)));
    return bitsOf(memory.floats(0, floats));
  };
  const memory = vectorMemory(reservePages(floats, shared));
  fc.assert(
    fc.property(
      fc.nat({ max: 50 }),
      fc.nat({ max: 9000 }),
      fc.nat({ max: 1000 }),
      fc.nat({ max: 3 }),
      (into, count, seed, cut) => {
        const at: [number, number, number, number, number] = [into, 15_000 + into, count, seed, cut];
        expect(work(memory, ...at)).toEqual(work(plainMemory(floats), ...at));
      },
    ),
    { numRuns: 60 },
  );
});

/** Float32 where formats of 16 bits have their edges: every such number, what lies between two neighbours and just beside it. */
function edges(half: Half): Float32Array {
  const numbers: number[] = [];
  for (let bits = 0; bits < 0x8000; bits++) {
    const [low, high] = [valueOf(half, bits), valueOf(half, bits + 1)];
    const tie = new Float32Array([low / 2 + high / 2]);
    numbers.push(low, tie[0] ?? 0);
    for (const beside of [-1, 1]) {
      const words = new Uint32Array(tie.slice().buffer);
      numbers.push(new Float32Array(Uint32Array.of((words[0] ?? 0) + beside).buffer)[0] ?? 0);
    }
  }
  const more = [Number.MIN_VALUE, 2 ** -149, 2 ** -25, 2 ** -24, 65_504, 65_519, 65_520, 65_536, 1e30, 3.4028234e38];
  return Float32Array.from([...numbers, ...more, Infinity, Number.NaN].flatMap((x) => [x, -x]));
}

describe.each([
  ['bf16', false],
  ['bf16', true],
  ['fp16', false],
  ['fp16', true],
] as const)('numbers in %s, memory shared: %s', (half, shared) => {
  const numbers = edges(half);
  const count = numbers.length;
  const places = { a: 3, b: count + 5, c: 2 * count + 10 };
  const both = [plainMemory(3 * count + 20), vectorMemory(reservePages(3 * count + 20, shared))];
  /** Where the two memories first differ after the same work; null: nowhere. */
  const difference = (work: (memory: VectorMemory) => number[]): string | null => {
    const [expected, found] = both.map(work) as [number[], number[]];
    const at = expected.findIndex((x, i) => x !== found[i]);
    if (at < 0 && found.length === expected.length) return null;
    return `${at} of ${expected.length}: ${found[at]} for ${expected[at]}`;
  };

  it('are rounded to the nearest, ties to even, and what is left is exact, at every edge', () => {
    // A residual that shifts every number off its place, and one of none.
    for (const shift of [0, 2 ** -20]) {
      expect(
        difference((memory) => {
          memory.floats(places.a, count).set(numbers);
          memory.floats(places.b, count).fill(shift);
          memory.half(half).quantize(places.a, places.b, count, half === 'fp16' ? 16_376 : 2 ** 120);
          return [...bitsOf(memory.floats(places.a, count)), ...bitsOf(memory.floats(places.b, count))];
        }),
      ).toBeNull();
    }
  });

  it('are added and rounded', () => {
    expect(
      difference((memory) => {
        memory.floats(places.a, count).set(numbers.map((x) => nearest(half, x)));
        memory.floats(places.b, count).set(numbers.toReversed().map((x) => nearest(half, x)));
        memory.half(half).add(places.a, places.b, count);
        return bitsOf(memory.floats(places.a, count));
      }),
    ).toBeNull();
  });

  it('travel as the bits of their format and come back, stored or added, however a run of them is cut and placed', () => {
    const sent = numbers.map((x) => nearest(half, x));
    expect(
      difference((memory) => {
        const arithmetic = memory.half(half);
        memory.floats(places.a, count).set(sent);
        // In its own place, as the collective packs what it sends.
        const bytes = arithmetic.pack(places.a, places.a, count).slice();
        const foreign = new Uint8Array(bytes.length + 1);
        foreign.set(bytes, 1);
        arithmetic.store(places.b, foreign.subarray(1));
        memory.floats(places.c, count).set(sent.toReversed());
        for (let at = 0; at < count; at += 9001) {
          arithmetic.addBytes(places.c + at, bytes.subarray(2 * at, 2 * Math.min(count, at + 9001)));
        }
        return [...bytes, ...bitsOf(memory.floats(places.b, count)), ...bitsOf(memory.floats(places.c, count))];
      }),
    ).toBeNull();
    const back = both[1]?.floats(places.b, count) ?? sent;
    expect(bitsOf(back)).toEqual(bitsOf(Float32Array.from(sent)));
  });

  it('of any length, and nothing beside them, are touched', () => {
    for (let length = 0; length < 40; length++) {
      expect(
        difference((memory) => {
          const [a, b] = [places.a + length, places.b + (length % 5)];
          memory.floats(0, 200).set(spreadFloats(200, length));
          memory.floats(places.b - 2, 200).set(spreadFloats(200, length + 50));
          const arithmetic = memory.half(half);
          arithmetic.quantize(a, b, length, 1000);
          arithmetic.quantize(b, a + 100, length, 1000);
          arithmetic.add(a, b, length);
          const bytes = arithmetic.pack(a, b + 50, length);
          arithmetic.store(a + 50, bytes.slice());
          arithmetic.addBytes(a, bytes.slice());
          return [...bitsOf(memory.floats(0, 200)), ...bitsOf(memory.floats(places.b - 2, 200)), bytes.length];
        }),
      ).toBeNull();
    }
  });
});

it('is the same memory on every thread that has its pages', () => {
  const pages = reservePages(100, true);
  const memory = vectorMemory(pages);
  floatsOf(pages, 10, 2).set([1.5, 2.5]);
  floatsOf(pages, 20, 2).set([1, 2]);
  memory.add(10, 20, 2);
  expect([...floatsOf(pages, 10, 2)]).toEqual([2.5, 4.5]);
});

it('a vector too large for it is refused with what to do', () => {
  expect(() => reservePages(2 ** 30, false)).toThrow(
    expect.objectContaining({
      code: 'E_NOT_SUPPORTED',
      message: expect.stringContaining('4.0 GiB') as string,
    }) as Error,
  );
});
