// One rank's all-reduce over its links, for one generation: a shell that brings frames to all-reduce.ts and back, takes the
// time, and turns the loss of a link into an error that names the peer. It runs on the engine's thread or on one of its own.

import { LockstepError, type ErrorCode } from '../../../protocol/errors.ts';
import type { Link, Transport } from '../../../protocol/link.ts';
import { AllReduce, planMemory, type AllReduceOptions, type Outside } from '../all-reduce.ts';
import { BucketMarks } from '../bucket-marks.ts';
import type { VectorMemory } from '../vector-memory.ts';
import { planCollective, type PlanOptions } from '../plan.ts';

/** That peers get to answer a goodbye. A survivor of a lost generation waits no longer for one that is stopped. */
const CLOSE_MS = 250;

export interface GenerationPlan extends PlanOptions {
  readonly generation: number;
  readonly rank: number;
  /** The step that comes first. */
  readonly firstStep: number;
  /** The time of each bucket is taken. */
  readonly isTraced?: boolean;
}

/** What one link has carried. */
export interface Traffic {
  /** The rank at its other end. */
  readonly peer: number;
  readonly transport: Transport;
  /** Bytes since the links came up. */
  readonly bytesOut: number;
  readonly bytesIn: number;
}

/** What is known of a finished step. */
export interface StepFigures {
  /** Seconds from this rank's last vector until every peer's last one begins to come; then to the sum. */
  readonly waitSeconds: number;
  readonly reduceSeconds: number;
  /** By link. */
  readonly traffic: readonly Traffic[];
}

/** A link that is lost, or whose peer was dropped for what it sent. */
export class PeerFault extends LockstepError {
  /** The rank at its other end. */
  readonly peer: number;

  constructor(peer: number, code: ErrorCode, message: string, cause?: unknown) {
    super(code, message, cause === undefined ? {} : { cause });
    this.peer = peer;
  }
}

export interface ExchangeOptions {
  readonly plan: GenerationPlan;
  readonly links: ReadonlyMap<number, Link>;
  readonly memory: VectorMemory;
  /** The step's sum is whole. */
  readonly finished: (figures: StepFigures) => void;
  /** A slot may be filled again before the step is done. */
  readonly freed: (slot: number) => void;
  /** See AllReduceOptions. */
  readonly gathered?: NonNullable<AllReduceOptions['gathered']>;
  /** How a peer is called in errors. */
  readonly nameOf: (rank: number) => string;
  /** Called once, with what ended it before its time. */
  readonly failed: (error: LockstepError) => void;
  /** Called when a peer has sent something. */
  readonly stirred: () => void;
  /** Seconds on a monotonic clock. */
  readonly now?: () => number;
}

export class Exchange {
  /** Of the step that is done, where the plan is traced: seconds on `now`'s clock. */
  readonly marks: BucketMarks | null;
  private readonly options: ExchangeOptions;
  private readonly core: AllReduce;
  private readonly polled: readonly Link[];
  private readonly now: () => number;
  private isOver = false;
  private isBegun = false;
  private offered = 0;
  private isDone = false;
  private offeredAt = 0;
  private heardAt = 0;
  private readonly offersAStep: number;

  constructor(options: ExchangeOptions) {
    this.options = options;
    this.now = options.now ?? (() => performance.now() / 1000);
    const { plan, links, memory, freed } = options;
    const collective = planCollective(plan);
    const marks = plan.isTraced === true ? new BucketMarks(collective.buckets.length) : null;
    this.marks = marks;
    const gathered: ExchangeOptions['gathered'] =
      marks === null
        ? options.gathered
        : (slice, isOwn, bucket) => {
            marks.gathered(bucket, isOwn, this.now());
            options.gathered?.(slice, isOwn, bucket);
          };
    const nodes = collective.nodes[plan.rank] ?? [];
    this.offersAStep = collective.buckets.length * nodes.reduce((sum, node) => sum + node.size, 0);
    this.core = new AllReduce({
      plan: collective,
      rank: plan.rank,
      generation: plan.generation,
      firstStep: plan.firstStep,
      memory,
      places: planMemory(collective, plan.rank),
      send: (to, header, payload) => links.get(to)?.send(header, payload),
      freed,
      ...(gathered === undefined ? {} : { gathered }),
    });
    this.polled = [...links.values()].filter((link) => link.poll !== undefined);
    for (const [rank, link] of links) this.join(rank, link);
  }

  private join(rank: number, link: Link): void {
    const sink = this.core.sink(rank);
    void link.closed.then(({ because, error }) => {
      const name = this.options.nameOf(rank);
      this.fail(
        error === null
          ? new PeerFault(rank, 'E_PEER_LOST', `the link to ${name} is lost: ${because}`)
          : new PeerFault(rank, error.code, `${name} is dropped: ${error.message}`, error),
      );
    });
    link.receive({
      begin: (header) => sink.begin(header),
      place: (bytes) => sink.place?.(bytes) ?? null,
      data: (bytes) => {
        sink.data(bytes);
        this.options.stirred();
      },
      end: () => {
        sink.end();
        this.lookForTheEnd();
        this.options.stirred();
      },
    });
  }

  /** True while this rank waits for peers. */
  get isWaiting(): boolean {
    return this.isBegun && this.offered === this.offersAStep;
  }

  /** True once every peer has sent something of this step. */
  get everyoneHeard(): boolean {
    return this.core.everyoneHeard;
  }

  get hasPolledLinks(): boolean {
    return this.polled.length > 0;
  }

  /** Begins the next step; returns the address of its sum. See AllReduce.begin. */
  begin(outside: Outside | null = null): number {
    if (this.isBegun) this.core.end();
    this.isBegun = true;
    this.offered = 0;
    this.isDone = false;
    this.heardAt = 0;
    this.marks?.begin();
    return this.core.begin(outside);
  }

  /** Takes a bucket of a microbatch from a slot, or the word that it has no samples; see AllReduce.offer. */
  offer(index: number, bucket: number, slot: number | null): void {
    if (this.isOver) return;
    this.offered++;
    const { marks } = this;
    const before = marks === null ? 0 : this.now();
    this.core.offer(index, bucket, slot);
    marks?.offered(bucket, before, this.now());
    if (this.offered === this.offersAStep) this.offeredAt = this.now();
    this.lookForTheEnd();
  }

  /** Moves what can be moved on links without events of their own; true when there was something. */
  poll(): boolean {
    if (this.isOver) return false;
    let moved = false;
    for (const link of this.polled) moved = link.poll?.() === true || moved;
    return moved;
  }

  /** Peers wake this thread from now on, or need not. */
  sleep(asleep: boolean): void {
    for (const link of this.polled) link.sleep?.(asleep);
  }

  /** Closes its links; a peer that does not answer for a while (stopped, cut off) is not waited for. */
  async close(because: string): Promise<void> {
    this.isOver = true;
    const links = [...this.options.links.values()];
    for (const link of links) link.close(because);
    const impatience = setTimeout(() => {
      for (const link of links) link.cut();
    }, CLOSE_MS);
    await Promise.all(links.map((link) => link.closed));
    clearTimeout(impatience);
  }

  private lookForTheEnd(): void {
    if (!this.isWaiting || this.isDone) return;
    if (this.heardAt === 0 && this.core.everyoneHeard) this.heardAt = this.now();
    if (!this.core.done) return;
    this.isDone = true;
    const heardAt = Math.max(this.heardAt, this.offeredAt);
    this.options.finished({
      waitSeconds: heardAt - this.offeredAt,
      reduceSeconds: this.now() - heardAt,
      traffic: this.traffic(),
    });
  }

  private traffic(): Traffic[] {
    return [...this.options.links].map(([peer, { transport, bytesOut, bytesIn }]) => {
      return { peer, transport, bytesOut, bytesIn };
    });
  }

  private fail(error: LockstepError): void {
    if (this.isOver) return;
    this.isOver = true;
    this.options.failed(error);
  }
}
