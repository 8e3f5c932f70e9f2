// Who adds what: the vector is cut into buckets (contiguous runs, in the order in which the engine delivers them), a bucket
// into one slice a rank. Every rank sends, for each node that it has folded, each slice to whoever collects it; the slice's owner
// finishes the tree and the sum goes back the same way. Within one host, that is two hops and the bytes of a ring:
// 2 (W-1)/W of the vector each way, when each rank's range is one node.
//
// Between hosts there is a second level. For a slice owned elsewhere each host has one relay: its neighbours send to the relay,
// which folds what lies wholly in the host's range of microbatches and sends that on; and it hands the sum round at home. So a
// host's ranks send each other's parts over the network once, not once each.
//
// Cuts and ways depend on the ranks and their hosts; bits do not, because the tree is added element by element.
//
// Where gradients are compressed the vector's first part, the gradient, travels in 16 bits and the rest (moving statistics, loss,
// the wish to stop) in float32, each part in buckets of its own.

import { pieceOf, type Range } from '../../protocol/batch-plan.ts';
import { ELEMENT_BYTES, type ElementType } from '../../protocol/frame.ts';
import { evenShares, type Shares } from '../../protocol/shares.ts';
import { nodesOf, type Node } from './tree.ts';

/** What a frame, a rank's slice of a bucket, is to carry: enough that its own cost does not count, and no more than gains something. */
const FRAME_FLOATS = { min: 128 * 1024, max: 512 * 1024 };
/** A vector that frames of such sizes allow to is cut into so many: all but the last can travel while the engine goes on. */
const BUCKETS = 4;

/**
 * Floats of a bucket where nobody says how many: a quarter of the vector, but 512 KiB a rank at least and 2 MiB a rank at most. So they
 * grow with the ranks, which share each one out. The tutorial's CNN is one bucket.
 */
export function usualBucketFloats(length: number, worldSize: number): number {
  const { min, max } = FRAME_FLOATS;
  return Math.min(max * worldSize, Math.max(min * worldSize, Math.ceil(length / BUCKETS)));
}

/** The vector's first `floats` floats travel as `elements`. */
export interface Compression {
  readonly elements: Exclude<ElementType, 'float32'>;
  readonly floats: number;
}

export interface CollectivePlan {
  readonly worldSize: number;
  readonly microbatches: number;
  readonly length: number;
  readonly buckets: readonly Range[];
  /** How each bucket's numbers travel. */
  readonly elements: readonly ElementType[];
  readonly compression: Compression | null;
  /** slices[bucket][rank], in floats of the whole vector. */
  readonly slices: readonly (readonly Range[])[];
  /** Microbatches that each rank folds. */
  readonly shares: Shares;
  /** Nodes that they make up, which it sends. */
  readonly nodes: readonly (readonly Node[])[];
  /** Ranks of each host; one group of all where two levels would gain nothing. */
  readonly groups: readonly (readonly number[])[];
  /** The group of each rank. */
  readonly groupOf: readonly number[];
}

export interface PlanOptions {
  readonly worldSize: number;
  /** M: a power of two, not below the world size. */
  readonly microbatches: number;
  /** Floats of the vector. */
  readonly length: number;
  /** Floats of a bucket; where it is compressed, as many as take the same bytes on the wire. None: `usualBucketFloats`. */
  readonly bucketFloats?: number;
  readonly compression?: Compression | null;
  /** Microbatches of each rank; without it evenly, by rank. */
  readonly shares?: Shares | undefined;
  /** The host of each rank, by any name; without it all are on one. */
  readonly hosts?: readonly string[];
}

export function planCollective(options: PlanOptions): CollectivePlan {
  const { worldSize, microbatches, length } = options;
  const bucketFloats = options.bucketFloats ?? usualBucketFloats(length, worldSize);
  const compression = options.compression ?? null;
  const cut = (part: Range, elements: ElementType): { bucket: Range; elements: ElementType }[] => {
    const floats = (bucketFloats * ELEMENT_BYTES.float32) / ELEMENT_BYTES[elements];
    const count = Math.max(1, Math.ceil((part.end - part.start) / floats));
    return Array.from({ length: count }, (_, i) => ({ bucket: pieceOf(part, count, i), elements }));
  };
  const compressed = compression?.floats ?? 0;
  const parts = [
    ...(compression === null || compressed === 0 ? [] : cut({ start: 0, end: compressed }, compression.elements)),
    ...(compression !== null && compressed === length ? [] : cut({ start: compressed, end: length }, 'float32')),
  ];
  const buckets = parts.map((part) => part.bucket);
  const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
  const shares = options.shares ?? evenShares(microbatches, worldSize);
  const groups = groupsOf(options.hosts ?? ranks.map(() => ''));
  const groupOf = ranks.map((rank) => groups.findIndex((group) => group.includes(rank)));
  return {
    worldSize,
    microbatches,
    length,
    buckets,
    elements: parts.map((part) => part.elements),
    compression,
    slices: buckets.map((bucket) => ranks.map((rank) => pieceOf(bucket, worldSize, rank))),
    shares,
    nodes: shares.map(nodesOf),
    groups,
    groupOf,
  };
}

/** Ranks by host, if each host's ranks follow one another (an even cut makes its microbatches one run then) and some host has several. */
function groupsOf(hosts: readonly string[]): number[][] {
  const all = hosts.map((_, rank) => rank);
  const groups: number[][] = [];
  for (const rank of all) {
    const last = groups.at(-1);
    if (last !== undefined && hosts[last[0] ?? 0] === hosts[rank]) last.push(rank);
    else groups.push([rank]);
  }
  const scattered = new Set(hosts).size < groups.length;
  return scattered || groups.length === hosts.length ? [all] : groups;
}

/** The rank to which `rank` sends its part of `owner`'s slices, and that sends it their sum: the owner, or the host's relay. */
export function collectorOf(plan: CollectivePlan, rank: number, owner: number): number {
  const group = plan.groupOf[rank] ?? 0;
  const home = plan.groupOf[owner] ?? 0;
  return group === home ? owner : relayOf(plan, group, owner);
}

/** The rank of `group` that stands for it towards `owner`, a rank of another group: each has its share of the owners. */
export function relayOf(plan: CollectivePlan, group: number, owner: number): number {
  const members = plan.groups[group] ?? [];
  const place = plan.groups[plan.groupOf[owner] ?? 0]?.indexOf(owner) ?? 0;
  return members[place % members.length] ?? 0;
}

/** The nodes into which a group's microbatches fold. */
export function groupNodes(plan: CollectivePlan, group: number): Node[] {
  const all = (plan.groups[group] ?? []).flatMap((rank) => plan.shares[rank] ?? []);
  return nodesOf(all.toSorted((a, b) => a - b));
}

/** Buckets in the order in which the backward pass finishes them: a vector's end first. */
export function backward(buckets: readonly Range[]): { offset: number; length: number }[] {
  return buckets.map(({ start, end }) => ({ offset: start, length: end - start })).toReversed();
}
