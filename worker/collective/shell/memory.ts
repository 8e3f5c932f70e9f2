// The memory that a rank's vectors live in: WebAssembly's, so that sums are made in place by SIMD. With a communication thread it is
// shared by that thread and the one that computes gradients, so that neither copies vectors to the other; else it is one thread's own.
//
// Addresses are float indices from 0. What lies where is all-reduce.ts's business.

import { readFileSync } from 'node:fs';
import { LockstepError } from '../../../protocol/errors.ts';
import type { Link } from '../../../protocol/link.ts';
import { shareVectors } from '../links/shared-vectors.ts';
import type { HalfArithmetic, VectorMemory } from '../vector-memory.ts';

/** Of assembly.ts, where addresses are in bytes and counts in numbers. */
type Kernel = (into: number, from: number, count: number) => void;
type Quantize = (values: number, residuals: number, count: number, limit: number) => void;

interface Kernels {
  readonly add: Kernel;
  readonly addBf16: Kernel;
  readonly addFp16: Kernel;
  readonly packBf16: Kernel;
  readonly packFp16: Kernel;
  readonly unpackBf16: Kernel;
  readonly unpackFp16: Kernel;
  readonly quantizeBf16: Quantize;
  readonly quantizeFp16: Quantize;
}

/** Not in the library of types that Node's own types bring along. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: object };
  readonly Memory: new (size: { initial: number; maximum: number; shared: boolean }) => Pages;
};

/** A WebAssembly.Memory. */
export interface Pages {
  readonly buffer: ArrayBuffer | SharedArrayBuffer;
}

const PAGE_BYTES = 65_536;
/** What WebAssembly can address, less one page for what comes from outside. */
const MAX_BYTES = 65_535 * PAGE_BYTES;
/**
 * Before the vectors: pages in which foreign bytes are laid for a kernel, a block at a time; small enough for the second cache, and large
 * enough that what JavaScript takes for a block, some microseconds, does not count.
 */
const SCRATCH_BYTES = 4 * PAGE_BYTES;
const BLOCK_BYTES = PAGE_BYTES;
/** Where in those pages a block of 16-bit numbers is laid out as float32: twice as many bytes. */
const UNPACKED = BLOCK_BYTES;
const HALF_BYTES = 2;
/** In those pages, after both: where a peer that reads the vectors finds the word that they are the right ones. */
const WORD_AT = 3 * BLOCK_BYTES;
/** Shared memory is copied a word at a time where both sides lie alike in their words, else a byte at a time. */
const WORD_BYTES = 8;

/**
 * Reserves zeroed memory for `floats` floats; untouched pages cost nothing. `shared`: it can be posted to another thread. Throws
 * E_NOT_SUPPORTED above 4 GiB.
 */
export function reservePages(floats: number, shared: boolean): Pages {
  const bytes = floats * Float32Array.BYTES_PER_ELEMENT;
  if (bytes > MAX_BYTES) {
    throw new LockstepError(
      'E_NOT_SUPPORTED',
      `the all-reduce of this model needs ${(bytes / 2 ** 30).toFixed(1)} GiB a worker; it can use up to 4`,
      { remedy: 'Train a smaller model, or lower --microbatches.' },
    );
  }
  const pages = Math.ceil((SCRATCH_BYTES + bytes) / PAGE_BYTES);
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared });
}

/** The floats of `pages` from address `at`; for the thread that only writes and reads vectors. */
export function floatsOf(pages: Pages, at: number, count: number): Float32Array {
  return new Float32Array(pages.buffer, SCRATCH_BYTES + at * Float32Array.BYTES_PER_ELEMENT, count);
}

/**
 * Lets the peers whose links can do so read the vectors of `pages`, which nobody has written to yet, where they lie. Returns what ends
 * it; where the system can't, frames carry all payloads.
 */
export function shareWithPeers(pages: Pages, links: Iterable<Link>): () => void {
  const able = [...links].filter((link) => link.share !== undefined);
  if (able.length === 0) return () => {};
  try {
    const vectors = shareVectors(new Uint8Array(pages.buffer), WORD_AT);
    for (const link of able) link.share?.(vectors);
    return () => vectors.close();
  } catch (error) {
    if (!(error instanceof LockstepError && error.code === 'E_NOT_SUPPORTED')) throw error;
    process.emitWarning(
      `peers can't read this worker's vectors where they lie, they go through a ring: ${error.message}`,
    );
    return () => {};
  }
}

/** Vector memory on `pages`, which another thread may share. */
export function vectorMemory(pages: Pages): VectorMemory {
  const isShared = pages.buffer instanceof SharedArrayBuffer;
  const file = new URL(`../kernels/${isShared ? 'sums-shared' : 'sums'}.wasm`, import.meta.url);
  const module = new WebAssembly.Module(readFileSync(file));
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- assembly.ts is its source
  const kernels = new WebAssembly.Instance(module, { env: { memory: pages } }).exports as Kernels;
  const all = new Uint8Array(pages.buffer);
  const byteOf = (at: number): number => SCRATCH_BYTES + at * Float32Array.BYTES_PER_ELEMENT;
  const stage = new Uint8Array(BLOCK_BYTES + WORD_BYTES);
  /** Copies at most a block of foreign bytes to byte `into`. */
  const put = (into: number, block: Uint8Array): void => {
    const place = into % WORD_BYTES;
    if (!isShared || block.byteOffset % WORD_BYTES === place) {
      all.set(block, into);
      return;
    }
    stage.set(block, place);
    all.set(stage.subarray(place, place + block.byteLength), into);
  };
  const half = (add: Kernel, pack: Kernel, unpack: Kernel, quantize: Quantize): HalfArithmetic => {
    /** Lays a block out in the scratch page at a time, with the byte address that it is for and how many numbers it has. */
    const inBlocks = (into: number, bytes: Uint8Array, take: (target: number, count: number) => void): void => {
      for (let start = 0; start < bytes.byteLength; start += BLOCK_BYTES) {
        const block = bytes.subarray(start, start + BLOCK_BYTES);
        put(0, block);
        take(byteOf(into + start / HALF_BYTES), block.byteLength / HALF_BYTES);
      }
    };
    return {
      add: (into, from, count) => add(byteOf(into), byteOf(from), count),
      store: (into, bytes) => inBlocks(into, bytes, (target, count) => unpack(target, 0, count)),
      addBytes: (into, bytes) =>
        inBlocks(into, bytes, (target, count) => {
          unpack(UNPACKED, 0, count);
          add(target, UNPACKED, count);
        }),
      quantize: (at, residual, count, limit) => quantize(byteOf(at), byteOf(residual), count, limit),
      pack: (at, into, count) => {
        pack(byteOf(into), byteOf(at), count);
        return new Uint8Array(pages.buffer, byteOf(into), count * HALF_BYTES);
      },
    };
  };
  return {
    half: (elements) =>
      elements === 'bf16'
        ? half(kernels.addBf16, kernels.packBf16, kernels.unpackBf16, kernels.quantizeBf16)
        : half(kernels.addFp16, kernels.packFp16, kernels.unpackFp16, kernels.quantizeFp16),
    bytes: (at, count) => new Uint8Array(pages.buffer, byteOf(at), count * Float32Array.BYTES_PER_ELEMENT),
    floats: (at, count) => floatsOf(pages, at, count),
    add: (into, from, count) => kernels.add(byteOf(into), byteOf(from), count),
    copy: (into, from, count) => {
      all.copyWithin(byteOf(into), byteOf(from), byteOf(from + count));
    },
    store: (into, bytes) => {
      if (bytes.buffer === all.buffer) {
        if (bytes.byteOffset !== byteOf(into)) {
          all.copyWithin(byteOf(into), bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
        }
        return;
      }
      if (!isShared) {
        all.set(bytes, byteOf(into));
        return;
      }
      for (let start = 0; start < bytes.byteLength; start += BLOCK_BYTES) {
        put(byteOf(into) + start, bytes.subarray(start, start + BLOCK_BYTES));
      }
    },
    addBytes: (into, bytes) => {
      if (bytes.buffer === all.buffer) {
        kernels.add(byteOf(into), bytes.byteOffset, bytes.byteLength / Float32Array.BYTES_PER_ELEMENT);
        return;
      }
      for (let start = 0; start < bytes.byteLength; start += BLOCK_BYTES) {
        const block = bytes.subarray(start, start + BLOCK_BYTES);
        put(0, block);
        kernels.add(byteOf(into) + start, 0, block.byteLength / Float32Array.BYTES_PER_ELEMENT);
      }
    },
  };
}
