// Vector memory as plain loops over a plain array: what the WebAssembly one is held against, and what the core's tests run on.

import type { HalfArithmetic, VectorMemory } from '../../../worker/collective/vector-memory.ts';
import { bitsOfHalf, nearest, valueOf, type Half } from './half-numbers.ts';

export function plainMemory(floats: number): VectorMemory {
  const all = new Float32Array(floats);
  const asFloats = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.slice().buffer);
  return {
    half: (half) => plainHalf(all, half),
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

function plainHalf(all: Float32Array, half: Half): HalfArithmetic {
  const decode = (bytes: Uint8Array): number[] =>
    Array.from({ length: bytes.length / 2 }, (_, i) =>
      valueOf(half, (bytes[2 * i] ?? 0) + 256 * (bytes[2 * i + 1] ?? 0)),
    );
  const addTo = (at: number, x: number): void => {
    all[at] = nearest(half, Math.fround((all[at] ?? 0) + x));
  };
  return {
    add: (into, from, count) => {
      for (let i = 0; i < count; i++) addTo(into + i, all[from + i] ?? 0);
    },
    store: (into, bytes) => all.set(decode(bytes), into),
    addBytes: (into, bytes) => {
      for (const [i, x] of decode(bytes).entries()) addTo(into + i, x);
    },
    quantize: (at, residual, count, limit) => {
      for (let i = 0; i < count; i++) {
        const whole = Math.fround((all[at + i] ?? 0) + (all[residual + i] ?? 0));
        const within = Number.isFinite(whole) ? Math.max(-limit, Math.min(limit, whole)) : whole;
        all[at + i] = nearest(half, within);
        all[residual + i] = whole - (all[at + i] ?? 0);
      }
    },
    pack: (at, into, count) => {
      const bytes = new Uint8Array(all.buffer, 4 * into, 2 * count);
      for (let i = 0; i < count; i++) {
        const bits = bitsOfHalf(half, all[at + i] ?? 0);
        bytes[2 * i] = bits & 255;
        bytes[2 * i + 1] = bits >> 8;
      }
      return bytes;
    },
  };
}
