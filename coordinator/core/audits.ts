// Whether a microbatch's gradient has the same bits when another worker computes it: its owner and its auditor each report the digest
// of what they got, and the pairs are compared here. A pair that differs is a case with two suspects. Who of them it was is told by a third:
// one whose results differ from those of two others is the culprit. Where no third tells in time, both stay suspects.
//
// An owner's wrong gradient is in everybody's weights by then: what was trained from that step on can't be trusted. Digests of the weights
// (digest-votes.ts) can't see it, since all have the same wrong ones.
//
// Cost: a map entry for each audited microbatch of the last step or two.

/** Pairs that wait for their other half; beyond them the oldest is given up. */
export const MAX_OPEN_PAIRS = 1024;
/** Steps that a case waits for a third worker to tell. */
export const CASE_STEPS = 16;

export interface Finding {
  readonly microbatch: number;
  readonly digest: string;
  readonly as: 'owner' | 'auditor';
}

/** A concluded case. */
export interface Mismatch {
  readonly step: number;
  readonly microbatch: number;
  readonly owner: string;
  readonly auditor: string;
  /** Null where it can't be told which of the two. */
  readonly culprit: string | null;
  readonly because: string;
}

interface Half {
  readonly worker: string;
  readonly digest: string;
}

interface Case {
  readonly step: number;
  readonly microbatch: number;
  readonly owner: Half;
  readonly auditor: Half;
}

export class Audits {
  /** Pairs that were compared. */
  compared = 0;
  private readonly pairs = new Map<string, { owner?: Half; auditor?: Half }>();
  /** By worker, the others whose results differed from its own. */
  private readonly accusers = new Map<string, Set<string>>();
  private cases: Case[] = [];

  /**
   * Takes what `worker` found in its step `step`; call it with every report, also one without findings. Returns the cases that are
   * concluded by it: decided, or not to be decided any more.
   */
  accept(worker: string, step: number, findings: readonly Finding[], members: readonly string[]): Mismatch[] {
    for (const { microbatch, digest, as } of findings) {
      const key = `${step}/${microbatch}`;
      const pair = this.pairs.get(key) ?? {};
      pair[as] = { worker, digest };
      this.pairs.set(key, pair);
      if (pair.owner !== undefined && pair.auditor !== undefined) {
        this.pairs.delete(key);
        this.compare({ step, microbatch, owner: pair.owner, auditor: pair.auditor });
      }
    }
    for (const oldest of this.pairs.keys()) {
      if (this.pairs.size <= MAX_OPEN_PAIRS) break;
      this.pairs.delete(oldest);
    }
    return this.conclude(step, members.length);
  }

  /** A new membership: halves of the old one are not waited for. What is known of workers stays. */
  clear(): void {
    this.pairs.clear();
  }

  private compare(found: Case): void {
    this.compared++;
    const [owner, auditor] = [found.owner.worker, found.auditor.worker];
    if (found.owner.digest === found.auditor.digest || owner === auditor) return;
    this.accusers.set(owner, (this.accusers.get(owner) ?? new Set()).add(auditor));
    this.accusers.set(auditor, (this.accusers.get(auditor) ?? new Set()).add(owner));
    this.cases.push(found);
  }

  private conclude(step: number, members: number): Mismatch[] {
    const concluded: Mismatch[] = [];
    const open: Case[] = [];
    const told = new Set<string>();
    for (const one of this.cases) {
      const culprit = this.culpritOf(one);
      const isUndecidable = members < 3 || step > one.step + CASE_STEPS;
      if (culprit === null && !isUndecidable) open.push(one);
      // A culprit's further cases say nothing new.
      else if (culprit === null || !told.has(culprit)) concluded.push(concludedCase(one, culprit));
      if (culprit !== null) told.add(culprit);
    }
    this.cases = open;
    return concluded;
  }

  private culpritOf({ owner, auditor }: Case): string | null {
    const isAccused = (worker: string): boolean => (this.accusers.get(worker)?.size ?? 0) > 1;
    const suspects = [owner.worker, auditor.worker].filter(isAccused);
    return suspects.length === 1 ? (suspects[0] ?? null) : null;
  }
}

function concludedCase({ step, microbatch, owner, auditor }: Case, culprit: string | null): Mismatch {
  const digests = `${owner.worker} ${owner.digest.slice(0, 16)}, ${auditor.worker} ${auditor.digest.slice(0, 16)}`;
  const who =
    culprit === null
      ? "which of them is wrong can't be told"
      : `${culprit} is wrong: its results differ from those of two others`;
  const because = `microbatch ${microbatch} of step ${step} has other bits when it is computed again (${digests}); ${who}; the weights since that step can't be trusted`;
  return { step, microbatch, owner: owner.worker, auditor: auditor.worker, culprit, because };
}
