import fc from 'fast-check';
import { expect, test } from 'vitest';
import { philox, RandomUse, randomStream } from '../../protocol/random.ts';

// The known answers of Random123 (D. E. Shaw Research), file kat_vectors, lines `philox4x32 10`: counter, key, result.
const KNOWN_ANSWERS: [counter: string, key: string, result: string][] = [
  ['00000000 00000000 00000000 00000000', '00000000 00000000', '6627e8d5 e169c58d bc57ac4c 9b00dbd8'],
  ['ffffffff ffffffff ffffffff ffffffff', 'ffffffff ffffffff', '408f276d 41c83b0e a20bc7c6 6d5451fd'],
  ['243f6a88 85a308d3 13198a2e 03707344', 'a4093822 299f31d0', 'd16cfe09 94fdcceb 5001e420 24126ea1'],
];

const words = (text: string): number[] => text.split(' ').map((word) => Number.parseInt(word, 16));

for (const [counter, key, result] of KNOWN_ANSWERS) {
  test(`philox gives Random123's known answer for key ${key}`, () => {
    const [k0 = 0, k1 = 0] = words(key);
    const [c0 = 0, c1 = 0, c2 = 0, c3 = 0] = words(counter);
    const out = new Uint32Array(4);
    philox(out, k0, k1, c0, c1, c2, c3);
    expect([...out]).toEqual(words(result));
  });
}

const seed = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const draw = (stream: { uint32(): number }, count: number): number[] =>
  Array.from({ length: count }, () => stream.uint32());

test('a stream gives the same numbers however many other streams were drawn from', () => {
  fc.assert(
    fc.property(seed, fc.nat(), fc.nat(), (key, a, b) => {
      const first = draw(randomStream(key, RandomUse.augment, a, b), 9);
      const stream = randomStream(key, RandomUse.augment, a, b);
      const mixed = first.map(() => {
        randomStream(key, RandomUse.layers, a, b).uint32();
        return stream.uint32();
      });
      expect(mixed).toEqual(first);
    }),
  );
});

test('any part of the key changes the numbers: seed beyond 32 bits, use, a, b', () => {
  fc.assert(
    fc.property(seed, fc.nat(), fc.nat(), (key, a, b) => {
      const keys: string[] = [
        draw(randomStream(key, RandomUse.augment, a, b), 4),
        draw(randomStream((key + 1) % Number.MAX_SAFE_INTEGER, RandomUse.augment, a, b), 4),
        draw(randomStream((key + 2 ** 32) % Number.MAX_SAFE_INTEGER, RandomUse.augment, a, b), 4),
        draw(randomStream(key, RandomUse.layers, a, b), 4),
        draw(randomStream(key, RandomUse.augment, a + 1, b), 4),
        draw(randomStream(key, RandomUse.augment, a, b + 1), 4),
      ].map((numbers) => numbers.join());
      expect(new Set(keys).size).toBe(keys.length);
    }),
  );
});

test('uniform lies in [0, 1) and below(bound) in 0 .. bound - 1', () => {
  fc.assert(
    fc.property(seed, fc.integer({ min: 1, max: 2 ** 32 }), (key, bound) => {
      const stream = randomStream(key, RandomUse.probe);
      for (let i = 0; i < 20; i++) {
        const u = stream.uniform();
        expect(u >= 0 && u < 1).toBe(true);
        const k = stream.below(bound);
        expect(Number.isInteger(k) && k >= 0 && k < bound).toBe(true);
      }
    }),
  );
});

test('below draws every residue equally often (chi-square at 99.99 %)', () => {
  const bound = 10;
  const draws = 100_000;
  const stream = randomStream(1, RandomUse.shuffle);
  const counts = new Float64Array(bound);
  for (let i = 0; i < draws; i++) {
    const k = stream.below(bound);
    counts[k] = (counts[k] ?? 0) + 1;
  }
  const chiSquare = counts.reduce((sum, count) => sum + (count - draws / bound) ** 2 / (draws / bound), 0);
  // Quantile 0.9999 of chi-square with 9 degrees of freedom.
  expect(chiSquare).toBeLessThan(33.72);
});

test('below favours no residue even where the bound does not divide 2^32', () => {
  // Bound 3 x 2^30: taken modulo the bound, words above it would fall into the lowest third again, which then had half.
  const third = 2 ** 30;
  const draws = 10_000;
  const stream = randomStream(2, RandomUse.shuffle);
  let lowest = 0;
  for (let i = 0; i < draws; i++) if (stream.below(3 * third) < third) lowest++;
  // Five standard deviations of a count with probability 1/3.
  expect(Math.abs(lowest - draws / 3)).toBeLessThan(5 * Math.sqrt((draws * 2) / 9));
});
