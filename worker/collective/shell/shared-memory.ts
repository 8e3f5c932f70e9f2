// The memory that a rank's vectors live in: one stretch of floats, shared by the thread that computes gradients and the one that
// sums and sends them, so that neither copies them to the other. It is WebAssembly's, so that sums are made in place by SIMD.
//
// Addresses are float indices from 0. What lies where is all-reduce.ts's business.

import { readFileSync } from 'node:fs';
import { LockstepError } from '../../../protocol/errors.ts';
import type { VectorMemory } from '../vector-memory.ts';

interface Kernels {
  add(into: number, from: number, count: number): void;
}

/** Not in the library of types that Node's own types bring along. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: object };
  readonly Memory: new (size: { initial: number; maximum: number; shared: true }) => SharedPages;
};

/** A WebAssembly.Memory; it can be posted to another thread. */
export interface SharedPages {
  readonly buffer: SharedArrayBuffer;
}

const PAGE_BYTES = 65_536;
/** What WebAssembly can address, less one page for what comes from outside. */
const MAX_BYTES = 65_535 * PAGE_BYTES;
/** Before the vectors: a page in which foreign bytes are laid for a kernel, a block at a time, small enough for the first cache. */
const SCRATCH_BYTES = PAGE_BYTES;
const BLOCK_BYTES = 16 * 1024;

let module: object | undefined;

/** Reserves zeroed memory for `floats` floats; untouched pages cost nothing. Throws E_NOT_SUPPORTED above 4 GiB. */
export function sharedPages(floats: number): SharedPages {
  const bytes = floats * Float32Array.BYTES_PER_ELEMENT;
  if (bytes > MAX_BYTES) {
    throw new LockstepError(
      'E_NOT_SUPPORTED',
      `the all-reduce of this model needs ${(bytes / 2 ** 30).toFixed(1)} GiB a worker; it can use up to 4`,
      { remedy: 'Train a smaller model, or lower --microbatches.' },
    );
  }
  const pages = Math.ceil((SCRATCH_BYTES + bytes) / PAGE_BYTES);
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
}

/** The floats of `pages` from address `at`; for the thread that only writes and reads vectors. */
export function floatsOf(pages: SharedPages, at: number, count: number): Float32Array<SharedArrayBuffer> {
  return new Float32Array(pages.buffer, SCRATCH_BYTES + at * Float32Array.BYTES_PER_ELEMENT, count);
}

/** Vector memory on `pages`, which another thread may share. */
export function vectorMemory(pages: SharedPages): VectorMemory {
  module ??= new WebAssembly.Module(readFileSync(new URL('../kernels/sums.wasm', import.meta.url)));
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- assembly.ts is its source
  const kernels = new WebAssembly.Instance(module, { env: { memory: pages } }).exports as Kernels;
  const all = new Uint8Array(pages.buffer);
  const byteOf = (at: number): number => SCRATCH_BYTES + at * Float32Array.BYTES_PER_ELEMENT;
  return {
    bytes: (at, count) => new Uint8Array(pages.buffer, byteOf(at), count * Float32Array.BYTES_PER_ELEMENT),
    floats: (at, count) => floatsOf(pages, at, count),
    add: (into, from, count) => kernels.add(byteOf(into), byteOf(from), count),
    copy: (into, from, count) => {
      all.copyWithin(byteOf(into), byteOf(from), byteOf(from + count));
    },
    store: (into, bytes) => all.set(bytes, byteOf(into)),
    addBytes: (into, bytes) => {
      for (let start = 0; start < bytes.byteLength; start += BLOCK_BYTES) {
        const block = bytes.subarray(start, start + BLOCK_BYTES);
        all.set(block);
        kernels.add(byteOf(into) + start, 0, block.byteLength / Float32Array.BYTES_PER_ELEMENT);
      }
    },
  };
}
