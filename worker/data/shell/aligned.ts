// Memory for samples that TensorFlow uses in place: what does not begin at a multiple of 64 bytes it copies first, and V8's
// large arrays never do (their memory begins 16 bytes after a page does).

import { createRequire } from 'node:module';

/** Of Eigen's, and so of TensorFlow's. */
const ALIGNMENT_BYTES = 64;
/** Floats in it: what memory must have to spare. */
export const ALIGNMENT_FLOATS = ALIGNMENT_BYTES / Float32Array.BYTES_PER_ELEMENT;

/** Zeros, aligned where this platform tells addresses; elsewhere they are copied, as any others. */
export function alignedFloats(length: number): Float32Array {
  const { buffer } = new Float32Array(length + ALIGNMENT_FLOATS);
  return new Float32Array(buffer, bytesToSkip(buffer), length);
}

/** How far into `memory` the first multiple of 64 bytes is; 0 where this platform does not tell. */
export function bytesToSkip(memory: ArrayBufferLike): number {
  try {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the one function that is used
    const koffi = createRequire(import.meta.url)('koffi') as { address(values: Uint8Array): bigint };
    return Number(-koffi.address(new Uint8Array(memory)) & BigInt(ALIGNMENT_BYTES - 1));
  } catch {
    return 0; // koffi has no library for this platform
  }
}
