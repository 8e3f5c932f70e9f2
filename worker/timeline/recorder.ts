// What a worker's threads do, from when to when, for the coordinator that writes a timeline. Nothing is recorded before it asks, nor of
// steps that it doesn't ask for; then a span costs a few stores. It answers the coordinator's question what time it is here, too.

import type { ClockMessage, TraceMessage, WorkerMessage } from '../../protocol/messages.ts';
import { SpanBuffer, type SpanKind } from '../../protocol/timeline.ts';
import { MARKS } from '../collective/bucket-marks.ts';
import type { AllReduceTiming } from '../train.ts';

/** Seconds below which a wait for a slot is none. */
const NO_WAIT_SECONDS = 20e-6;
const NONE = new Float64Array(0);

export interface MachineClock {
  /** Microseconds of the machine's clock when `seconds` was 0. */
  readonly originUs: () => number;
  /** Seconds of the clock that spans are told by. */
  readonly seconds: () => number;
  readonly boot: () => string | null;
}

export class Recorder {
  private readonly clock: MachineClock;
  private originUs = 0;
  private buffer: SpanBuffer | null = null;
  private wanted: { readonly from: number; readonly to: number } | null = null;
  private step = 0;

  constructor(clock: MachineClock) {
    this.clock = clock;
  }

  get isWanted(): boolean {
    return this.wanted !== null;
  }

  /** The coordinator wants these steps; returns what it is to be told. */
  asked({ sentUs, from, to }: ClockMessage): Extract<WorkerMessage, { kind: 'clock' }> {
    const { clock } = this;
    if (this.buffer === null) this.originUs = clock.originUs();
    this.buffer ??= new SpanBuffer();
    this.wanted = { from, to };
    return { kind: 'clock', sentUs, atUs: this.originUs + 1e6 * clock.seconds(), boot: clock.boot() };
  }

  /** There is another coordinator: whether it wants any it will say. What was recorded until now it gets then. */
  forget(): void {
    this.wanted = null;
  }

  /** Takes the spans of step `step`; null: none are wanted of it. */
  of(step: number): Recorder | null {
    if (this.wanted === null || step < this.wanted.from || step > this.wanted.to) return null;
    this.step = step;
    return this;
  }

  /** Times in seconds. */
  add(kind: SpanKind, start: number, end: number, detail = 0): void {
    const { originUs, buffer } = this;
    buffer?.add(kind, originUs + 1e6 * start, originUs + 1e6 * end, this.step, detail);
  }

  /** A microbatch: from when it was loaded, waited for its slot, and was computed, until it was done. */
  microbatch(index: number, [load, slot, compute, end]: readonly [number, number, number, number]): void {
    this.add('data', load, slot, index);
    const hasWaited = compute - slot > NO_WAIT_SECONDS;
    if (hasWaited) this.add('slot', slot, compute, index);
    this.add('compute', hasWaited ? compute : slot, end, index);
  }

  /** An all-reduce, and each bucket's way in it. */
  allReduce(start: number, end: number, timing: AllReduceTiming, preparingSeconds: number): void {
    const heard = Math.min(end, start + timing.waitSeconds);
    this.add('allreduce', start, end);
    this.add('wait', start, heard, Math.round(1e6 * preparingSeconds));
    this.add('exchange', heard, end);
    const marks = timing.marks ?? NONE;
    for (let at = 0; at < marks.length; at += MARKS) {
      const bucket = at / MARKS;
      const [offered = 0, sent = 0, summed = 0, gathered = 0] = marks.subarray(at);
      this.add('bucket', offered, gathered, bucket);
      // What takes no time, where this rank's slice was the last to be whole, is no span.
      if (sent > offered) this.add('send', offered, sent, bucket);
      if (summed > sent) this.add('sum', sent, summed, bucket);
      if (gathered > summed) this.add('gather', summed, gathered, bucket);
    }
  }

  /** What was recorded since the last call; null: nothing, or nobody wants it. */
  take(generation: number): TraceMessage | null {
    const taken = this.wanted === null ? null : (this.buffer?.take() ?? null);
    return taken === null ? null : { kind: 'trace', generation, ...taken };
  }
}
