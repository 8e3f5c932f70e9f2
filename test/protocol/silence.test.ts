import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DEVIATIONS, GAPS_NEEDED, SHORTEST_GAP_MS, Silence, type SilenceLimits } from '../../protocol/silence.ts';

const LIMITS: SilenceLimits = { floorMs: 2000, ceilingMs: 30_000, lookMostMs: 500 };

/** An observer that looks every 100 ms, at a peer whose signs of life come after the gaps that a story tells. */
class Watch {
  nowMs = 5000;
  readonly silence: Silence;

  constructor(limits: SilenceLimits = LIMITS) {
    this.silence = new Silence(limits, this.nowMs);
  }

  /** Lets so much time pass without a sign of life; returns when the peer was called silent, counted from the beginning of it. */
  still(ms: number): number | null {
    let called: number | null = null;
    for (let passed = 0; passed < ms;) {
      const slice = Math.min(100, ms - passed);
      passed += slice;
      this.nowMs += slice;
      if (this.silence.isSilent(this.nowMs)) called ??= passed;
    }
    return called;
  }

  /** A sign of life after each of these gaps; returns whether the peer was called silent in one of them. */
  gaps(...gaps: readonly number[]): boolean {
    let wasCalled = false;
    for (const gap of gaps) {
      wasCalled = this.still(gap) !== null || wasCalled;
      this.silence.heard(this.nowMs);
    }
    return wasCalled;
  }
}

const times = (count: number, gap: number): number[] => Array.from({ length: count }, () => gap);

describe('the limit of silence', () => {
  it('of a steady peer is the floor, and a stopped one is found within it and one look', () => {
    const watch = new Watch();
    expect(watch.gaps(...times(20, 250))).toBe(false);
    expect(watch.silence.limitMs).toBe(2000);
    expect(watch.still(10_000)).toBe(2100);
  });

  it('of a peer that has said little is the ceiling', () => {
    const watch = new Watch();
    watch.gaps(...times(GAPS_NEEDED - 1, 250));
    expect(watch.silence.limitMs).toBe(30_000);
    watch.gaps(250);
    expect(watch.silence.limitMs).toBe(2000);
    expect(new Watch().still(60_000)).toBe(30_100);
  });

  it('follows what is usual for the peer: median and deviation, worked out by hand', () => {
    const watch = new Watch();
    // Sorted: 600 800 900 1000 1000 1100 1200 1600; the higher middle is 1000; deviations 400 200 100 0 0 100 200 600, middle 200.
    watch.gaps(1000, 600, 1600, 900, 1000, 800, 1200, 1100);
    expect(watch.silence.limitMs).toBe(1000 + DEVIATIONS * 200);
  });

  it('is not moved by one long gap after a regular series, and that gap kills nobody', () => {
    const watch = new Watch();
    watch.gaps(...times(30, 250));
    expect(watch.gaps(1900)).toBe(false);
    expect(watch.silence.limitMs).toBe(2000);
  });

  it('is taken from the last gaps only: a peer that has become slower is given time, one that has become quick is not', () => {
    const watch = new Watch();
    watch.gaps(...times(100, 250));
    expect(watch.gaps(...times(10, 1500), ...times(30, 1500), ...times(30, 1800))).toBe(false);
    watch.gaps(...times(20, 1500), ...times(20, 3000));
    expect(watch.silence.limitMs).toBeGreaterThan(2000);
    watch.gaps(...times(64, 250));
    expect(watch.silence.limitMs).toBe(2000);
  });

  it('counts a burst of messages as one sign of life', () => {
    const watch = new Watch();
    for (let i = 0; i < 20; i++) {
      watch.gaps(3000);
      for (let message = 0; message < 1000; message++) watch.silence.heard(watch.nowMs);
    }
    watch.gaps(4000, 2000, 4000, 2000, 4000, 2000);
    // Were the bursts counted, nearly all gaps would be none at all, and the limit the floor.
    expect(watch.silence.limitMs).toBeGreaterThanOrEqual(3000);
  });

  it('lies between floor and ceiling, and above the usual gap where the ceiling allows, whatever the peer does', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 20, max: 60_000 }), { maxLength: 200 }), (gaps) => {
        const watch = new Watch({ ...LIMITS, lookMostMs: 100_000 });
        for (const gap of gaps) {
          watch.nowMs += gap;
          watch.silence.heard(watch.nowMs);
        }
        const { limitMs } = watch.silence;
        expect(limitMs).toBeGreaterThanOrEqual(2000);
        expect(limitMs).toBeLessThanOrEqual(30_000);
        const kept = gaps.slice(-64).toSorted((a, b) => a - b);
        const usual = kept.length < GAPS_NEEDED ? 30_000 : Math.min(30_000, kept[kept.length >> 1] ?? 0);
        expect(limitMs).toBeGreaterThanOrEqual(usual);
      }),
    );
  });

  it('never calls a peer dead whose gaps stay below the floor, counted from the beginning of a burst', () => {
    const most = LIMITS.floorMs - SHORTEST_GAP_MS;
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: most }), { maxLength: 100 }), (gaps) => {
        expect(new Watch().gaps(...gaps)).toBe(false);
      }),
    );
  });
});

describe('an observer that was held up itself', () => {
  it('calls nobody dead when it wakes: time that it did not see counts as one look', () => {
    const watch = new Watch();
    watch.gaps(...times(20, 250));
    watch.nowMs += 3_600_000;
    expect(watch.silence.isSilent(watch.nowMs)).toBe(false);
    expect(watch.silence.silentMs(watch.nowMs)).toBe(500);
    // From now on it sees: the peer is dead, and is found as ever.
    expect(watch.still(10_000)).toBe(1600);
  });

  it('does not take its own absence for the peer’s usual gap', () => {
    const watch = new Watch();
    watch.gaps(...times(20, 250));
    for (let i = 0; i < 64; i++) {
      watch.nowMs += 60_000;
      watch.silence.heard(watch.nowMs);
    }
    expect(watch.silence.limitMs).toBe(2000);
  });

  it('is not confused by a clock that stands still or goes back', () => {
    const watch = new Watch();
    watch.gaps(...times(20, 250));
    watch.nowMs -= 100_000;
    expect(watch.silence.isSilent(watch.nowMs)).toBe(false);
    expect(watch.still(10_000)).toBe(2100);
  });
});
