// Two coordinators of one run: when one does not answer (stopped, cut off, a disk that hangs) another takes the run over, and the first may
// wake at any moment, in the middle of anything. So each coordinator has a *term*, a number that no other has, on record before it does
// anything; the highest has the run, and an older one finds itself fenced off:
//
// - It looks for a higher term before it acts on anything after a silence of its own, after each record that it has written and before
//   what follows from that, and before each file that it puts in its place (main.ts).
// - The successor claims its term first and reads the journal then. So a generation that an older one has told of is on the record that
//   the successor knows, and no number is used twice; one that is recorded after the claim is told to nobody.
// - Files that an older one may have open are replaced by copies: what it still appends, in the instant between a look and a write, goes
//   where nobody reads.
// - Workers name the highest term that they have joined, and join none below it.
//
// A core: what there is to see comes in as a function. Cost: a directory listing (some 20 us) where there is a sync anyhow, and five times
// a second.

/** Who has claimed a higher term. */
export interface Successor {
  readonly term: number;
  readonly host: string;
  readonly pid: number;
}

/** Between two things that happen it is not looked more often: who was stopped for less was not replaced. */
export const LOOK_EVERY_MS = 200;

export class Fence {
  private readonly look: () => Successor | null;
  private lookedAtMs = -Infinity;

  /** @param look the holder of a term above one's own; null: there is none */
  constructor(look: () => Successor | null) {
    this.look = look;
  }

  /** Before anything that happens is acted on. */
  whenDue(nowMs: number): Successor | null {
    return nowMs - this.lookedAtMs < LOOK_EVERY_MS ? null : this.now(nowMs);
  }

  /** Before what can't be undone. */
  now(nowMs: number): Successor | null {
    this.lookedAtMs = nowMs;
    return this.look();
  }
}

/** What the one that was replaced says of itself. */
export function fencedBecause({ term, host, pid }: Successor, own: number): string {
  return `this coordinator did not answer, and another has the run: process ${pid} on ${host} (term ${term}; this one had ${own})`;
}
