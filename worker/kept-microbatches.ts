// Copies of what a rank has computed of the step in flight, so that it need not be computed again when another member is lost before
// the step's sum is there: the collective adds vectors where they lie, so of what it was given nothing is left. Bits do not depend on
// it: the vector of a microbatch is a function of the weights, and those are of whole steps.
//
// Cost: a copy of each vector while it is computed, and memory for a step's vectors, LIMIT_BYTES at most. So it is done only where that
// is little beside the computing (COPY_SHARE), and steps take long enough for anybody to care (KEPT_FROM_SECONDS).

import { KEPT_FROM_SECONDS } from '../protocol/shares.ts';
import type { Bucket } from './engine/engine.ts';

/** Of the time that a microbatch takes, what copying its vector may take at most. */
const COPY_SHARE = 0.02;
/** A slow estimate of copying to memory that nothing has in its cache. */
const COPY_BYTES_PER_SECOND = 2e9;
const LIMIT_BYTES = 512 * 1024 * 1024;

export interface KeptOptions {
  /** Floats of a vector. */
  readonly floats: number;
  readonly limitBytes?: number;
}

/** A copy that is being made. */
export interface Copy {
  /** Bucket `bucket` is written, and has not left yet. */
  take(bucket: number): void;
  /** It is whole. */
  end(): void;
}

export class KeptMicrobatches {
  private readonly floats: number;
  private readonly most: number;
  private step = -1;
  private readonly vectors = new Map<number, Float32Array>();
  private readonly free: Float32Array[] = [];
  private isWorthIt = false;

  constructor({ floats, limitBytes = LIMIT_BYTES }: KeptOptions) {
    this.floats = floats;
    this.most = Math.floor(limitBytes / (floats * Float32Array.BYTES_PER_ELEMENT));
  }

  /** A microbatch took `seconds` to be read and computed, and this rank has `count` of them: whether it is worth while to keep the next. */
  took(seconds: number, count: number): void {
    const copySeconds = (this.floats * Float32Array.BYTES_PER_ELEMENT) / COPY_BYTES_PER_SECOND;
    this.isWorthIt = seconds * count >= KEPT_FROM_SECONDS && copySeconds <= COPY_SHARE * seconds;
  }

  /** The vector of microbatch `m` in the step after `step` steps; null: it must be computed. */
  of(step: number, m: number): Float32Array | null {
    return this.step === step ? (this.vectors.get(m) ?? null) : null;
  }

  /** Begins to copy the vector of microbatch `m`, which is being written to `out`; null: it is not worth it, or there is no room. */
  copy(step: number, m: number, out: Float32Array, buckets: readonly Bucket[]): Copy | null {
    if (!this.isWorthIt) return null;
    if (this.step !== step) this.forget();
    this.step = step;
    if (this.vectors.size >= this.most) return null;
    const room = this.free.pop() ?? new Float32Array(this.floats);
    return {
      take: (bucket) => {
        const { offset, length } = buckets[bucket] ?? { offset: 0, length: 0 };
        room.set(out.subarray(offset, offset + length), offset);
      },
      end: () => void this.vectors.set(m, room),
    };
  }

  /** Microbatches that are kept of the step after `step` steps. */
  count(step: number): number {
    return this.step === step ? this.vectors.size : 0;
  }

  /** The state is not the one that they were computed from. */
  forget(): void {
    this.free.push(...this.vectors.values());
    this.vectors.clear();
    this.step = -1;
  }
}
