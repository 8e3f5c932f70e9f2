// Whether all members hold the same weights: each says the digest of its own after certain steps, and the digests are compared here. They
// must be equal, so one that is not is a fault of somebody's memory, processor or library, found in the step in which it
// happens at the latest. Who is wrong is put to the vote; where there is no majority the vote can't tell, and says so.
//
// Cost: a map entry a member for each step that is being compared; members differ by a step or two, so these are few.

/** Steps under comparison at a time; beyond it the oldest is given up: somebody never reported it. */
export const MAX_OPEN_VOTES = 64;

export type Verdict =
  /** Not all members have said theirs. */
  | { readonly kind: 'open' }
  | { readonly kind: 'agreed'; readonly step: number; readonly digest: string }
  /** These members deviate; `digest` is the majority's, null where there is none: then all are named, and nobody is known to be right. */
  | {
      readonly kind: 'deviating';
      readonly step: number;
      readonly workers: readonly string[];
      readonly digest: string | null;
      readonly because: string;
    };

const shortened = (digest: string): string => digest.slice(0, 16);

export class DigestVotes {
  /** The last digest that all members had, and after how many steps. */
  agreed: { readonly step: number; readonly digest: string } | null = null;
  /** Steps whose votes were complete. */
  compared = 0;
  private readonly votes = new Map<number, Map<string, string>>();

  /** Takes what `worker` says of its weights after `step` steps; the verdict comes with the last of `members`. */
  accept(worker: string, step: number, digest: string, members: readonly string[]): Verdict {
    const votes = this.votes.get(step) ?? new Map<string, string>();
    votes.set(worker, digest);
    this.votes.set(step, votes);
    for (const oldest of this.votes.keys()) {
      if (this.votes.size <= MAX_OPEN_VOTES) break;
      this.votes.delete(oldest);
    }
    if (!members.every((member) => votes.has(member))) return { kind: 'open' };
    this.votes.delete(step);
    this.compared++;
    const cast = members.map((member) => ({ member, digest: votes.get(member) ?? '' }));
    const count = (wanted: string): number => cast.filter((vote) => vote.digest === wanted).length;
    const first = cast[0]?.digest ?? digest;
    if (count(first) === cast.length) {
      this.agreed = { step, digest: first };
      return { kind: 'agreed', step, digest: first };
    }
    const majority = cast.find((vote) => 2 * count(vote.digest) > cast.length)?.digest ?? null;
    const deviating = cast.filter((vote) => vote.digest !== majority);
    const said = deviating.map((vote) => `${vote.member} holds the weights ${shortened(vote.digest)}`).join(', ');
    const because =
      majority === null
        ? `after step ${step} ${said}: no majority, so who is right can't be told`
        : `after step ${step} ${said}, ${cast.length - deviating.length} of ${cast.length} members ${shortened(majority)}`;
    return { kind: 'deviating', step, workers: deviating.map((vote) => vote.member), digest: majority, because };
  }

  /** A new membership: what was said in the old one is not waited for. */
  clear(): void {
    this.votes.clear();
  }
}
