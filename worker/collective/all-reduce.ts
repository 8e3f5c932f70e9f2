// The all-reduce of one rank as a state machine: microbatch vectors in, bucket by bucket; frames out and in; the canonical sum
// out. No socket, no clock, no thread. It follows plan.ts, and sums each slice in the order of the tree as its parts come, so
// that the order in which they come does not matter. A part whose sibling in the tree is here already is added to it while it comes
// in; any other is stored until then.
//
// A frame of the next step may come early: a peer that has everything of this step goes on. Then this rank has finished its own
// slices of this step (the peer has their sums), so the part takes its place for the next step at once. A peer cannot be two steps
// ahead, because it needs this rank's part of each step. Frames of an older generation are dropped; one of a newer generation or
// anything else out of place is the sender's fault (E_PROTOCOL).
//
// Memory, in vectors of the plan's length: the microbatches being folded (a slot each, 2 + log2 of this rank's microbatches at
// most where they are neighbours, else one for each node and the depth of the last), one more because the sum takes the place of the step's first vector and a peer may still be reading the last step's,
// this rank's slices once for each node that others send, and a landing a peer, where what is to be added is read to. Compressed: a
// residual for each microbatch, and this rank's slices in 16 bits.
//
// Compression is part of the sum, not of the sending, so that the bits do not depend on who sends what. Each microbatch's gradient
// is rounded to 16 bits with error feedback (Seide et al. 2014): what rounding took away is the microbatch's residual and is added
// to its gradient of the next step. Each sum of two nodes is rounded again, by whoever makes it. So every node that some number
// of ranks would send is one that 16 bits hold, and sending loses nothing. A microbatch without samples keeps its residual.
//
// A microbatch may have a node's M-th part of the largest number at most, and its residual the rest. So no sum overflows: too large a
// gradient comes late, and none is lost but what a sum's own rounding takes. Infinity and NaN go through, and end the run at the optimizer.
//
// When what is sent may be overwritten: whoever sends a frame of step s + 1 has all sums of step s, so all parts of step s have
// arrived at their collectors; and whoever has everything of step s + 1 knows that all its sums of step s have arrived. No
// send needs to be waited for. To arrive is to be added or stored by the receiver, so it is the same where a link (shared memory) says only
// where a payload lies and the receiver reads it there when it comes to the frame: a microbatch's vector, and the part that a relay
// has folded, are written again in step s + 1 at the earliest, by this rank or by a frame of that step, and a sum in step s + 2. A sum in
// 16 bits has one place for all steps: when that of step s + 1 is there, everybody has sent his part of it, and so has all sums of step s.
// The caller reads a sum in place, too, and must not write to it.

import { LockstepError } from '../../protocol/errors.ts';
import { ELEMENT_BYTES, type FrameHeader, type FrameSink } from '../../protocol/frame.ts';
import type { Range } from '../../protocol/batch-plan.ts';
import type { Share } from '../../protocol/shares.ts';
import { collectorOf, groupNodes, relayOf, type CollectivePlan } from './plan.ts';
import { nodeNumber, nodeOfNumber, type Node } from './tree.ts';
import type { Arithmetic, HalfArithmetic, VectorMemory } from './vector-memory.ts';

/** Where a rank's vectors lie, in floats of its memory. */
export interface MemoryPlan {
  readonly floats: number;
  /** One vector each, for microbatches. The first two take turns: see `AllReduce.slotsOf`. */
  readonly slots: readonly number[];
  /** By bucket and owner of the slice, for those that this rank collects: where the part of each node that others send lies. */
  readonly parts: readonly ReadonlyMap<number, ReadonlyMap<number, number>>[];
  /** By peer: where what is to be added may be read to, LANDING_FLOATS of it at a time. */
  readonly landings: ReadonlyMap<number, number>;
  /** Of each of this rank's microbatches, in order: what compression has not sent yet. As long as the compressed part. */
  readonly residuals: readonly number[];
  /** By bucket and owner: where a compressed slice's sum lies as it travels. */
  readonly packed: readonly ReadonlyMap<number, number>[];
}

/** Half a second-level cache at most, with the vector that it is added to. */
const LANDING_FLOATS = 64 * 1024;
/** The largest finite numbers. */
const LARGEST = { bf16: 255 * 2 ** 120, fp16: 65_504 } as const;

/** A cache line of floats: vectors begin on one. */
const ALIGNMENT = 16;
const align = (floats: number): number => Math.ceil(floats / ALIGNMENT) * ALIGNMENT;

/** The nodes of others that `rank` collects for the slices of `owner`, and who sends them; null when it collects nothing of it. */
function sourcesOf(plan: CollectivePlan, rank: number, owner: number): Map<number, number> | null {
  if (collectorOf(plan, rank, owner) !== rank && rank !== owner) return null;
  const sources = new Map<number, number>();
  const number = (node: Node): number => nodeNumber(node, plan.microbatches);
  const group = plan.groupOf[rank] ?? 0;
  for (const peer of plan.groups[group] ?? []) {
    if (peer !== rank) for (const node of plan.nodes[peer] ?? []) sources.set(number(node), peer);
  }
  if (rank === owner) {
    for (const other of plan.groups.keys()) {
      if (other === group) continue;
      for (const node of groupNodes(plan, other)) sources.set(number(node), relayOf(plan, other, owner));
    }
  }
  return sources;
}

export function planMemory(plan: CollectivePlan, rank: number): MemoryPlan {
  let floats = 0;
  const take = (count: number): number => {
    const at = floats;
    floats += align(count);
    return at;
  };
  const nodes = plan.nodes[rank] ?? [];
  const own = nodes.reduce((sum, node) => sum + node.size, 0);
  // A node that is whole keeps its slot; to fold one of 2^k takes k + 1. One more, or two, let the engine go on meanwhile.
  const held = Math.max(0, ...nodes.map(({ size }, before) => before + 1 + Math.log2(size)));
  const slotCount = Math.min(own, Math.max(held, 2 + Math.floor(Math.log2(Math.max(1, own)))));
  const slots = Array.from({ length: 1 + slotCount }, () => take(plan.length));
  const parts = plan.slices.map((slices) => {
    const byOwner = new Map<number, ReadonlyMap<number, number>>();
    for (const [owner, slice] of slices.entries()) {
      const sources = sourcesOf(plan, rank, owner);
      if (sources === null) continue;
      const length = slice.end - slice.start;
      byOwner.set(owner, new Map([...sources.keys()].map((node) => [node, take(length)])));
    }
    return byOwner;
  });
  const peers = plan.nodes.flatMap((_, peer) => (peer === rank ? [] : [peer]));
  const longest = Math.max(0, ...plan.slices.flat().map(({ start, end }) => end - start));
  const landings = new Map(peers.map((peer) => [peer, take(Math.min(LANDING_FLOATS, longest))]));
  const residuals = Array.from({ length: plan.compression === null ? 0 : own }, () =>
    take(plan.compression?.floats ?? 0),
  );
  const packed = plan.slices.map((slices, bucket) => {
    const owners =
      plan.elements[bucket] === 'float32' || plan.worldSize === 1 ? [] : [...(parts[bucket]?.keys() ?? [])];
    return new Map(
      owners.map((owner): [number, number] => {
        const { start, end } = slices[owner] ?? { start: 0, end: 0 };
        return [owner, take(Math.ceil((end - start) / 2))];
      }),
    );
  });
  return { floats, slots, parts, landings, residuals, packed };
}

export type Send = (to: number, header: FrameHeader, payload: Uint8Array) => void;

/** A node of a slice's tree: not here, here without samples, here at an address, or coming in. */
type State = 'missing' | 'absent' | 'present' | 'coming';

/** One slice that this rank collects: the parts of one step, added up the tree as they come. */
class Collector {
  readonly owner: number;
  readonly slice: Range;
  /** The step whose parts it takes. */
  step: number;
  /** Who sends each node that others have. */
  readonly sources: ReadonlyMap<number, number>;
  private readonly parts: ReadonlyMap<number, number>;
  /** Nodes at which it has done its work: the root for the owner, the group's nodes for a relay. */
  private readonly targets: ReadonlySet<number>;
  private readonly arithmetic: Arithmetic;
  private readonly emit: (node: number, at: number | null, step: number) => void;
  private readonly sumOf: (step: number) => number;
  private states = new Map<number, State>();
  private readonly addresses = new Map<number, number>();
  private emitted = 0;

  constructor(options: {
    owner: number;
    slice: Range;
    step: number;
    sources: ReadonlyMap<number, number>;
    parts: ReadonlyMap<number, number>;
    targets: ReadonlySet<number>;
    arithmetic: Arithmetic;
    emit: (node: number, at: number | null, step: number) => void;
    /** Where the slice's sum of a step is to lie. */
    sumOf: (step: number) => number;
  }) {
    this.owner = options.owner;
    this.slice = options.slice;
    this.step = options.step;
    this.sources = options.sources;
    this.parts = options.parts;
    this.targets = options.targets;
    this.arithmetic = options.arithmetic;
    this.emit = options.emit;
    this.sumOf = options.sumOf;
  }

  get length(): number {
    return this.slice.end - this.slice.start;
  }

  stateOf(node: number): State {
    return this.states.get(node) ?? 'missing';
  }

  /** This rank's own node, at `at` for this slice; null when it has no samples. */
  deliver(node: number, at: number | null): void {
    this.settle(node, at);
  }

  /** A node begins to come in; returns where its bytes go, and whether they are added there. */
  begin(node: number): { readonly at: number; readonly adding: boolean } {
    this.states.set(node, 'coming');
    const sibling = node ^ 1;
    if (!this.targets.has(node) && this.stateOf(sibling) === 'present') {
      return { at: this.addresses.get(sibling) ?? 0, adding: true };
    }
    return { at: this.parts.get(node) ?? 0, adding: false };
  }

  /** The node is whole: stored at `at`, or added to its sibling there. */
  end(node: number, at: number, adding: boolean): void {
    if (adding) this.settle(node >> 1, at);
    else this.settle(node, at);
  }

  private settle(settled: number, address: number | null): void {
    let node = settled;
    let at = address;
    for (;;) {
      this.states.set(node, at === null ? 'absent' : 'present');
      if (at !== null) this.addresses.set(node, at);
      if (this.targets.has(node)) {
        const { step } = this;
        this.emitted++;
        if (this.emitted === this.targets.size) {
          // Whole: from now on parts of the next step may come.
          this.emitted = 0;
          this.states = new Map();
          this.step++;
        }
        this.emit(node, at, step);
        return;
      }
      const sibling = this.stateOf(node ^ 1);
      if (sibling === 'missing' || sibling === 'coming') return;
      if (sibling === 'present') {
        const other = this.addresses.get(node ^ 1) ?? 0;
        // Added up where the sum is to lie, if one of the two lies there.
        const into = at !== null && at === this.sumOf(this.step) ? at : other;
        if (at !== null) this.arithmetic.add(into, into === at ? other : at, this.length);
        at = into;
      }
      node >>= 1;
    }
  }
}

/** What a bucket's local fold holds: complete nodes and where their vectors begin; null without samples. */
interface Folded {
  node: number;
  at: number | null;
}

/** Where the numbers of an incoming frame go, and whether they are added there. */
interface Place {
  readonly at: number;
  /** What `at` is an index of instead of an address. */
  readonly within?: Float32Array;
  readonly adding: boolean;
  readonly finish: () => void;
}

interface Incoming extends Omit<Place, 'at'> {
  /** Moves on with the numbers that came. */
  at: number;
  readonly arithmetic: Arithmetic;
  readonly elementBytes: number;
}

export interface AllReduceOptions {
  readonly plan: CollectivePlan;
  readonly rank: number;
  readonly generation: number;
  /** The step that comes first. */
  readonly firstStep: number;
  readonly memory: VectorMemory;
  readonly places: MemoryPlan;
  readonly send: Send;
  /** The vector in this slot has been added to another: the slot can be filled again. */
  readonly freed?: (slot: number) => void;
  /** A slice of the step's sum is here; whether it is this rank's, and of which bucket. */
  readonly gathered?: (slice: Range, isOwn: boolean, bucket: number) => void;
}

/**
 * Arrays of the caller's own that take part in a step, so that only this rank's slices are copied from the one and to the other: peers'
 * parts of `vector` are sent from where they lie, and their sums are received into `sum`. The two may be the same array: a slice's sum comes
 * after this rank's part of it has arrived. Neither may be touched until the step is done.
 */
export interface Outside {
  /** Null: all is sent from the memory. */
  readonly vector: Float32Array | null;
  readonly sum: Float32Array;
}

/** Whether a rank's step can work on the caller's arrays: it folds nothing, rounds nothing, and hands nobody's sums on. */
export function canWorkOutside(plan: CollectivePlan, rank: number): boolean {
  return plan.shares[rank]?.length === 1 && plan.compression === null && plan.groups.length === 1;
}

const bytesOf = (floats: Float32Array, at: number, count: number): Uint8Array =>
  new Uint8Array(floats.buffer, floats.byteOffset + at * floats.BYTES_PER_ELEMENT, count * floats.BYTES_PER_ELEMENT);

/** Takes bytes of float32 from elsewhere; nothing to do where they lie there. */
function storeWithin(floats: Float32Array, at: number, bytes: Uint8Array): void {
  const into = bytesOf(floats, at, bytes.byteLength / floats.BYTES_PER_ELEMENT);
  if (bytes.buffer !== into.buffer || bytes.byteOffset !== into.byteOffset) into.set(bytes);
}

export class AllReduce {
  private readonly options: AllReduceOptions;
  /** By bucket. */
  private readonly arithmetic: readonly Arithmetic[];
  /** By bucket; null where it travels in float32. */
  private readonly half: readonly (HalfArithmetic | null)[];
  /** This rank's microbatches. */
  private readonly share: Share;
  /** The largest number that a microbatch may have in a compressed bucket. */
  private readonly limit: number;
  private readonly ownNodes: ReadonlySet<number>;
  private readonly groupPeers: readonly number[];
  /** By bucket, then by owner of the slice. */
  private readonly collectors: ReadonlyMap<number, Collector>[];
  private readonly folds: Folded[][];
  /** How many buckets of the vector in each slot have been added to another. */
  private readonly absorbed: number[];
  private step: number;
  private active = false;
  private outside: Outside | null = null;
  /** Slices of the present step's sum that are here, by bucket. */
  private readonly gathered: Set<number>[];
  private gatheredCount = 0;
  /** The last step of which each peer has sent some of every part that it sends: it has computed all of its own. */
  private readonly heard = new Map<number, number>();
  /** Those of a peer's parts of a step of which something is here, where it sends several. */
  private readonly begun = new Map<number, { readonly step: number; readonly nodes: Set<number> }>();
  private readonly partsOf = new Map<number, number>();

  constructor(options: AllReduceOptions) {
    this.options = options;
    const { plan, rank, places, memory } = options;
    this.step = options.firstStep - 1;
    const half = plan.compression === null ? null : memory.half(plan.compression.elements);
    this.half = plan.elements.map((elements) => (elements === 'float32' ? null : half));
    this.arithmetic = this.half.map((one) => one ?? memory);
    this.limit = plan.compression === null ? 0 : LARGEST[plan.compression.elements] / plan.microbatches;
    this.share = plan.shares[rank] ?? [];
    this.ownNodes = new Set((plan.nodes[rank] ?? []).map((node) => nodeNumber(node, plan.microbatches)));
    this.groupPeers = (plan.groups[plan.groupOf[rank] ?? 0] ?? []).filter((peer) => peer !== rank);
    const relayTargets = new Set(
      groupNodes(plan, plan.groupOf[rank] ?? 0).map((node) => nodeNumber(node, plan.microbatches)),
    );
    this.collectors = plan.slices.map((slices, bucket) => {
      const made = new Map<number, Collector>();
      for (const [owner, parts] of places.parts[bucket] ?? []) {
        const sources = sourcesOf(plan, rank, owner) ?? new Map<number, number>();
        for (const source of sources.values()) {
          this.heard.set(source, this.step);
          this.partsOf.set(source, [...sources.values()].filter((other) => other === source).length);
        }
        const slice = slices[owner] ?? { start: 0, end: 0 };
        const emit =
          owner === rank
            ? (_node: number, at: number | null, step: number): void => this.summed(bucket, slice, at, step)
            : (node: number, at: number | null, step: number): void =>
                this.sendNode(owner, step, bucket, owner, slice, node, at);
        made.set(
          owner,
          new Collector({
            owner,
            slice,
            step: options.firstStep,
            sources,
            parts,
            targets: owner === rank ? new Set([1]) : relayTargets,
            arithmetic: this.arithmetic[bucket] ?? memory,
            emit,
            sumOf: (step) => this.sumAt(step) + slice.start,
          }),
        );
      }
      return made;
    });
    this.folds = plan.buckets.map(() => []);
    this.absorbed = places.slots.map(() => 0);
    this.gathered = plan.buckets.map(() => new Set<number>());
  }

  /** True when the sum of the step that was begun is whole. */
  get done(): boolean {
    const { plan } = this.options;
    return this.gatheredCount === plan.buckets.length * plan.worldSize;
  }

  /** True when something of each part of this step is here: what comes after is the exchange, not waiting for slower peers. */
  get everyoneHeard(): boolean {
    for (const step of this.heard.values()) if (step < this.step) return false;
    return true;
  }

  /**
   * Begins the next step: its sum will lie at the address that is returned, until the step after the next begins; with `outside`, this
   * rank's slices of it. See `canWorkOutside`.
   */
  begin(outside: Outside | null = null): number {
    if (this.active) throw new Error('the step before has not ended');
    this.active = true;
    this.outside = outside;
    this.step++;
    for (const set of this.gathered) set.clear();
    this.gatheredCount = 0;
    return this.sumAt(this.step);
  }

  /**
   * The slots of step `step`, in the order in which vectors are to take them: first the one in whose place the sum will be.
   */
  static slotsOf(places: MemoryPlan, step: number): number[] {
    return [step & 1, ...[...places.slots.keys()].slice(2)];
  }

  private sumAt(step: number): number {
    return this.options.places.slots[step & 1] ?? 0;
  }

  /**
   * Takes bucket `bucket` of microbatch `index`, which lies in slot `slot` as a whole vector would; null: it has no samples.
   * Within a bucket, this rank's microbatches come in ascending order.
   */
  offer(index: number, bucket: number, slot: number | null): void {
    const { plan, memory, places } = this.options;
    const range = plan.buckets[bucket] ?? { start: 0, end: 0 };
    const fold = this.folds[bucket] ?? [];
    const arithmetic = this.arithmetic[bucket] ?? memory;
    let node = plan.microbatches + index;
    let at = slot === null ? null : (places.slots[slot] ?? 0);
    const half = this.half[bucket];
    if (at !== null && half !== null && half !== undefined) {
      const residual = places.residuals[this.share.indexOf(index)] ?? 0;
      half.quantize(at + range.start, residual + range.start, range.end - range.start, this.limit);
    }
    for (;;) {
      const left = fold.at(-1);
      if (this.ownNodes.has(node) || left === undefined || (left.node ^ 1) !== node) break;
      fold.pop();
      if (left.at !== null && at !== null) {
        arithmetic.add(left.at + range.start, at + range.start, range.end - range.start);
        this.absorb(at);
      }
      at = left.at ?? at;
      node >>= 1;
    }
    if (!this.ownNodes.has(node)) {
      fold.push({ node, at });
      return;
    }
    this.shareOut(bucket, node, at);
  }

  private absorb(at: number): void {
    const { places, plan, freed } = this.options;
    const slot = places.slots.indexOf(at);
    const count = (this.absorbed[slot] ?? 0) + 1;
    this.absorbed[slot] = count % plan.buckets.length;
    if (count === plan.buckets.length) freed?.(slot);
  }

  /** Ends the step: its sum has been taken. */
  end(): void {
    this.active = false;
    this.absorbed.fill(0);
  }

  /** What takes the frames of rank `from`. */
  sink(from: number): FrameSink {
    let target: Incoming | null = null;
    return {
      begin: (header) => {
        target = this.accept(from, header);
      },
      place: (bytes) => {
        // In 16 bits they are laid out first.
        if (target === null || target.elementBytes !== Float32Array.BYTES_PER_ELEMENT) return null;
        const { memory, places } = this.options;
        const count = bytes / Float32Array.BYTES_PER_ELEMENT;
        if (target.within !== undefined) return bytesOf(target.within, target.at, count);
        if (!target.adding) return memory.bytes(target.at, count);
        return memory.bytes(places.landings.get(from) ?? 0, Math.min(count, LANDING_FLOATS));
      },
      data: (bytes) => {
        if (target === null) return;
        if (target.within !== undefined) storeWithin(target.within, target.at, bytes);
        else if (target.adding) target.arithmetic.addBytes(target.at, bytes);
        else target.arithmetic.store(target.at, bytes);
        target.at += bytes.byteLength / target.elementBytes;
      },
      end: () => {
        const whole = target;
        target = null;
        whole?.finish();
      },
    };
  }

  /** Checks a frame's header; returns where its floats go, null to drop them. */
  private accept(from: number, header: FrameHeader): Incoming | null {
    const { generation, plan, memory } = this.options;
    if (header.generation < generation) return null;
    if (header.generation > generation) this.accuse(from, `generation ${header.generation}, present ${generation}`);
    if (header.rank !== from) this.accuse(from, `rank ${header.rank} in its frame`);
    const agreed = plan.elements[header.bucket] ?? header.elements;
    if (header.elements !== agreed) this.accuse(from, `${header.elements} where ${agreed} was agreed`);
    const place = header.kind === 'gather' ? this.acceptSum(from, header) : this.acceptPart(from, header);
    const arithmetic = this.arithmetic[header.bucket] ?? memory;
    return { ...place, arithmetic, elementBytes: ELEMENT_BYTES[header.elements] };
  }

  private acceptPart(from: number, header: FrameHeader): Place {
    const collector = this.collectors[header.bucket]?.get(header.slice);
    if (collector === undefined) return this.accuse(from, `bucket ${header.bucket}, slice ${header.slice}`);
    const node = nodeNumber(header.node, this.options.plan.microbatches);
    if (collector.sources.get(node) !== from) {
      this.accuse(from, `node ${header.node.start}+${header.node.size}, which is not its own`);
    }
    if (header.step !== collector.step) this.accuse(from, `step ${header.step} of a slice at step ${collector.step}`);
    this.checkRange(from, header, collector.slice);
    if (collector.stateOf(node) !== 'missing') this.accuse(from, `node ${header.node.start} twice`);
    this.hear(from, header.step, node);
    if (header.kind === 'absent') {
      return { at: 0, adding: false, finish: () => collector.deliver(node, null) };
    }
    const place = collector.begin(node);
    return { ...place, finish: () => collector.end(node, place.at, place.adding) };
  }

  private hear(from: number, step: number, node: number): void {
    const parts = this.partsOf.get(from) ?? 1;
    if (parts > 1) {
      let known = this.begun.get(from);
      if (known?.step !== step) {
        known = { step, nodes: new Set() };
        this.begun.set(from, known);
      }
      known.nodes.add(node);
      if (known.nodes.size < parts) return;
    }
    this.heard.set(from, step);
  }

  private acceptSum(from: number, header: FrameHeader): Place {
    const { plan, rank } = this.options;
    const slice = plan.slices[header.bucket]?.[header.slice];
    const gathered = this.gathered[header.bucket];
    if (slice === undefined || gathered === undefined || header.slice === rank) {
      return this.accuse(from, `the sum of bucket ${header.bucket}, slice ${header.slice}`);
    }
    const collector = collectorOf(plan, rank, header.slice);
    const source = collector === rank ? header.slice : collector;
    if (source !== from) this.accuse(from, `the sum of slice ${header.slice}, which is rank ${source}'s to send`);
    if (!this.active || header.step !== this.step) {
      this.accuse(from, `a sum of step ${header.step} while this rank is at ${this.step}`);
    }
    this.checkRange(from, header, slice);
    if (gathered.has(header.slice)) this.accuse(from, `slice ${header.slice} twice`);
    gathered.add(header.slice);
    const { step, outside } = this;
    const place = outside === null ? { at: this.sumAt(step) + slice.start } : { at: slice.start, within: outside.sum };
    return {
      ...place,
      adding: false,
      finish: () => {
        this.gatheredCount++;
        this.options.gathered?.(slice, false, header.bucket);
        if (collector === rank) this.handRound(header.bucket, header.slice, slice, step, this.groupPeers);
      },
    };
  }

  private checkRange(from: number, header: FrameHeader, slice: Range): void {
    if (header.offset === slice.start && header.count === slice.end - slice.start) return;
    this.accuse(from, `floats ${header.offset}+${header.count} of a slice ${slice.start}+${slice.end - slice.start}`);
  }

  /** A node of this rank's own is complete: to every slice's collector. */
  private shareOut(bucket: number, node: number, at: number | null): void {
    const { plan, rank } = this.options;
    // The others first: they wait for it, and adding this rank's own slice takes a moment.
    for (const [owner, slice] of (plan.slices[bucket] ?? []).entries()) {
      const collector = collectorOf(plan, rank, owner);
      if (collector !== rank) {
        const vector = at === null ? null : (this.outside?.vector ?? null);
        const payload = vector === null ? null : bytesOf(vector, slice.start, slice.end - slice.start);
        this.sendNode(collector, this.step, bucket, owner, slice, node, at === null ? null : at + slice.start, payload);
      }
    }
    for (const [owner, collector] of this.collectors[bucket] ?? []) {
      const slice = plan.slices[bucket]?.[owner];
      if (slice !== undefined) collector.deliver(node, at === null ? null : at + slice.start);
    }
  }

  private sendNode(
    to: number,
    step: number,
    bucket: number,
    owner: number,
    slice: Range,
    number: number,
    at: number | null,
    outside: Uint8Array | null = null,
  ): void {
    const { generation, rank, plan, memory, send } = this.options;
    const count = slice.end - slice.start;
    const header = {
      kind: at === null ? ('absent' as const) : ('scatter' as const),
      elements: plan.elements[bucket] ?? 'float32',
      generation,
      step,
      rank,
      bucket,
      slice: owner,
      node: nodeOfNumber(number, plan.microbatches),
      offset: slice.start,
      count,
    };
    // Where it is packed it is packed in its own place: nobody needs this part of the node here any more.
    const payload =
      at === null ? memory.bytes(0, 0) : (outside ?? this.half[bucket]?.pack(at, at, count) ?? memory.bytes(at, count));
    send(to, header, payload);
  }

  /** This rank's slice of a bucket is summed: it lies at `at`, or nobody had samples. */
  private summed(bucket: number, slice: Range, at: number | null, step: number): void {
    const { plan, rank, memory } = this.options;
    const into = this.sumAt(step) + slice.start;
    if (at === null) memory.floats(into, slice.end - slice.start).fill(0);
    else if (at !== into) memory.copy(into, at, slice.end - slice.start);
    this.gathered[bucket]?.add(rank);
    this.gatheredCount++;
    this.options.gathered?.(slice, true, bucket);
    const home = plan.groupOf[rank] ?? 0;
    const relays = [...plan.groups.keys()].filter((group) => group !== home).map((group) => relayOf(plan, group, rank));
    this.handRound(bucket, rank, slice, step, [...relays, ...this.groupPeers]);
  }

  private handRound(bucket: number, owner: number, slice: Range, step: number, to: readonly number[]): void {
    const { generation, rank, memory, places, plan, send } = this.options;
    if (to.length === 0) return;
    const count = slice.end - slice.start;
    const at = this.sumAt(step) + slice.start;
    const packedAt = places.packed[bucket]?.get(owner) ?? 0;
    const payload = this.half[bucket]?.pack(at, packedAt, count) ?? memory.bytes(at, count);
    const node = { start: 0, size: 0 };
    const elements = plan.elements[bucket] ?? 'float32';
    for (const peer of to) {
      const header = { elements, generation, step, rank, bucket, slice: owner, node, offset: slice.start, count };
      send(peer, { kind: 'gather', ...header }, payload);
    }
  }

  private accuse(from: number, what: string): never {
    throw new LockstepError(
      'E_PROTOCOL',
      `rank ${from} sent ${what} (generation ${this.options.generation}, step ${this.step})`,
    );
  }
}
