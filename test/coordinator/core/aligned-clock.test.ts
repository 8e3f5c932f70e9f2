// Made-up delays over a made-up link: what the other clock shows is known here, and nothing of it to the code under test.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AlignedClock } from '../../../coordinator/core/aligned-clock.ts';

const SECOND = 1e6;

/** Another machine's clock: so much behind this one's, and faster by `drift` of 1. */
const there = (hereUs: number, behindUs: number, drift = 0): number => hereUs * (1 + drift) - behindUs;

describe('the clock of another machine', () => {
  it('is known from the shortest round trip, to half of it', () => {
    const clock = new AlignedClock();
    const behindUs = 5_000_000;
    // There and back: a thread that was held, an even trip, one held on its way back.
    for (const [sentUs, forthUs, backUs] of [
      [0, 90_000, 100],
      [SECOND, 150, 150],
      [2 * SECOND, 200, 40_000],
    ] as const) {
      const atUs = there(sentUs + forthUs, behindUs);
      clock.trip({ sentUs, heardUs: sentUs + forthUs + backUs, atUs });
    }
    expect(clock.at(2 * SECOND)).toEqual({
      how: 'round trip',
      offsetUs: behindUs,
      uncertaintyUs: 150 + 15e-6 * (SECOND - 300),
    });
    expect(clock.here(there(3 * SECOND, behindUs))).toBeCloseTo(3 * SECOND, 6);
  });

  it('is not believed before there was a short trip, or several', () => {
    const clock = new AlignedClock();
    const trip = (sentUs: number, lengthUs: number): void =>
      clock.trip({ sentUs, heardUs: sentUs + lengthUs, atUs: there(sentUs, 0) });
    for (const sentUs of [0, 1, 2]) {
      trip(sentUs * SECOND, 400_000);
      expect(clock.at(sentUs * SECOND)).toBe(null);
    }
    trip(3 * SECOND, 400_000);
    expect(clock.at(4 * SECOND)?.uncertaintyUs).toBeGreaterThanOrEqual(200_000);
    const other = new AlignedClock();
    other.trip({ sentUs: 0, heardUs: 900, atUs: 0 });
    expect(other.at(900)?.uncertaintyUs).toBe(450);
  });

  it('is, within what is said, where it says, whatever the delays, their asymmetry and a drift of 10 ppm', () => {
    const delay = fc.integer({ min: 20, max: 50_000 });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(delay, delay), { minLength: 4, maxLength: 60 }),
        fc.integer({ min: -1e12, max: 1e12 }),
        fc.constantFrom(-10e-6, 0, 10e-6),
        (delays, behindUs, drift) => {
          const clock = new AlignedClock();
          for (const [i, [forthUs, backUs]] of delays.entries()) {
            const sentUs = i * (SECOND / 4);
            const atUs = there(sentUs + forthUs, behindUs, drift);
            const heardUs = sentUs + forthUs + backUs;
            clock.trip({ sentUs, heardUs, atUs });
            const known = clock.at(heardUs);
            if (known === null) continue;
            const wrongUs = Math.abs(known.offsetUs - (heardUs - there(heardUs, behindUs, drift)));
            expect(wrongUs).toBeLessThanOrEqual(known.uncertaintyUs + 1e-3);
          }
        },
      ),
    );
  });

  it('never makes time go back for small corrections, and comes to where the best trip says', () => {
    const clock = new AlignedClock();
    clock.trip({ sentUs: 0, heardUs: 1000, atUs: 0 });
    expect(clock.here(1000)).toBe(1500);
    // 450 us too far, as a shorter trip shows.
    clock.trip({ sentUs: 2000, heardUs: 2100, atUs: 2000 });
    let before = clock.here(2000);
    for (let us = 4000; us < 2 * SECOND; us += 2000) {
      const now = clock.here(us);
      expect(now - before).toBeGreaterThan(0.9994 * 2000);
      expect(now - before).toBeLessThan(1.0006 * 2000);
      before = now;
    }
    expect(clock.here(2 * SECOND)).toBe(2 * SECOND + 50);
    // What is late, of before the correction, is where it would have been.
    expect(clock.here(900)).toBe(1400);
  });

  it('is put right at once where it was far off', () => {
    const clock = new AlignedClock();
    for (let i = 0; i < 4; i++) clock.trip({ sentUs: i * SECOND, heardUs: i * SECOND + 800_000, atUs: i * SECOND });
    expect(clock.here(4 * SECOND)).toBe(4.4 * SECOND);
    clock.trip({ sentUs: 5 * SECOND, heardUs: 5 * SECOND + 100, atUs: 5 * SECOND });
    expect(clock.here(5 * SECOND)).toBe(5 * SECOND + 50);
  });

  it('that is this one’s needs no trip', () => {
    const clock = new AlignedClock();
    clock.same();
    expect(clock.at(7)).toEqual({ how: 'same clock', offsetUs: 0, uncertaintyUs: 0 });
    clock.trip({ sentUs: 0, heardUs: 1000, atUs: 70 });
    expect(clock.here(123.25)).toBe(123.25);
  });
});
