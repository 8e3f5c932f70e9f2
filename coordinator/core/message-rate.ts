// How many messages a worker may send: a bucket that fills with time. Reports come in batches (worker/report-batch.ts), a large state in parts of
// 8 MiB, and what a worker repeats after a coordinator's restart is some hundred messages: who sends more is at fault, or wants to be in the way.

export const MESSAGES_PER_SECOND_MAX = 500;
/** At once. */
export const MESSAGES_BURST_MAX = 2000;

export class MessageRate {
  private left = MESSAGES_BURST_MAX;
  private lastMs: number;

  constructor(nowMs: number) {
    this.lastMs = nowMs;
  }

  /** One message has come; false: it is one too many. */
  take(nowMs: number): boolean {
    const gained = ((nowMs - this.lastMs) / 1000) * MESSAGES_PER_SECOND_MAX;
    this.left = Math.min(MESSAGES_BURST_MAX, this.left + Math.max(0, gained));
    this.lastMs = nowMs;
    if (this.left < 1) return false;
    this.left--;
    return true;
  }
}
