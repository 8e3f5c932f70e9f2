// When a second coordinator in stand-by takes over. The leader writes its lease, a key of the NATS server's store, twice a second; whoever
// stands by looks at it as often. What tells that the leader lives is that the lease's revision has changed since the last look, and how
// long it has not is measured by the observer's own monotonic clock: no clocks are compared, and a stand-by that was stopped itself calls
// nobody dead (protocol/silence.ts). The limit adapts to what was seen of this leader.
//
// A look that failed is none: while JetStream elects a leader of its own nobody can write, and nobody is to blame. Taking over is the
// shell's: it asks the leader by its name first (nats/rivals.ts), and then claims the next term, which only one can (core/fence.ts).
//
// A core: looks and `now` come in.

import { BEAT_EVERY_MS, BUSY_SILENCE } from '../../protocol/heartbeat.ts';
import { Silence, type SilenceLimits } from '../../protocol/silence.ts';
import type { Successor } from './fence.ts';
import type { Outcome } from './effects.ts';

/** Between two writes of the leader, and two looks of who stands by. */
export const LEASE_EVERY_MS = BEAT_EVERY_MS;
/** From 5 s, which is longer than a disk or a busy core holds a coordinator up, to 30 s. */
const LEASE_SILENCE: SilenceLimits = BUSY_SILENCE;

/** A lease as it was read. */
export interface SeenLease {
  readonly revision: number;
  readonly holder: Successor;
  /** How its holder has ended the run; null: it goes on. */
  readonly over: Outcome | null;
}

export type Standing =
  /** No coordinator has begun the run yet. */
  | { readonly kind: 'nobody' }
  | { readonly kind: 'led'; readonly by: Successor }
  | { readonly kind: 'silent'; readonly by: Successor; readonly because: string }
  | { readonly kind: 'over'; readonly outcome: Outcome };

export class LeaseWatch {
  private seen: { readonly lease: SeenLease; readonly silence: Silence } | null = null;

  /** What a look at the lease says; null: there is none. */
  look(lease: SeenLease | null, nowMs: number): Standing {
    if (lease === null) {
      this.seen = null;
      return { kind: 'nobody' };
    }
    const { holder, over } = lease;
    if (over !== null) return { kind: 'over', outcome: over };
    if (this.seen?.lease.holder.term !== holder.term) {
      // Another leader, of whom nothing is known yet.
      this.seen = { lease, silence: new Silence(LEASE_SILENCE, nowMs) };
      return { kind: 'led', by: holder };
    }
    const { silence } = this.seen;
    if (this.seen.lease.revision !== lease.revision) {
      silence.heard(nowMs);
      this.seen = { lease, silence };
    }
    if (!silence.isSilent(nowMs)) return { kind: 'led', by: holder };
    return { kind: 'silent', by: holder, because: silence.complaint(nowMs) };
  }
}
