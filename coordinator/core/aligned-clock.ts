// Another machine's clock, brought to this one's by round trips over the control link, as NTP does (RFC 5905): of a trip that left here at
// `sent`, was answered there at `at`, and was back here at `heard`, the offset is (sent + heard) / 2 - at, wrong by half the trip at most. A
// worker's engine holds its thread, so most trips are long; the shortest is believed, and trusted less as it ages, because clocks drift.
//
// A correction is made slowly, so that time only goes on there and what lay within something else still does; one that is too large for
// that is made at once. Two processes with the same boot have the same clock, and need no trip.

/** How much faster one clock may be than another, as in RFC 5905 (PHI): of 1. */
const DRIFT = 15e-6;
/** How fast a correction is made, as by adjtime: of 1. */
const SLEW = 500e-6;
/** Beyond this it is made at once: slowly, it would take 20 s. */
const STEP_US = 10_000;
/** A trip of this is good enough to begin with; else the best of so many. */
const SHORT_TRIP_US = 1000;
const TRIPS = 4;

export interface RoundTrip {
  /** Microseconds of this machine's clock. */
  readonly sentUs: number;
  readonly heardUs: number;
  /** Of the other's. */
  readonly atUs: number;
}

export interface Alignment {
  readonly how: 'same clock' | 'round trip';
  /** What is added to the other's times, and how wrong that may be. */
  readonly offsetUs: number;
  readonly uncertaintyUs: number;
}

export class AlignedClock {
  private isSame = false;
  private trips = 0;
  private best: { readonly offsetUs: number; readonly halfUs: number; readonly heardUs: number } | null = null;
  /** What is added to a time of the other clock: `baseUs` until `anchorUs`, from then on ever more of what is missing to the best. */
  private baseUs: number | null = null;
  private anchorUs = 0;
  private lastUs = 0;

  /** The other process has this one's clock. */
  same(): void {
    this.isSame = true;
  }

  trip({ sentUs, heardUs, atUs }: RoundTrip): void {
    this.trips++;
    const halfUs = (heardUs - sentUs) / 2;
    const { best } = this;
    if (best !== null && halfUs > best.halfUs + DRIFT * (heardUs - best.heardUs)) return;
    const offsetUs = (sentUs + heardUs) / 2 - atUs;
    if (this.baseUs !== null) {
      const usedUs = this.addedTo(this.lastUs);
      this.baseUs = Math.abs(offsetUs - usedUs) > STEP_US ? offsetUs : usedUs;
      this.anchorUs = this.lastUs;
    }
    this.best = { offsetUs, halfUs, heardUs };
  }

  /** Null: not known well enough yet. */
  at(nowUs: number): Alignment | null {
    if (this.isSame) return { how: 'same clock', offsetUs: 0, uncertaintyUs: 0 };
    const { best } = this;
    if (best === null || (this.trips < TRIPS && 2 * best.halfUs > SHORT_TRIP_US)) return null;
    const uncertaintyUs = best.halfUs + DRIFT * Math.max(0, nowUs - best.heardUs);
    return { how: 'round trip', offsetUs: best.offsetUs, uncertaintyUs };
  }

  /** A time of the other clock on this one's; once `at` knows one. Times are to come in their order, as far as they matter. */
  here(thereUs: number): number {
    if (this.isSame) return thereUs;
    this.baseUs ??= this.best?.offsetUs ?? 0;
    this.lastUs = Math.max(this.lastUs, thereUs);
    return thereUs + this.addedTo(thereUs);
  }

  private addedTo(thereUs: number): number {
    const base = this.baseUs ?? 0;
    const missing = (this.best?.offsetUs ?? base) - base;
    const most = SLEW * Math.max(0, thereUs - this.anchorUs);
    return base + Math.max(-most, Math.min(most, missing));
  }
}
