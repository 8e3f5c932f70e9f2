// The canonical sum: one balanced binary tree over the M microbatches of a step, ((0+1)+(2+3))+..., whoever adds which part.
// Floating-point addition does not associate, so it is the tree's shape, not the ranks', that fixes the bits. (It commutes, so
// which of two children is added into the other does not matter.)
//
// A node is an aligned run of microbatches: size a power of two, start a multiple of it. A microbatch without samples (a
// short batch) is absent: the sum of a node and an absent one is that node, bit for bit. It is not taken as zeros, because
// -0 + 0 is +0 and a zero vector would have to be sent.
//
// Core. Cost: M - 1 additions of whole vectors a step over all ranks, whatever their number.

export interface Node {
  readonly start: number;
  readonly size: number;
}

/** The largest aligned nodes that make up `share` (microbatches, ascending), in order: of a run of them at most 2 log2(M). */
export function nodesOf(share: readonly number[]): Node[] {
  const nodes: Node[] = [];
  for (const m of share) {
    let node: Node = { start: m, size: 1 };
    // The right one of two siblings, the left one of which is here, too: they are one node.
    for (let left = nodes.at(-1); left !== undefined && isLeftOf(left, node); left = nodes.at(-1)) {
      nodes.pop();
      node = { start: left.start, size: 2 * left.size };
    }
    nodes.push(node);
  }
  return nodes;
}

function isLeftOf(left: Node, node: Node): boolean {
  return left.size === node.size && left.start % (2 * left.size) === 0 && left.start + left.size === node.start;
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
