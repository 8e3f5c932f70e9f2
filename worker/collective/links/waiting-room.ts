// Peers that have called, and ranks that are waited for: a caller may be there before this worker has heard of the generation that it names.
//
// Any worker of the run may call. That one is the rank that it says is shown by a key that only the two ranks of that generation have; so a call
// is taken for what it says until it is claimed, and then the key decides. Several may wait in the place of one rank: who lies is no hindrance to
// who comes after it. Where no keys are given (a run without a token) the first to call is the one.

import type { Link } from '../../../protocol/link.ts';

/** Which rank of which generation calls, or is waited for. */
export interface PeerAddress {
  readonly generation: number;
  readonly rank: number;
}

/** Callers that wait to be claimed by the generation that they name; and of those, in the place of one rank. */
const MAX_WAITING = 256;
const MAX_RIVALS = 4;
/** Places that are remembered as taken. */
const MAX_TAKEN = 4096;

/** Tells by the key of two ranks whether a caller has shown that it has it. */
export type PairCheck = (pairKey: string) => boolean;

export type Place =
  | { readonly kind: 'free'; take(link: Link): void }
  | {
      readonly kind: 'refused';
      readonly status: '401 Unauthorized' | '409 Conflict';
      readonly code: 'E_UNAUTHORIZED' | 'E_PROTOCOL' | 'E_TOO_MANY';
    };

interface Waiting {
  readonly link: Link;
  readonly check: PairCheck | null;
}

interface Claim {
  readonly pairKey: string | null;
  readonly resolve: (link: Link) => void;
}

const nameOf = ({ generation, rank }: PeerAddress): string => `${generation}/${rank}`;

/** A caller without a key is the one only where none is asked for. */
function isRight(check: PairCheck | null, pairKey: string | null): boolean {
  return pairKey === null || check?.(pairKey) === true;
}

export class WaitingRoom {
  private readonly waiting = new Map<string, Waiting[]>();
  private readonly claims = new Map<string, Claim>();
  private readonly taken = new Set<string>();
  private readonly onRefused: (code: string) => void;

  constructor(onRefused: (code: string) => void) {
    this.onRefused = onRefused;
  }

  /** The place of a caller. @param check null: it shows nothing */
  placeOf(peer: PeerAddress, check: PairCheck | null): Place {
    const name = nameOf(peer);
    const claim = this.claims.get(name);
    if (claim !== undefined) {
      if (!isRight(check, claim.pairKey))
        return { kind: 'refused', status: '401 Unauthorized', code: 'E_UNAUTHORIZED' };
      return {
        kind: 'free',
        take: (link) => {
          this.claims.delete(name);
          this.remember(name);
          claim.resolve(link);
        },
      };
    }
    const rivals = this.waiting.get(name)?.length ?? 0;
    if (this.taken.has(name) || rivals >= (check === null ? 1 : MAX_RIVALS)) {
      return { kind: 'refused', status: '409 Conflict', code: 'E_PROTOCOL' };
    }
    const all = [...this.waiting.values()].reduce((sum, some) => sum + some.length, 0);
    if (all >= MAX_WAITING) return { kind: 'refused', status: '409 Conflict', code: 'E_TOO_MANY' };
    return { kind: 'free', take: (link) => this.seat(name, { link, check }) };
  }

  /** The link of a rank, now or when it comes. @param pairKey null: whoever comes */
  async accept(peer: PeerAddress, pairKey: string | null): Promise<Link> {
    const name = nameOf(peer);
    const all = this.waiting.get(name) ?? [];
    this.waiting.delete(name);
    const right = all.find(({ check }) => isRight(check, pairKey));
    for (const one of all) {
      if (one === right) continue;
      if (pairKey !== null && !isRight(one.check, pairKey)) this.onRefused('E_UNAUTHORIZED');
      // Without a goodbye: who lies may not read it, and would keep the connection.
      one.link.cut();
    }
    if (right !== undefined) {
      this.remember(name);
      return right.link;
    }
    return new Promise((resolve) => {
      this.claims.set(name, { pairKey, resolve });
    });
  }

  close(because: string): void {
    for (const { link } of [...this.waiting.values()].flat()) link.close(because);
  }

  private seat(name: string, one: Waiting): void {
    this.waiting.set(name, [...(this.waiting.get(name) ?? []), one]);
    // Who called in vain has given up: a generation that never began.
    void one.link.closed.then(() => {
      const left = (this.waiting.get(name) ?? []).filter((other) => other !== one);
      if (left.length === 0) this.waiting.delete(name);
      else this.waiting.set(name, left);
    });
  }

  private remember(name: string): void {
    this.taken.add(name);
    const [oldest] = this.taken;
    if (this.taken.size > MAX_TAKEN && oldest !== undefined) this.taken.delete(oldest);
  }
}
