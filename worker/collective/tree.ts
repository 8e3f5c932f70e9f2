// The canonical sum: one balanced binary tree over the M microbatches of a step, ((0+1)+(2+3))+..., whoever adds which part.
// Floating-point addition does not associate, so it is the tree's shape, not the ranks', that fixes the bits. (It commutes, so
// which of two children is added into the other does not matter.)
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

/** A node's number: 1 is the root, 2 n and 2 n + 1 are the children of n, M + m is microbatch m. NaN for no aligned node. */
export function nodeNumber(node: Node, microbatches: number): number {
  const number = microbatches / node.size + node.start / node.size;
  return Number.isInteger(number) && node.start + node.size <= microbatches ? number : Number.NaN;
}

/** The node of a number. */
export function nodeOfNumber(number: number, microbatches: number): Node {
  const size = microbatches / 2 ** Math.floor(Math.log2(number));
  return { start: number * size - microbatches, size };
}
