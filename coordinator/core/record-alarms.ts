// A disk that is full or read-only is an alarm, not the end of training. What can't be written now, and since how many tries: said once
// when it begins and once when it is over, however often it is tried in between, and shown in the view for as long as it lasts.

import type { RecordPart } from '../../protocol/metrics.ts';
import type { RecordAlarm } from '../../protocol/run-view.ts';

const FILES: Readonly<Record<RecordPart, string>> = {
  checkpoint: 'a checkpoint',
  journal: 'journal.jsonl',
  metrics: 'metrics.jsonl',
  report: 'the report',
  model: 'model/',
  upload: "a checkpoint's copy in the object store",
  timeline: 'the timeline',
};

/** What becomes of what was to be written. */
const OUTLOOK: Readonly<Record<RecordPart, string>> = {
  checkpoint: 'training goes on, and the next one is tried when it is due',
  journal: 'training goes on, and its records wait for room',
  metrics: 'training goes on, and its lines wait for room',
  report: 'the account above is all there is',
  model: 'the checkpoints that were written are there',
  upload: 'the disk has it, and the next one is sent when it is due',
  timeline: 'training goes on, and its lines wait for room',
};

export class RecordAlarms {
  private readonly failing = new Map<RecordPart, { failures: number; because: string }>();

  /** A write failed. Returns the sentence to tell; null where it has been told. */
  failed(part: RecordPart, because: string): string | null {
    const before = this.failing.get(part);
    this.failing.set(part, { failures: (before?.failures ?? 0) + 1, because });
    return before === undefined ? `${FILES[part]} could not be written: ${because}; ${OUTLOOK[part]}` : null;
  }

  /** A write went well. Returns the sentence to tell; null where nothing was amiss. */
  written(part: RecordPart): string | null {
    const before = this.failing.get(part);
    this.failing.delete(part);
    if (before === undefined) return null;
    return `${FILES[part]} is written again, after ${before.failures} ${before.failures === 1 ? 'failure' : 'failures'}`;
  }

  get now(): readonly RecordAlarm[] {
    return [...this.failing].map(([part, { failures, because }]) => ({ part, failures, because }));
  }
}
