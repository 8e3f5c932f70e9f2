// The all-reduce of one rank as a state machine: partial sums in, frames out and in, the canonical sum out. No socket, no
// clock. Direct reduce-scatter and all-gather after plan.ts; every slice is summed by its owner in the order of the tree, so
// the order in which frames arrive does not matter.
//
// A frame of the next step may come early: a peer that has everything of this step goes on. It cannot be two steps ahead,
// because it needs this rank's slice of each step; such a frame is the peer's fault. Frames of an older generation are
// dropped, of a newer one kept out by the links (a link belongs to one generation).
//
// Memory: one vector for the sum, and for each node of the other ranks its part of this rank's slices.

import { LockstepError } from '../../protocol/errors.ts';
import type { Frame, FrameHeader } from '../../protocol/frame.ts';
import type { CollectivePlan } from './plan.ts';
import { addInto, type Node } from './tree.ts';

export interface Outgoing {
  readonly to: number;
  readonly header: FrameHeader;
  /** A view: of the caller's partial sums, or of `out`. Send or copy before they change. */
  readonly payload: Float32Array;
}

type Part = { readonly data: Float32Array; present: boolean };

/** One slice's parts by node start; filled as frames arrive. */
interface SliceParts {
  readonly parts: ReadonlyMap<number, Part>;
  /** Starts of the nodes that have arrived, present or absent. */
  readonly filled: Set<number>;
  waiting: number;
}

const NO_FLOATS = new Float32Array(0);

export class AllReduce {
  private readonly plan: CollectivePlan;
  private readonly rank: number;
  private readonly generation: number;
  private step = -1;
  private active = false;
  private out: Float32Array = NO_FLOATS;
  private local: readonly { readonly node: Node; readonly vector: Float32Array | null }[] = [];
  /** By bucket: what the other ranks sent of this rank's slice. */
  private readonly mine: SliceParts[];
  private readonly gathered: Set<number>[];
  private bucketsSummed = 0;
  private readonly early: { frame: Frame; from: number }[] = [];
  /** Every peer has sent something of this step. */
  private readonly heard = new Set<number>();

  constructor(plan: CollectivePlan, rank: number, generation: number) {
    this.plan = plan;
    this.rank = rank;
    this.generation = generation;
    this.mine = plan.slices.map((slices) => {
      const slice = slices[rank] ?? { start: 0, end: 0 };
      const parts = new Map<number, Part>();
      for (const [from, nodes] of plan.nodes.entries()) {
        if (from === rank) continue;
        for (const node of nodes)
          parts.set(node.start, { data: new Float32Array(slice.end - slice.start), present: false });
      }
      return { parts, filled: new Set<number>(), waiting: parts.size };
    });
    this.gathered = plan.slices.map(() => new Set<number>());
  }

  /** Early frames may be kept up to this many: everything that the peers can send of one step. */
  private get earlyLimit(): number {
    const { worldSize, microbatches, buckets } = this.plan;
    return buckets.length * (microbatches + worldSize);
  }

  /** True when the sum of the step is whole in `out`. */
  get done(): boolean {
    return (
      !this.active ||
      (this.bucketsSummed === this.plan.buckets.length &&
        this.gathered.every((set) => set.size === this.plan.worldSize - 1))
    );
  }

  /** True when every peer has sent a first frame of this step: what comes after is the exchange, not waiting for slower peers. */
  get everyoneHeard(): boolean {
    return this.heard.size === this.plan.worldSize - 1;
  }

  /** Begins `step` with this rank's folded nodes; `out` receives the sum. Returns what to send. */
  begin(
    step: number,
    local: readonly { readonly node: Node; readonly vector: Float32Array | null }[],
    out: Float32Array,
  ): Outgoing[] {
    this.step = step;
    this.active = true;
    this.out = out;
    this.local = local;
    this.bucketsSummed = 0;
    this.heard.clear();
    for (const set of this.gathered) set.clear();
    const outgoing: Outgoing[] = [];
    for (const [bucket, slices] of this.plan.slices.entries()) {
      for (const [to, slice] of slices.entries()) {
        if (to === this.rank) continue;
        for (const { node, vector } of local) {
          const header = {
            ...this.header('scatter', bucket),
            node,
            offset: slice.start,
            count: slice.end - slice.start,
          };
          outgoing.push(
            vector === null
              ? { to, header: { ...header, kind: 'absent' }, payload: NO_FLOATS }
              : { to, header, payload: vector.subarray(slice.start, slice.end) },
          );
        }
      }
    }
    for (const bucket of this.plan.buckets.keys()) outgoing.push(...this.sumIfWhole(bucket));
    const early = this.early.splice(0);
    for (const { frame, from } of early) outgoing.push(...this.receive(from, frame));
    return outgoing;
  }

  /** Ends the step: the sum has been used, buffers may be filled again. */
  end(): void {
    this.active = false;
    for (const slice of this.mine) {
      slice.waiting = slice.parts.size;
      slice.filled.clear();
    }
  }

  /**
   * Takes a frame of rank `from`; returns what to send. A frame of the next step is copied and kept for its time.
   * Throws LockstepError E_PROTOCOL that names the peer and the field.
   */
  receive(from: number, frame: Frame): Outgoing[] {
    if (frame.generation < this.generation) return [];
    if (frame.generation > this.generation)
      this.accuse(from, `generation ${frame.generation}, present ${this.generation}`);
    if (frame.rank !== from) this.accuse(from, `rank ${frame.rank} in its frame`);
    const next = this.active ? this.step + 1 : Math.max(this.step + 1, 0);
    if (!(this.active && frame.step === this.step)) {
      if (this.step >= 0 && frame.step !== next)
        this.accuse(from, `step ${frame.step} while this rank is at ${this.step}`);
      if (this.early.length >= this.earlyLimit) this.accuse(from, `more frames than a step has`);
      this.early.push({ from, frame: { ...frame, payload: frame.payload.slice() } });
      return [];
    }
    this.heard.add(from);
    return frame.kind === 'gather' ? this.takeGather(from, frame) : this.takeScatter(from, frame);
  }

  private header(kind: FrameHeader['kind'], bucket: number): FrameHeader {
    const none = { start: 0, size: 0 };
    return {
      kind,
      generation: this.generation,
      step: this.step,
      rank: this.rank,
      bucket,
      node: none,
      offset: 0,
      count: 0,
    };
  }

  private takeScatter(from: number, frame: Frame): Outgoing[] {
    const slice = this.plan.slices[frame.bucket]?.[this.rank];
    if (slice === undefined) return this.accuse(from, `bucket ${frame.bucket}`);
    const known = this.plan.nodes[from]?.some((n) => n.start === frame.node.start && n.size === frame.node.size);
    if (known !== true) this.accuse(from, `node ${frame.node.start}+${frame.node.size}, which is not its own`);
    if (frame.offset !== slice.start || frame.count !== slice.end - slice.start) {
      this.accuse(from, `floats ${frame.offset}+${frame.count} of a slice ${slice.start}+${slice.end - slice.start}`);
    }
    const mine = this.mine[frame.bucket];
    const part = mine?.parts.get(frame.node.start);
    if (mine === undefined || part === undefined) return this.accuse(from, `node ${frame.node.start}`);
    if (mine.filled.has(frame.node.start)) this.accuse(from, `node ${frame.node.start} twice`);
    part.present = frame.kind === 'scatter';
    if (part.present) copyFloats(part.data, 0, frame.payload);
    mine.filled.add(frame.node.start);
    mine.waiting--;
    return this.sumIfWhole(frame.bucket);
  }

  private takeGather(from: number, frame: Frame): Outgoing[] {
    const slice = this.plan.slices[frame.bucket]?.[from];
    const gathered = this.gathered[frame.bucket];
    if (slice === undefined || gathered === undefined) return this.accuse(from, `bucket ${frame.bucket}`);
    if (frame.offset !== slice.start || frame.count !== slice.end - slice.start) {
      this.accuse(from, `floats ${frame.offset}+${frame.count} of its slice ${slice.start}+${slice.end - slice.start}`);
    }
    if (gathered.has(from)) this.accuse(from, 'its slice twice');
    gathered.add(from);
    copyFloats(this.out, slice.start, frame.payload);
    return [];
  }

  /** Sums this rank's slice of a bucket when all its parts are here, and sends the sum to everybody. */
  private sumIfWhole(bucket: number): Outgoing[] {
    const mine = this.mine[bucket];
    const slice = this.plan.slices[bucket]?.[this.rank];
    if (mine === undefined || slice === undefined || mine.waiting > 0) return [];
    const sum = this.sumNode(bucket, { start: 0, size: this.plan.microbatches }, slice.start, slice.end);
    const target = this.out.subarray(slice.start, slice.end);
    if (sum === null) target.fill(0);
    else target.set(sum);
    this.bucketsSummed++;
    const outgoing: Outgoing[] = [];
    for (let to = 0; to < this.plan.worldSize; to++) {
      if (to === this.rank) continue;
      const header = { ...this.header('gather', bucket), offset: slice.start, count: slice.end - slice.start };
      outgoing.push({ to, header, payload: target });
    }
    return outgoing;
  }

  /** The sum of a node over floats [start, end); null when it has no samples. Received parts and `out` are scratch. */
  private sumNode(bucket: number, node: Node, start: number, end: number): Float32Array | null {
    const local = this.local.find((l) => l.node.start === node.start && l.node.size === node.size);
    if (local !== undefined) return local.vector?.subarray(start, end) ?? null;
    const owner = this.plan.nodes.findIndex(
      (nodes, rank) => rank !== this.rank && nodes.some((n) => n.start === node.start && n.size === node.size),
    );
    if (owner >= 0) {
      const part = this.mine[bucket]?.parts.get(node.start);
      return part?.present === true ? part.data : null;
    }
    const half = node.size / 2;
    const left = this.sumNode(bucket, { start: node.start, size: half }, start, end);
    const right = this.sumNode(bucket, { start: node.start + half, size: half }, start, end);
    if (left === null || right === null) return left ?? right;
    // `left` is a view of local sums or of a received part; nobody reads either again in this step.
    addInto(left, right, 0, left.length);
    return left;
  }

  private accuse(from: number, what: string): never {
    throw new LockstepError(
      'E_PROTOCOL',
      `rank ${from} sent ${what} (generation ${this.generation}, step ${this.step})`,
    );
  }
}

/** Copies float32 bytes, aligned or not, to float `offset` of `into`. */
function copyFloats(into: Float32Array, offset: number, bytes: Uint8Array): void {
  new Uint8Array(into.buffer, into.byteOffset + 4 * offset, bytes.byteLength).set(bytes);
}
