// The memory that a rank's vectors live in, as the all-reduce sees it: one stretch of floats, by address.

import type { ElementType } from '../../protocol/frame.ts';

/** What is done to vectors whose numbers travel in one form. Addresses and counts are in floats: in memory each number takes one. */
export interface Arithmetic {
  /** memory[into + i] += memory[from + i], each sum rounded to what can travel. */
  add(into: number, from: number, count: number): void;
  /** Takes numbers as they travel, little-endian, aligned or not; of this memory or from elsewhere. Nothing to do where they lie there. */
  store(into: number, bytes: Uint8Array): void;
  /** As `add`, of numbers that come as they travel. */
  addBytes(into: number, bytes: Uint8Array): void;
}

/** Numbers that travel in 16 bits. In memory they are float32, all of them of values that 16 bits hold. */
export interface HalfArithmetic extends Arithmetic {
  /**
   * Rounds to nearest, ties to even, with error feedback: v = memory[at + i] + memory[residual + i] leaves what is nearest to v and
   * within +-limit at `at`, and the rest of v at `residual`. Infinity and NaN stay what they are.
   */
  quantize(at: number, residual: number, count: number, limit: number): void;
  /** Writes `count` numbers as they travel to address `into`, which may be `at`; returns a view of their bytes. */
  pack(at: number, into: number, count: number): Uint8Array;
}

/** What the all-reduce does to vectors; its own arithmetic is float32's. */
export interface VectorMemory extends Arithmetic {
  /** A view of the bytes of `count` floats at `at`. */
  bytes(at: number, count: number): Uint8Array;
  floats(at: number, count: number): Float32Array;
  copy(into: number, from: number, count: number): void;
  half(elements: Exclude<ElementType, 'float32'>): HalfArithmetic;
}
