// When /metrics was asked for, and how long a run that is over waits to be asked once more: its last step, its state and its reason are
// news that Prometheus would else never hear. Who does not scrape waits for nothing.

/** Whoever scrapes less often than that misses the end. */
export const LAST_SCRAPE_MAX_MS = 20_000;
/** Of the time between two scrapes: later than that nobody comes any more. */
const PATIENCE = 1.5;

export class Scrapes {
  private lastAtMs: number | null = null;
  private betweenMs: number | null = null;
  private told: () => void = () => {};

  /** An answer has been sent whole. */
  answered(nowMs: number): void {
    if (this.lastAtMs !== null) this.betweenMs = nowMs - this.lastAtMs;
    this.lastAtMs = nowMs;
    this.told();
  }

  /** How long it is worth waiting for the next one. */
  patienceMs(nowMs: number): number {
    if (this.lastAtMs === null || this.betweenMs === null) return 0;
    const until = this.lastAtMs + PATIENCE * this.betweenMs;
    return Math.max(0, Math.min(LAST_SCRAPE_MAX_MS, until - nowMs));
  }

  /** Nobody is waited for any more. */
  hurry(): void {
    this.told();
  }

  /** Resolves with the next answer, or when it is late. */
  async oneMore(nowMs: number): Promise<void> {
    const patienceMs = this.patienceMs(nowMs);
    if (patienceMs === 0) return;
    await new Promise<void>((resolve) => {
      const impatience = setTimeout(resolve, patienceMs);
      this.told = () => {
        clearTimeout(impatience);
        resolve();
      };
    });
  }
}
