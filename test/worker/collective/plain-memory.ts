// Vector memory as plain loops over a plain array: what the WebAssembly one is held against, and what the core's tests run on.

import type { VectorMemory } from '../../../worker/collective/vector-memory.ts';

export function plainMemory(floats: number): VectorMemory {
  const all = new Float32Array(floats);
  const asFloats = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.slice().buffer);
  return {
    bytes: (at, count) => new Uint8Array(all.buffer, 4 * at, 4 * count),
    floats: (at, count) => all.subarray(at, at + count),
    add: (into, from, count) => {
      for (let i = 0; i < count; i++) all[into + i] = Math.fround((all[into + i] ?? 0) + (all[from + i] ?? 0));
    },
    copy: (into, from, count) => {
      for (let i = 0; i < count; i++) all[into + i] = all[from + i] ?? 0;
    },
    store: (into, bytes) => all.set(asFloats(bytes), into),
    addBytes: (into, bytes) => {
      for (const [i, x] of asFloats(bytes).entries()) all[into + i] = Math.fround((all[into + i] ?? 0) + x);
    },
  };
}
