// The oracle of the collective: the canonical tree written out as plain recursion, one element at a time, float32 by
// Math.fround. Shares no code with what it checks.

import { largestOf, nearest, type Half } from './half-numbers.ts';

export function canonicalSum(vectors: readonly (Float32Array | null)[]): Float32Array | null {
  if (vectors.length === 1) return vectors[0] ?? null;
  const half = vectors.length / 2;
  const left = canonicalSum(vectors.slice(0, half));
  const right = canonicalSum(vectors.slice(half));
  if (left === null || right === null) return left ?? right;
  return Float32Array.from(left, (x, i) => Math.fround(x + (right[i] ?? 0)));
}

/** The tree where gradients are compressed: each microbatch rounded with what was left of it before, each sum of two rounded. */
export function compressedSum(
  half: Half,
  vectors: readonly (Float32Array | null)[],
  residuals: readonly Float32Array[],
): Float32Array | null {
  const limit = largestOf(half) / vectors.length;
  const sent = vectors.map((vector, m) =>
    vector === null
      ? null
      : vector.map((x, i) => {
          const residual = residuals[m] ?? new Float32Array(0);
          const whole = Math.fround(x + (residual[i] ?? 0));
          const near = nearest(half, Number.isFinite(whole) ? Math.min(limit, Math.max(-limit, whole)) : whole);
          residual[i] = whole - near;
          return near;
        }),
  );
  const sum = (nodes: readonly (Float32Array | null)[]): Float32Array | null => {
    if (nodes.length === 1) return nodes[0] ?? null;
    const [left, right] = [sum(nodes.slice(0, nodes.length / 2)), sum(nodes.slice(nodes.length / 2))];
    if (left === null || right === null) return left ?? right;
    return left.map((x, i) => nearest(half, Math.fround(x + (right[i] ?? 0))));
  };
  return sum(sent);
}

/** The bits of floats, so that -0 and 0 differ. */
export function bitsOf(floats: Float32Array): number[] {
  return [...new Uint32Array(floats.slice().buffer)];
}

/** Deterministic floats of very different sizes, so that the order of addition shows (a linear congruential generator). */
export function spreadFloats(length: number, seed: number): Float32Array {
  let state = (seed * 2654435761 + 12345) >>> 0;
  const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0);
  return Float32Array.from({ length }, () => (next() / 2 ** 31 - 1) * 10 ** ((next() % 9) - 4));
}
