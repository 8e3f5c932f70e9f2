// A generation while it forms: its members link up and each says which step it has done and what its weights' digest is. When all
// have, it follows where they begin: with the most advanced member's state, or, where nobody has that any more, with the one that
// the coordinator kept. Members' weights after the same step must be the same; who has others is outvoted.

import type { CoordinatorMessage } from '../../protocol/messages.ts';
import type { Shares } from '../../protocol/shares.ts';

export type Source = Extract<CoordinatorMessage, { kind: 'begin' }>['source'];

export interface Beginning {
  readonly kind: 'begin';
  /** Steps done by the state that all begin with. */
  readonly step: number;
  readonly source: Source;
  readonly digest: string;
}

export type Decision =
  | Beginning
  /** These hold other weights than the majority after the same step. */
  | { readonly kind: 'deviants'; readonly workers: readonly string[]; readonly step: number }
  /** Their weights differ, and no majority says whose are right. */
  | { readonly kind: 'undecided'; readonly workers: readonly string[]; readonly step: number };

export interface Kept {
  readonly step: number;
  readonly digest: string;
}

interface Standing {
  readonly step: number;
  readonly digest: string;
}

export class Formation {
  readonly generation: number;
  /** Worker ids in the order of their ranks. */
  readonly members: readonly string[];
  readonly because: string;
  /** Too few to train: they keep their state and wait for more. */
  readonly hold: boolean;
  /** Microbatches by rank; null: evenly. */
  readonly shares: Shares | null;
  private readonly standings = new Map<string, Standing>();

  constructor(options: {
    readonly generation: number;
    readonly members: readonly string[];
    readonly because: string;
    readonly hold: boolean;
    readonly shares?: Shares | null;
  }) {
    this.generation = options.generation;
    this.members = options.members;
    this.because = options.because;
    this.hold = options.hold;
    this.shares = options.shares ?? null;
  }

  linked(worker: string, standing: Standing): void {
    if (this.members.includes(worker)) this.standings.set(worker, standing);
  }

  get isComplete(): boolean {
    return this.standings.size === this.members.length;
  }

  /**
   * @param kept the state that the coordinator has, if any
   * @param initialDigest of the seed's weights, before the first step
   * @param back the members' own states won't do: where gradients are compressed each has some of its own microbatches alone, which no
   *   other can take over, or one of them may be wrong. All go back to what was kept, or to the start
   */
  decide(kept: Kept | null, initialDigest: string, back: boolean): Decision {
    const step = Math.max(...[...this.standings.values()].map((standing) => standing.step));
    if (kept !== null && (kept.step > step || (back && step > 0))) {
      return { kind: 'begin', step: kept.step, source: { kind: 'coordinator' }, digest: kept.digest };
    }
    if (back && step > 0) return { kind: 'begin', step: 0, source: { kind: 'start' }, digest: initialDigest };
    const advanced = this.members.filter((id) => this.standings.get(id)?.step === step);
    const digestOf = (id: string): string => this.standings.get(id)?.digest ?? '';
    const digests = [...new Set(advanced.map(digestOf))];
    const votes = digests.map((digest) => advanced.filter((id) => digestOf(id) === digest));
    const [largest = []] = votes.toSorted((a, b) => b.length - a.length);
    if (votes.length > 1) {
      if (2 * largest.length <= advanced.length) return { kind: 'undecided', workers: advanced, step };
      return { kind: 'deviants', workers: advanced.filter((id) => !largest.includes(id)), step };
    }
    const rank = this.members.indexOf(advanced[0] ?? '');
    const isEverybodyThere = advanced.length === this.members.length;
    const source: Source = isEverybodyThere ? { kind: 'held' } : { kind: 'rank', rank };
    return { kind: 'begin', step, source, digest: digestOf(advanced[0] ?? '') };
  }
}
