// A worker as the coordinator sees it. Pure.

import type { WorkerMessage } from '../../protocol/messages.ts';
import type { WorkerState } from '../../protocol/metrics.ts';
import type { ReadyMessage } from './admission.ts';
import type { StepTimes } from './step-times.ts';

/** Of a worker that is back, before its first report. */
export const UNKNOWN_STEP = -1;

export interface Worker {
  readonly id: string;
  host: string;
  pid: number;
  localRank: number | null;
  state: WorkerState;
  /** In the generation that is present or forms; null for a spare, a newcomer, and who is lost. */
  rank: number | null;
  /** The last rank that it had, for the account of the run. */
  lastRank: number | null;
  isConnected: boolean;
  /** The last generation that began with it. */
  generation: number;
  /** It came back from another coordinator, or from having been lost; what it stood at then. Null for a newcomer. */
  readonly rejoined: NonNullable<Extract<WorkerMessage, { kind: 'hello' }>['rejoin']> | null;
  ready: ReadyMessage | null;
  /** Steps done, by its last report. */
  step: number;
  rssBytes: number | null;
  peakRssBytes: number | null;
  finishedDigest: string | null;
  readonly times: StepTimes;
}

/** What a worker repeats that came back it says before it is ready. */
export function isOfBefore({ ready, rejoined }: Worker, generation: number): boolean {
  return ready === null && rejoined !== null && generation < rejoined.generation;
}

/** Of workers that have been in a generation before: all of them; those of the newest that any of them was in, and how many that had. */
export function returnedOf(workers: readonly Worker[]): {
  back: readonly NonNullable<Worker['rejoined']>[];
  together: readonly NonNullable<Worker['rejoined']>[];
  wereTogether: number;
} {
  const back = workers.flatMap((w) => w.rejoined ?? []).filter(({ generation }) => generation > 0);
  const newest = Math.max(...back.map(({ generation }) => generation));
  const together = back.filter(({ generation }) => generation === newest);
  return { back, together, wereTogether: together[0]?.worldSize ?? 0 };
}

export function byLocalRank(a: Worker, b: Worker): number {
  return (a.localRank ?? Infinity) - (b.localRank ?? Infinity) || a.id.localeCompare(b.id, 'en', { numeric: true });
}

/** Those of one host follow one another, so that each host's microbatches are one range. */
export function byHost(workers: readonly Worker[]): Worker[] {
  const hosts = [...new Set(workers.map((w) => w.host))];
  return hosts.flatMap((host) => workers.filter((w) => w.host === host));
}
