// Vector kernels in WebAssembly SIMD (assembly.ts), called with plain Float32Arrays: a block at a time is copied into the
// module's memory, worked on, and copied back. A block of all operands stays in the processor's second-level cache, so the
// copies cost a tenth of the work.
//
// The results' bits depend on the arguments alone. Every Node that Lockstep runs on has WebAssembly SIMD.

import { readFileSync } from 'node:fs';

interface Exports {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
  adam(
    weights: number,
    gradient: number,
    m: number,
    v: number,
    n: number,
    size: number,
    rest1: number,
    rest2: number,
    epsilon: number,
  ): void;
  divide(values: number, n: number, divisor: number): number;
  planesToPixels(from: number, to: number, pixels: number): void;
  flipAndRotate(
    from: number,
    to: number,
    height: number,
    width: number,
    channels: number,
    flipped: boolean,
    cos: number,
    sin: number,
  ): void;
}

/** Not in the library of types that Node's own types bring along. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: object };
};

const PAGE_BYTES = 65_536;
/** Floats in a block: 32 KiB an operand. */
const BLOCK = 8192;
const FIRST = 1024;

let instance: Exports | undefined;

/** The module, compiled at its first use: 2 ms. */
function kernels(): Exports {
  instance ??= new WebAssembly.Instance(new WebAssembly.Module(readFileSync(new URL('kernels.wasm', import.meta.url))))
    .exports as Exports;
  return instance;
}

interface Workspace {
  /** Where each operand begins in the module's memory, and a view of it. */
  readonly offsets: readonly number[];
  readonly views: readonly Float32Array[];
}

/** `count` operands of `floats` floats each, one after the other in the module's memory, which grows where it must. */
function workspace(count: number, floats: number, marginBytes = 0): () => Workspace {
  const stride = (floats * Float32Array.BYTES_PER_ELEMENT + marginBytes + 15) & ~15;
  const offsets = Array.from({ length: count }, (_, i) => FIRST + i * stride);
  let made: Workspace = { offsets, views: [] };
  return () => {
    const { memory } = kernels();
    const missing = FIRST + count * stride - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES));
    // Growing takes the old buffer away from its views.
    const { buffer } = memory;
    if (made.views[0]?.buffer !== buffer) {
      made = { offsets, views: offsets.map((offset) => new Float32Array(buffer, offset, floats)) };
    }
    return made;
  };
}

const blocks = workspace(4, BLOCK);
let images: { readonly floats: number; readonly channels: number; readonly workspace: () => Workspace } | undefined;

/**
 * One step of Adam (Kingma and Ba 2015) on vectors of one length, all but the gradient changed in place.
 * @param size the learning rate with both bias corrections in it
 */
export function adamStep(
  { weights, gradient, m, v }: Readonly<Record<'weights' | 'gradient' | 'm' | 'v', Float32Array>>,
  { size, rest1, rest2, epsilon }: Readonly<Record<'size' | 'rest1' | 'rest2' | 'epsilon', number>>,
): void {
  const vectors = [weights, gradient, m, v];
  const { offsets, views } = blocks();
  const [atWeights = 0, atGradient = 0, atM = 0, atV = 0] = offsets;
  for (let start = 0; start < weights.length; start += BLOCK) {
    const end = Math.min(start + BLOCK, weights.length);
    vectors.forEach((vector, i) => views[i]?.set(vector.subarray(start, end)));
    kernels().adam(atWeights, atGradient, atM, atV, end - start, size, rest1, rest2, epsilon);
    vectors.forEach((vector, i) => {
      const view = views[i];
      if (vector !== gradient && view !== undefined) vector.set(view.subarray(0, end - start), start);
    });
  }
}

/** Divides `values` by `divisor`, in place or into `quotients`; returns the sum of the quotients' squares, taken in float64. */
export function divideAndSquare(values: Float32Array, divisor: number, quotients = values): number {
  const {
    offsets: [offset = 0],
    views: [view = new Float32Array(0)],
  } = blocks();
  let squares = 0;
  for (let start = 0; start < values.length; start += BLOCK) {
    const end = Math.min(start + BLOCK, values.length);
    view.set(values.subarray(start, end));
    squares += kernels().divide(offset, end - start, divisor);
    quotients.set(view.subarray(0, end - start), start);
  }
  return squares;
}

/**
 * Makes a reader of images of three planes of `pixels` bytes each (a multiple of 4): `fill` writes the planes, whatever comes
 * before them included; the result is float32 [pixels, 3], bytes / 255.
 * @param skip bytes before the planes
 */
export function planeReader(
  pixels: number,
  skip: number,
): (fill: (bytes: Uint8Array) => void, into: Float32Array) => Uint8Array {
  const length = skip + 3 * pixels;
  const space = workspace(2, 3 * pixels);
  return (fill, into) => {
    const {
      offsets: [target = 0, source = 0],
      views: [floats],
    } = space();
    const bytes = new Uint8Array(kernels().memory.buffer, source, length);
    fill(bytes);
    kernels().planesToPixels(source + skip, target, pixels);
    if (floats !== undefined) into.set(floats);
    return bytes;
  };
}

/** See `flipAndRotate` of assembly.ts; `from` and `to` are float32 [height, width, channels]. */
export function flipAndRotateImage(
  from: Float32Array,
  to: Float32Array,
  [height = 0, width = 0, channels = 0]: readonly number[],
  flipped: boolean,
  cos: number,
  sin: number,
): void {
  if (images?.floats !== from.length || images.channels !== channels) {
    const marginBytes = 4 * channels * Float32Array.BYTES_PER_ELEMENT + 16;
    images = { floats: from.length, channels, workspace: workspace(2, from.length, marginBytes) };
  }
  const {
    offsets: [source = 0, target = 0],
    views: [before, after],
  } = images.workspace();
  before?.set(from);
  kernels().flipAndRotate(source, target, height, width, channels, flipped, cos, sin);
  if (after !== undefined) to.set(after);
}
