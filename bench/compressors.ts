// Compressors that Lockstep does not have, simulated in one process to see what they would be worth: PowerSGD (Vogels, Karimireddy and
// Jaggi 2019) and top-k with error feedback (Stich, Cordonnier and Jaggi 2018). Both are written so that the result does not depend
// on the number of workers: what is compressed is a microbatch's gradient, and what is added up is added over microbatches.

import type { WeightLayout } from '../worker/engine/engine.ts';

export interface Compressor {
  /** Turns the gradients of a step's microbatches into what everybody would hold of their sum. */
  sum(gradients: readonly Float32Array[], into: Float32Array): void;
  /** Bytes that one of `workers` ranks would send a step, of `microbatches` in all. */
  bytesSent(workers: number, microbatches: number): number;
  /** Exchanges that wait for one another. */
  readonly rounds: number;
}

/** Bytes that a rank sends to sum `floats` over all ranks: its part to the owners, and its own slice's sum to the others. */
const summed = (floats: number, workers: number): number => (2 * 4 * floats * (workers - 1)) / workers;

/** A layer's weights as a matrix: the last dimension is its columns. */
interface Matrix {
  readonly offset: number;
  readonly rows: number;
  readonly columns: number;
  /** [columns, rank], kept from step to step. */
  readonly q: Float64Array;
}

/** Low rank: each matrix is sent as two thin ones, found by one step of power iteration that goes on from the last step's. */
export function powerSgd(layout: WeightLayout, rank: number): Compressor {
  const residual = new Float32Array(layout.trainableSize);
  const matrices: Matrix[] = [];
  let vectors = 0;
  let seed = 1;
  const noise = (): number => (seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 31 - 1;
  for (const { offset, length, shape, trainable } of layout.entries) {
    if (!trainable) continue;
    const columns = shape.at(-1) ?? 1;
    const rows = length / columns;
    // What would not get smaller is sent as it is.
    if (rank * (rows + columns) >= length) vectors += length;
    else matrices.push({ offset, rows, columns, q: Float64Array.from({ length: columns * rank }, noise) });
  }
  const floats = matrices.reduce((sum, { rows, columns }) => sum + rank * (rows + columns), vectors);
  return {
    rounds: 2,
    bytesSent: (workers) => summed(floats, workers),
    sum: (gradients, into) => {
      for (let i = 0; i < residual.length; i++) {
        // Sums are linear, so the microbatches' residuals are one here.
        into[i] = gradients.reduce((sum, g) => sum + (g[i] ?? 0), residual[i] ?? 0);
        residual[i] = 0;
      }
      for (const matrix of matrices) lowRank(matrix, rank, into, residual);
    },
  };
}

/** Puts the matrix of rank `rank` in the place of the one in `values`, and what is left of it into `residual`. */
function lowRank(
  { offset, rows, columns, q }: Matrix,
  rank: number,
  values: Float32Array,
  residual: Float32Array,
): void {
  const p = new Float64Array(rows * rank);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const value = values[offset + i * columns + j] ?? 0;
      for (let k = 0; k < rank; k++) p[i * rank + k] = (p[i * rank + k] ?? 0) + value * (q[j * rank + k] ?? 0);
    }
  }
  orthonormalize(p, rows, rank);
  q.fill(0);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const value = values[offset + i * columns + j] ?? 0;
      for (let k = 0; k < rank; k++) q[j * rank + k] = (q[j * rank + k] ?? 0) + value * (p[i * rank + k] ?? 0);
    }
  }
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      let near = 0;
      for (let k = 0; k < rank; k++) near += (p[i * rank + k] ?? 0) * (q[j * rank + k] ?? 0);
      const at = offset + i * columns + j;
      residual[at] = (values[at] ?? 0) - near;
      values[at] = near;
    }
  }
}

/** Gram and Schmidt's way, column by column. */
function orthonormalize(p: Float64Array, rows: number, rank: number): void {
  for (let k = 0; k < rank; k++) {
    for (let before = 0; before < k; before++) {
      let dot = 0;
      for (let i = 0; i < rows; i++) dot += (p[i * rank + k] ?? 0) * (p[i * rank + before] ?? 0);
      for (let i = 0; i < rows; i++) p[i * rank + k] = (p[i * rank + k] ?? 0) - dot * (p[i * rank + before] ?? 0);
    }
    let square = 0;
    for (let i = 0; i < rows; i++) square += (p[i * rank + k] ?? 0) ** 2;
    const length = Math.sqrt(square) + 1e-30;
    for (let i = 0; i < rows; i++) p[i * rank + k] = (p[i * rank + k] ?? 0) / length;
  }
}

/** Of each microbatch only the `share` largest numbers are sent, with their places; the rest comes later. */
export function topK(layout: WeightLayout, share: number, microbatches: number): Compressor {
  const { trainableSize } = layout;
  const residuals = Array.from({ length: microbatches }, () => new Float32Array(trainableSize));
  const count = Math.ceil(share * trainableSize);
  return {
    rounds: 1,
    // A number and its place for each; everybody needs everybody's.
    bytesSent: (workers, all) => (8 * count * all * (workers - 1)) / workers,
    sum: (gradients, into) => {
      into.fill(0, 0, trainableSize);
      for (const [m, gradient] of gradients.entries()) {
        const residual = residuals[m] ?? new Float32Array(0);
        for (let i = 0; i < trainableSize; i++) residual[i] = (residual[i] ?? 0) + (gradient[i] ?? 0);
        const least = largest(residual, count);
        for (let i = 0; i < trainableSize; i++) {
          const value = residual[i] ?? 0;
          if (Math.abs(value) < least) continue;
          into[i] = (into[i] ?? 0) + value;
          residual[i] = 0;
        }
      }
    },
  };
}

const BINS = 2 ** 16;

/** The size of the `count`-th largest number by size: a float's size goes as its bits, which are counted by their halves. */
function largest(values: Float32Array, count: number): number {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const find = (binOf: (size: number) => number, wanted: number): { bin: number; left: number } => {
    const counts = new Uint32Array(BINS);
    for (const word of words) {
      const bin = binOf(word & 0x7fffffff);
      if (bin >= 0) counts[bin] = (counts[bin] ?? 0) + 1;
    }
    let left = wanted;
    let bin = BINS - 1;
    while (bin > 0 && (counts[bin] ?? 0) < left) left -= counts[bin--] ?? 0;
    return { bin, left };
  };
  const high = find((size) => size >>> 16, count);
  const low = find((size) => (size >>> 16 === high.bin ? size & 0xffff : -1), high.left);
  return new Float32Array(Uint32Array.of(high.bin * BINS + low.bin).buffer)[0] ?? 0;
}
