// The WebAssembly sums against plain loops: the same bits for every length and alignment, and nothing beside them touched.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { floatsOf, reservePages, vectorMemory } from '../../../worker/collective/shell/memory.ts';
import type { VectorMemory } from '../../../worker/collective/vector-memory.ts';
import { bitsOf, spreadFloats } from './canonical-sum.ts';
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
