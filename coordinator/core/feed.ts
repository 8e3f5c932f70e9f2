// What a page is told of a run, and what of it is new to a page that has seen some of it. Not a log that a slow page falls behind
// in: it holds the present state, each part with the revision in which it changed, and answers with the difference. So a page that is
// late, was cut off or has skipped a hundred revisions gets one message, and nobody's backlog is kept. Bounded: POINTS_MAX points,
// HAPPENINGS_MAX happenings, the run's epochs, LOST_SHOWN of the workers that are gone.

import type { RunEvent } from '../../protocol/run-event.ts';
import type { EpochReport } from '../../protocol/report.ts';
import type { RunView } from '../../protocol/run-view.ts';
import { Curve, type CurvePart, type CurveStep } from './curve.ts';
import { Happenings, type Happening, type Recorded } from './happenings.ts';

/** Workers that are lost are in the happenings; of these the list itself has the last ones. */
const LOST_SHOWN = 2;

export interface News {
  /** The present, without what has a part of its own below. */
  readonly view: Omit<RunView, 'byEpoch'>;
  /** Null when nothing changed; so for the others. */
  readonly curve: CurvePart | null;
  /** Epochs from the `from`-th (from 0) on; what was there from it on is no more. */
  readonly epochs: { readonly from: number; readonly reports: readonly EpochReport[] } | null;
  readonly happenings: readonly Happening[];
}

export class Feed {
  private readonly curve = new Curve();
  private readonly happenings = new Happenings();
  private epochs: { readonly report: EpochReport; readonly revision: number }[] = [];
  /** When there were last fewer epochs than before. */
  private epochsCutAt = 0;
  /** What changes now is of this revision; who has it has seen all that changed before `next`. */
  private revision = 1;

  /** `t`: milliseconds since 1970. */
  observe(event: RunEvent, t: number): void {
    this.happenings.observe(event, t, this.revision);
    if (event.kind === 'step') this.curve.add(event, this.revision);
  }

  /** Steps and records of the run before this process. */
  recallStep(step: CurveStep): void {
    this.curve.add(step, this.revision);
  }
  recall(record: Recorded, t: number): void {
    this.happenings.recall(record, t, this.revision);
  }

  /** Ends the present revision: what changes from now on is news to who has seen it. Returns its number. */
  next(view: Pick<RunView, 'byEpoch'>): number {
    const { byEpoch } = view;
    if (byEpoch.length < this.epochs.length) this.epochsCutAt = this.revision;
    this.epochs = byEpoch.map((report, i) => {
      const known = this.epochs[i];
      return known?.report === report ? known : { report, revision: this.revision };
    });
    return this.revision++;
  }

  /** What is new to who has seen revision `seen`; 0: everything. */
  since(seen: number, view: RunView): News {
    const { byEpoch: _, ...present } = view;
    const lost = view.workers.filter(({ state }) => state === 'lost').slice(-LOST_SHOWN);
    const workers = [...view.workers.filter(({ state }) => state !== 'lost'), ...lost];
    const changed = this.epochs.findIndex(({ revision }) => revision > seen);
    const from = seen < this.epochsCutAt ? 0 : changed;
    return {
      view: { ...present, workers },
      curve: this.curve.since(seen),
      epochs: from === -1 ? null : { from, reports: this.epochs.slice(from).map(({ report }) => report) },
      happenings: this.happenings.since(seen),
    };
  }
}
