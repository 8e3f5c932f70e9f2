// Which workers were lost, and why, as far as it is known: a story for each (failure.ts), told once when it is whole; and those that
// end the run.

import type { RootCause } from '../../protocol/run-event.ts';
import { FailureInquiry } from './failure.ts';

export class Losses {
  /** The first that was told. */
  first: RootCause | null = null;
  private readonly supervised: boolean;
  private readonly inquiries = new Map<string, FailureInquiry>();
  private readonly told = new Set<string>();
  private readonly fatal = new Set<string>();

  /** @param supervised a launcher tells how processes end */
  constructor(supervised: boolean) {
    this.supervised = supervised;
  }

  /** Where what is known of a loss is collected; `key`: a worker's id, or a pid where none has joined. */
  of(key: string, nowMs: number): FailureInquiry {
    const known = this.inquiries.get(key) ?? new FailureInquiry(nowMs, this.supervised);
    this.inquiries.set(key, known);
    return known;
  }

  isTold(key: string): boolean {
    return this.told.has(key);
  }

  /** This one ends the run, as soon as its story is whole. */
  condemn(key: string): void {
    this.fatal.add(key);
  }

  isFatal(key: string): boolean {
    return this.fatal.has(key);
  }

  /** True when the run is going to end by one of them. */
  get isEnding(): boolean {
    return this.fatal.size > 0;
  }

  /** True while a story is not whole. */
  get isOpen(): boolean {
    return this.inquiries.size > 0;
  }

  /** The stories that are whole by now, and the one that ends the run, if any. */
  conclude(nowMs: number): { readonly told: readonly RootCause[]; readonly fatal: RootCause | null } {
    const told: RootCause[] = [];
    for (const [key, inquiry] of this.inquiries) {
      const cause = inquiry.conclude(nowMs);
      if (cause === null) continue;
      this.inquiries.delete(key);
      this.told.add(key);
      if (this.fatal.has(key)) return { told, fatal: cause };
      this.first ??= cause;
      told.push(cause);
    }
    return { told, fatal: null };
  }
}
