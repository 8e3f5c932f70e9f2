// What happened to the run and to its members, as sentences for people who watch: who joined, who was lost and why, which generation
// trains, what went wrong. The newest HAPPENINGS_MAX are kept, so that a run in which somebody dies every minute does not grow; how
// many older ones there were is known. Steps, epochs and checkpoints are no happenings: they have their curve and their table.

import type { RootCause, RunEvent } from '../../protocol/run-event.ts';

export const HAPPENINGS_MAX = 200;

export type HappeningKind =
  | 'began'
  | 'joined'
  | 'lost'
  | 'refused'
  | 'generation'
  | 'waiting'
  | 'mismatch'
  | 'warning'
  | 'resumed'
  | 'stopping'
  | 'failed'
  | 'finished';

export interface Happening {
  /** Numbered from 1 in the order in which they came. */
  readonly id: number;
  /** Milliseconds since 1970. */
  readonly t: number;
  readonly kind: HappeningKind;
  /** Steps done by then. */
  readonly step: number;
  /** Whom it is about; null for the run as a whole. */
  readonly worker: string | null;
  readonly text: string;
}

/** A record of the journal: what of it people may be told. */
export type Recorded =
  | { readonly kind: 'run'; readonly resumedFromStep: number | null }
  | {
      readonly kind: 'generation';
      readonly generation: number;
      readonly members: readonly string[];
      readonly because: string;
    }
  | { readonly kind: 'lost'; readonly worker: string; readonly step: number; readonly cause: RootCause }
  | { readonly kind: 'stopped'; readonly step: number; readonly because: string }
  | { readonly kind: 'finished'; readonly step: number }
  | { readonly kind: 'failed'; readonly step: number; readonly cause: RootCause }
  | { readonly kind: 'begin' | 'epoch' | 'checkpoint'; readonly step: number }
  | { readonly kind: 'commits' | 'unrecorded'; readonly to: number };

type Told = Pick<Happening, 'kind' | 'worker' | 'text'>;

const workersText = (count: number): string => `${count} ${count === 1 ? 'worker' : 'workers'}`;
const lossOf = ({ who, message, host }: RootCause): string => `${who} on ${host}: ${message}`;

/** Null for what is no happening. */
function toldOf(event: RunEvent): Told | null {
  switch (event.kind) {
    case 'listening':
      return { kind: 'began', worker: null, text: `The coordinator listens at ${event.url}.` };
    case 'resumed':
      return { kind: 'resumed', worker: null, text: `Goes on from the state after step ${event.step}.` };
    case 'warning':
      return { kind: 'warning', worker: null, text: event.message };
    case 'worker-joined':
      return { kind: 'joined', worker: event.worker, text: `${event.worker} on ${event.host}, process ${event.pid}` };
    case 'worker-refused':
      return { kind: 'refused', worker: event.worker, text: `${event.worker}: ${event.because} (${event.code})` };
    case 'worker-lost':
      return { kind: 'lost', worker: event.cause.who, text: lossOf(event.cause) };
    case 'generation': {
      const spares = event.spares === 0 ? '' : ` and ${event.spares} spare`;
      const who = `${workersText(event.worldSize)}${spares}`;
      return { kind: 'generation', worker: null, text: `Generation ${event.generation} of ${who}: ${event.because}` };
    }
    case 'waiting':
      return { kind: 'waiting', worker: null, text: event.because };
    case 'mismatch':
      return { kind: 'mismatch', worker: event.workers[0] ?? null, text: event.because };
    case 'stopping':
      return { kind: 'stopping', worker: null, text: event.because };
    case 'failed':
      return { kind: 'failed', worker: event.cause.who, text: lossOf(event.cause) };
    case 'finished': {
      const { state, steps, digest } = event.report;
      const weights = digest === null ? '' : `; the digest of its weights is ${digest}`;
      return { kind: 'finished', worker: null, text: `The run is ${state} after ${steps} steps${weights}.` };
    }
    case 'worker-ready':
    case 'step':
    case 'epoch':
    case 'checkpoint':
      return null;
  }
}

function recordedTold(record: Recorded): Told | null {
  switch (record.kind) {
    case 'run': {
      const { resumedFromStep: step } = record;
      const text = step === null ? 'A coordinator began the run.' : `A coordinator went on from step ${step}.`;
      return { kind: 'began', worker: null, text };
    }
    case 'generation': {
      const who = workersText(record.members.length);
      return { kind: 'generation', worker: null, text: `Generation ${record.generation} of ${who}: ${record.because}` };
    }
    case 'lost':
      return { kind: 'lost', worker: record.worker, text: lossOf(record.cause) };
    case 'stopped':
      return { kind: 'stopping', worker: null, text: record.because };
    case 'finished':
      return { kind: 'finished', worker: null, text: `The run was done after ${record.step} steps.` };
    case 'failed':
      return { kind: 'failed', worker: record.cause.who, text: lossOf(record.cause) };
    case 'begin':
    case 'epoch':
    case 'checkpoint':
    case 'commits':
    case 'unrecorded':
      return null;
  }
}

export class Happenings {
  private readonly kept: { readonly happening: Happening; readonly revision: number }[] = [];
  private count = 0;
  private step = 0;

  observe(event: RunEvent, t: number, revision: number): void {
    if (event.kind === 'step') this.step = event.step;
    if (event.kind === 'resumed') this.step = event.step;
    this.keep(toldOf(event), t, revision);
  }

  /** What a coordinator before this one put on record at `t`. */
  recall(record: Recorded, t: number, revision: number): void {
    if (record.kind === 'commits' || record.kind === 'unrecorded') this.step = record.to;
    else if (record.kind === 'run') this.step = record.resumedFromStep ?? 0;
    else if ('step' in record) this.step = record.step;
    this.keep(recordedTold(record), t, revision);
  }

  private keep(told: Told | null, t: number, revision: number): void {
    if (told === null) return;
    this.kept.push({ happening: { id: ++this.count, t, step: this.step, ...told }, revision });
    if (this.kept.length > HAPPENINGS_MAX) this.kept.shift();
  }

  /** Those that came after revision `seen`, oldest first. */
  since(seen: number): Happening[] {
    return this.kept.filter(({ revision }) => revision > seen).map(({ happening }) => happening);
  }
}
