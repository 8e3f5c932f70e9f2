// What happened to a run's members, from its journal: who began, who was lost and why, who went on, what was kept. Pure.

import type { RunStory } from '../../coordinator/main.ts';
import { counted, percent } from '../terminal/text.ts';

export interface StoryEvent {
  /** Unix time in milliseconds. */
  readonly at: number;
  /** Steps done by then; null where the record does not say. */
  readonly step: number | null;
  readonly what: string;
  readonly detail: string;
}

type StoryRecord = RunStory['records'][number];

export function eventsOf(records: readonly StoryRecord[]): StoryEvent[] {
  const generations = new Map<number, Extract<StoryRecord, { kind: 'generation' }>>();
  return records.flatMap((record): StoryEvent[] => {
    const event = (step: number | null, what: string, detail: string): StoryEvent[] => [
      { at: Date.parse(record.t), step, what, detail },
    ];
    switch (record.kind) {
      case 'run':
        return record.resumedFromStep === null
          ? event(null, 'a coordinator begins', '')
          : event(
              record.resumedFromStep,
              'a coordinator goes on',
              'from the last checkpoint, or from what its workers hold',
            );
      case 'generation':
        generations.set(record.generation, record);
        return [];
      case 'begin': {
        const formed = generations.get(record.generation);
        const members = formed?.members ?? [];
        const wrong =
          record.distrusted === true ? 'what came after this step is done again: somebody had wrong bits; ' : '';
        return event(
          record.step,
          `generation ${record.generation}: ${counted(members.length, 'worker')}`,
          `${wrong}${members.join(', ')}${formed === undefined ? '' : ` (${formed.because})`}`,
        );
      }
      case 'lost': {
        const { cause } = record;
        const code = cause.code === null ? '' : `${cause.code}: `;
        return event(record.step, `${record.worker} is lost`, `${code}${cause.message}`);
      }
      case 'epoch': {
        const tested = record.testAccuracy === null ? '' : `, test accuracy ${percent(record.testAccuracy)}`;
        const loss = record.loss === null ? 'no number' : record.loss.toFixed(4);
        return event(record.step, `epoch ${record.epoch} ends`, `loss ${loss}${tested}`);
      }
      case 'checkpoint':
        return event(record.step, 'a checkpoint', record.digest.slice(0, 16));
      case 'stopped':
        return event(record.step, 'stopped', record.because);
      case 'finished':
        return event(record.step, 'done', record.digest.slice(0, 16));
      case 'failed':
        return event(record.step, 'failed', record.cause.message);
      case 'unrecorded':
        return event(
          record.to,
          'steps without a record',
          `who did the steps ${record.from} to ${record.to} is gone, and the coordinator that knew of them`,
        );
      case 'commits':
        return [];
    }
  });
}
