// When a peer is taken for dead: no guess that fits nobody, but what its own signs of life have been like. The limit is the median
// of the gaps between them plus so many times their median absolute deviation, within a floor and a ceiling; of both measures one
// long gap among many moves nothing. A peer that has said little yet gets the ceiling.
//
// Silence is counted in time that the observer was awake for: it looks at every beat of its own, and what is longer than a beat
// should be, it was itself held up (stopped, asleep, busy), and can't say what a peer did meanwhile. Else a coordinator that was
// stopped for a minute would call all its workers dead when it wakes.
//
// A core: the time comes in. Cost: a sort of 64 numbers at each look.

export interface SilenceLimits {
  /** However regular a peer is, it gets this long. */
  readonly floorMs: number;
  /** However irregular, or unknown, it gets no longer. */
  readonly ceilingMs: number;
  /** Between two looks of the observer, what counts at most: beyond it the observer itself was held up. */
  readonly lookMostMs: number;
}

/** Limits that no past moves: for a peer whose gaps are as long as what it does, and say nothing of the next one. */
export function fixedSilence(limitMs: number, lookMostMs = 1000): SilenceLimits {
  return { floorMs: limitMs, ceilingMs: limitMs, lookMostMs };
}

/** Deviations above the median: for gaps spread as a bell more than six standard deviations. */
export const DEVIATIONS = 10;
/** Gaps that are remembered. */
export const GAPS_KEPT = 64;
/** Gaps seen before they are believed. */
export const GAPS_NEEDED = 5;
/** What follows sooner belongs to the same sign of life: a burst of messages says nothing of how long a peer keeps still. */
export const SHORTEST_GAP_MS = 20;

export class Silence {
  private readonly limits: SilenceLimits;
  /** A ring: the oldest gap makes room. */
  private readonly gaps: number[] = [];
  private next = 0;
  private lookedAtMs: number;
  /** Time on the observer's own clock, while it was awake. */
  private awakeMs = 0;
  private heardAtAwakeMs = 0;

  /** @param nowMs monotonic; the peer counts as heard of at this moment */
  constructor(limits: SilenceLimits, nowMs: number) {
    this.limits = limits;
    this.lookedAtMs = nowMs;
  }

  /** A sign of life has come. */
  heard(nowMs: number): void {
    this.look(nowMs);
    const gap = this.awakeMs - this.heardAtAwakeMs;
    if (gap < SHORTEST_GAP_MS) return;
    this.heardAtAwakeMs = this.awakeMs;
    this.gaps[this.next] = gap;
    this.next = (this.next + 1) % GAPS_KEPT;
  }

  /** True when it has been silent for longer than its past explains. To be asked at every beat, at least each `lookMostMs`. */
  isSilent(nowMs: number): boolean {
    return this.silentMs(nowMs) > this.limitMs;
  }

  /** Milliseconds since the last sign of life, as far as the observer was awake. */
  silentMs(nowMs: number): number {
    this.look(nowMs);
    return this.awakeMs - this.heardAtAwakeMs;
  }

  /** Why it is taken for dead. */
  complaint(nowMs: number): string {
    const seconds = (ms: number): string => `${Math.round(ms / 100) / 10} s`;
    return `nothing was heard of it for ${seconds(this.silentMs(nowMs))}, where ${seconds(this.limitMs)} is the limit`;
  }

  /** The silence that it is allowed now. */
  get limitMs(): number {
    const { floorMs, ceilingMs } = this.limits;
    if (this.gaps.length < GAPS_NEEDED) return ceilingMs;
    const middle = median(this.gaps);
    const deviation = median(this.gaps.map((gap) => Math.abs(gap - middle)));
    return Math.min(ceilingMs, Math.max(floorMs, middle + DEVIATIONS * deviation));
  }

  private look(nowMs: number): void {
    this.awakeMs += Math.min(Math.max(0, nowMs - this.lookedAtMs), this.limits.lookMostMs);
    this.lookedAtMs = nowMs;
  }
}

/** The middle value; of two in the middle the higher one. */
function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}
