// The WebAssembly kernels against the same formulas written out in plain JavaScript, bit for bit where they are float32
// operations in a given order.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { adamStep, divideAndSquare, flipAndRotateImage, planeReader } from '../../jobs/kernels/kernels.ts';
import { noise } from '../oracles/formula.ts';

const f = Math.fround;

test('kernels.wasm was compiled from assembly.ts as it is now (`npm run kernels`)', () => {
  const source = readFileSync(new URL('../../jobs/kernels/assembly.ts', import.meta.url));
  const compiled = readFileSync(new URL('../../jobs/kernels/kernels.wasm', import.meta.url));
  expect(compiled.subarray(-32).toString('hex')).toBe(createHash('sha256').update(source).digest('hex'));
});

const LENGTHS = [1, 3, 4, 5, 8191, 8192, 8193, 20_003];

for (const length of LENGTHS) {
  test(`adam on ${length} floats: float32, an operation at a time`, () => {
    const vector = (stream: number, scale: number): Float32Array =>
      Float32Array.from(noise(stream, length), (u) => (2 * u - 1) * scale);
    const [weights, gradient, m] = [vector(1, 1), vector(2, 0.01), vector(3, 0.01)];
    const v = vector(4, 1e-4).map(Math.abs);
    const [size, rest1, rest2, epsilon] = [f(0.002), f(0.1), f(0.001), f(1e-7)];
    const expected = { weights: weights.slice(), m: m.slice(), v: v.slice() };
    for (let i = 0; i < length; i++) {
      const [g, mOld, vOld] = [gradient[i] ?? 0, m[i] ?? 0, v[i] ?? 0];
      const mNew = f(mOld + f(f(g - mOld) * rest1));
      const vNew = f(vOld + f(f(f(g * g) - vOld) * rest2));
      const step = f(f(mNew * size) / f(f(Math.sqrt(vNew)) + epsilon));
      [expected.weights[i], expected.m[i], expected.v[i]] = [f((weights[i] ?? 0) - step), mNew, vNew];
    }
    const before = gradient.slice();
    adamStep({ weights, gradient, m, v }, { size: 0.002, rest1: 0.1, rest2: 0.001, epsilon: 1e-7 });
    expect(gradient).toEqual(before);
    expect({ weights, m, v }).toEqual(expected);
  });

  test(`dividing ${length} floats: each quotient rounded once, and the sum of their squares`, () => {
    const values = Float32Array.from(noise(5, length), (u) => 2 * u - 1);
    const expected = values.map((value) => value / 48);
    const squares = expected.reduce((sum, value) => sum + value * value, 0);
    const found = divideAndSquare(values, 48);
    expect(values).toEqual(expected);
    expect(Math.abs(found - squares) / squares).toBeLessThan(1e-12);
  });
}

test('a moment fades to zero, never to a subnormal number, which would make every later step slow', () => {
  const SMALLEST = 2 ** -126;
  for (const length of [3, 4, 21]) {
    const rates = { size: 0.002, rest1: 0.1, rest2: 0.001, epsilon: 1e-7 };
    for (const sign of [1, -1]) {
      // The next step's exact value: 0.9 of it, then 0.999 of it.
      const m = new Float32Array(length).fill(sign * SMALLEST * 1.1);
      const v = new Float32Array(length).fill(SMALLEST);
      const [weights, gradient] = [new Float32Array(length), new Float32Array(length)];
      adamStep({ weights, gradient, m, v }, rates);
      expect({ m, v }).toEqual({ m: new Float32Array(length), v: new Float32Array(length) });
    }
    const m = new Float32Array(length).fill(SMALLEST * 1.2);
    const v = new Float32Array(length).fill(SMALLEST * 1.2);
    const [weights, gradient] = [new Float32Array(length), new Float32Array(length)];
    adamStep({ weights, gradient, m, v }, rates);
    expect(m.every((value) => value >= SMALLEST)).toBe(true);
    expect(v.every((value) => value >= SMALLEST)).toBe(true);
  }
});

test('what is not finite stays so in the sum of squares', () => {
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    for (const place of [0, 5, 6]) {
      const values = new Float32Array(7).fill(1);
      values[place] = bad;
      expect(Number.isFinite(divideAndSquare(values, 2))).toBe(false);
    }
  }
});

test('planes of bytes become pixels of float32 in [0, 1]', () => {
  for (const pixels of [4, 12, 1024]) {
    const record = Uint8Array.from(noise(7, 1 + 3 * pixels), (u) => Math.floor(256 * u));
    const into = new Float32Array(3 * pixels).fill(Number.NaN);
    const bytes = planeReader(pixels, 1)((to) => to.set(record), into);
    expect(bytes[0]).toBe(record[0]);
    const expected = Float32Array.from({ length: 3 * pixels }, (_, i) => {
      const [pixel, channel] = [Math.floor(i / 3), i % 3];
      return (record[1 + channel * pixels + pixel] ?? 0) / 255;
    });
    expect(into).toEqual(expected);
  }
});

/** Bilinear, mirrored half a pixel outside the edges, in float64. */
function turned(image: Float32Array, [h, w, c]: [number, number, number], flipped: boolean, angle: number): number[] {
  const mirror = (x: number, size: number): number => {
    const folded = ((x % (2 * size)) + 2 * size) % (2 * size);
    return Math.min(Math.max(folded >= size ? 2 * size - 1 - folded : folded, 0), size - 1);
  };
  const pixel = (y: number, x: number, k: number): number => image[(y * w + (flipped ? w - 1 - x : x)) * c + k] ?? 0;
  const out: number[] = [];
  const [cy, cx] = [(h - 1) / 2, (w - 1) / 2];
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const inX = mirror(cx + (x - cx) * Math.cos(angle) - (y - cy) * Math.sin(angle), w);
      const inY = mirror(cy + (x - cx) * Math.sin(angle) + (y - cy) * Math.cos(angle), h);
      const [x0, y0] = [Math.floor(inX), Math.floor(inY)];
      const [x1, y1] = [Math.min(x0 + 1, w - 1), Math.min(y0 + 1, h - 1)];
      const [dx, dy] = [inX - x0, inY - y0];
      for (let k = 0; k < c; k++) {
        out.push(
          (1 - dy) * ((1 - dx) * pixel(y0, x0, k) + dx * pixel(y0, x1, k)) +
            dy * ((1 - dx) * pixel(y1, x0, k) + dx * pixel(y1, x1, k)),
        );
      }
    }
  }
  return out;
}

test('images of any size and number of channels are flipped and rotated as the formula says', () => {
  const cases = fc.tuple(
    fc.integer({ min: 1, max: 9 }),
    fc.integer({ min: 1, max: 11 }),
    fc.integer({ min: 1, max: 9 }),
    fc.boolean(),
    fc.double({ min: -3.1, max: 3.1, noNaN: true }),
  );
  fc.assert(
    fc.property(cases, ([h, w, c, flipped, angle]) => {
      const image = Float32Array.from(noise(6, h * w * c));
      const to = new Float32Array(image.length).fill(Number.NaN);
      flipAndRotateImage(image, to, [h, w, c], flipped, Math.cos(angle), Math.sin(angle));
      const expected = turned(image, [h, w, c], flipped, angle);
      // Coordinates are float32: up to 2e-6 of a pixel at these sizes, times a slope of at most 1 a pixel in two directions.
      return to.every((value, i) => Math.abs(value - (expected[i] ?? Number.NaN)) < 2e-5);
    }),
    { numRuns: 300 },
  );
});

test('an image larger than the memory that the module begins with', () => {
  const shape: [number, number, number] = [300, 400, 3];
  const image = Float32Array.from(noise(6, 360_000));
  const to = new Float32Array(image.length);
  flipAndRotateImage(image, to, shape, true, 1, 0);
  const expected = turned(image, shape, true, 0);
  expect(to.every((value, i) => Math.abs(value - (expected[i] ?? Number.NaN)) < 1e-6)).toBe(true);
});
