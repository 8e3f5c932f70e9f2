// The canonical sum: one balanced binary tree over the M microbatches of a step, ((0+1)+(2+3))+..., whoever adds which part.
// Floating-point addition does not associate, so it is the tree's shape, not the ranks', that fixes the bits.
//
// A node is an aligned run of microbatches: size a power of two, start a multiple of it. A microbatch without samples (a
// short batch) is absent: the sum of a node and an absent one is that node, bit for bit. It is not taken as zeros, because
// -0 + 0 is +0 and a zero vector would have to be sent.
//
// Core. Cost: M - 1 additions of whole vectors a step over all ranks, whatever their number.

import type { Range } from '../../protocol/batch-plan.ts';

export interface Node {
  readonly start: number;
  readonly size: number;
}

/** The largest aligned nodes that make up `range`, in order: at most 2 log2(M) of them. */
export function nodesOf(range: Range): Node[] {
  const nodes: Node[] = [];
  let start = range.start;
  while (start < range.end) {
    let size = start === 0 ? nextPowerOfTwo(range.end) : start & -start;
    while (start + size > range.end) size /= 2;
    nodes.push({ start, size });
    start += size;
  }
  return nodes;
}

function nextPowerOfTwo(n: number): number {
  let power = 1;
  while (power < n) power *= 2;
  return power;
}

/** into[i] += from[i] over [start, end), each sum rounded to float32. The caller owns both. */
export function addInto(into: Float32Array, from: Float32Array, start: number, end: number): void {
  for (let i = start; i < end; i++) into[i] = into[i]! + from[i]!;
}

/**
 * Adds microbatch vectors as they come, in ascending order, keeping one vector for each node that is complete: a binary
 * counter. Vectors are copied into buffers of its own, which are used again after `clear`.
 */
export class Fold {
  private readonly length: number;
  private readonly pool: Float32Array[] = [];
  private stack: { node: Node; vector: Float32Array | null }[] = [];

  constructor(length: number) {
    this.length = length;
  }

  /** `vector` has `length` floats; null for a microbatch without samples. */
  push(index: number, vector: Float32Array | null): void {
    let node: Node = { start: index, size: 1 };
    let sum: Float32Array | null = null;
    if (vector !== null) {
      sum = this.pool.pop() ?? new Float32Array(this.length);
      sum.set(vector);
    }
    for (;;) {
      const left = this.stack.at(-1);
      const isSibling =
        left !== undefined &&
        left.node.size === node.size &&
        left.node.start % (2 * node.size) === 0 &&
        left.node.start + node.size === node.start;
      if (!isSibling) break;
      this.stack.pop();
      node = { start: left.node.start, size: 2 * node.size };
      if (left.vector !== null && sum !== null) {
        addInto(left.vector, sum, 0, this.length);
        this.pool.push(sum);
        sum = left.vector;
      } else sum = left.vector ?? sum;
    }
    this.stack.push({ node, vector: sum });
  }

  /** The nodes complete so far and their sums; null for a node without samples. */
  partials(): readonly { readonly node: Node; readonly vector: Float32Array | null }[] {
    return this.stack;
  }

  clear(): void {
    for (const { vector } of this.stack) if (vector !== null) this.pool.push(vector);
    this.stack = [];
  }
}
