// The memory that a rank's vectors live in, as the all-reduce sees it: one stretch of floats, by address.

/** What the all-reduce does to vectors. Addresses and counts are in floats. */
export interface VectorMemory {
  /** A view of the bytes of `count` floats at `at`. */
  bytes(at: number, count: number): Uint8Array;
  floats(at: number, count: number): Float32Array;
  /** memory[into + i] += memory[from + i], each sum rounded to float32. */
  add(into: number, from: number, count: number): void;
  copy(into: number, from: number, count: number): void;
  /** Takes float32 bytes, little-endian, aligned or not. */
  store(into: number, bytes: Uint8Array): void;
  /** As `add`, of floats that come as bytes. */
  addBytes(into: number, bytes: Uint8Array): void;
}
