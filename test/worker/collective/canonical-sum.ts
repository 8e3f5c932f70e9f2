// The oracle of the collective: the canonical tree written out as plain recursion, one element at a time, float32 by
// Math.fround. Shares no code with what it checks.

export function canonicalSum(vectors: readonly (Float32Array | null)[]): Float32Array | null {
  if (vectors.length === 1) return vectors[0] ?? null;
  const half = vectors.length / 2;
  const left = canonicalSum(vectors.slice(0, half));
  const right = canonicalSum(vectors.slice(half));
  if (left === null || right === null) return left ?? right;
  return Float32Array.from(left, (x, i) => Math.fround(x + (right[i] ?? 0)));
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
