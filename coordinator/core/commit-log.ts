// Commits for the journal, compactly: one record for each run of consecutive steps of one generation, not one a step. Who computed
// which microbatch of them is not written down: it follows from the generation's record (its members in the order of their ranks, and
// how they share; protocol/shares.ts). So the journal grows with time, about 150 bytes a second, not with steps or workers.
//
// A record waits a second at most, and never past what rests on it: a new generation, an epoch, a checkpoint, the end.

import type { Effect } from './effects.ts';

export interface CommitsEntry {
  readonly kind: 'commits';
  readonly generation: number;
  /** The steps from .. to, both of them done, counted from 1. */
  readonly from: number;
  readonly to: number;
  /** Of the weights after step `to`, where it is known by now. */
  readonly digest: string | null;
}

/** How long a commit waits for others to be recorded with it. */
export const COMMIT_WAIT_MS = 1000;

export type RecordedEffect =
  | Effect
  | { readonly kind: 'journal'; readonly record: CommitsEntry; readonly afterwards?: undefined };

export class CommitLog {
  private open: { readonly generation: number; readonly from: number; to: number; readonly sinceMs: number } | null =
    null;

  /** The core's effects in their order, with the records of commits before those that rest on them. `nowMs` is monotonic. */
  weave(effects: readonly Effect[], nowMs: number): RecordedEffect[] {
    const woven: RecordedEffect[] = [];
    const record = (entry: CommitsEntry | null): void => {
      if (entry !== null) woven.push({ kind: 'journal', record: entry });
    };
    for (const effect of effects) {
      if (effect.kind === 'tell' && effect.event.kind === 'step')
        record(this.commit(effect.event.step, effect.event.generation, nowMs));
      if (effect.kind === 'journal') record(this.close('digest' in effect.record ? effect.record : null));
      if (effect.kind === 'write-checkpoint') record(this.close(effect.state));
      if (effect.kind === 'end') record(this.close(null));
      woven.push(effect);
    }
    if (this.open !== null && nowMs - this.open.sinceMs >= COMMIT_WAIT_MS) record(this.close(null));
    return woven;
  }

  /** Returns the record of the commits before it that it does not follow on. */
  private commit(step: number, generation: number, nowMs: number): CommitsEntry | null {
    const { open } = this;
    if (open !== null && open.generation === generation && step === open.to + 1) {
      open.to = step;
      return null;
    }
    const before = this.close(null);
    this.open = { generation, from: step, to: step, sinceMs: nowMs };
    return before;
  }

  /** @param known what is known of the weights after some step */
  private close(known: { readonly step: number; readonly digest: string } | null): CommitsEntry | null {
    const { open } = this;
    if (open === null) return null;
    this.open = null;
    const { generation, from, to } = open;
    return { kind: 'commits', generation, from, to, digest: known?.step === to ? known.digest : null };
  }
}
