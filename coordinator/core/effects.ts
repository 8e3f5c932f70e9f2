// What the coordinator's core (run.ts) is told, and what it wants done about it.

import type { CoordinatorMessage, LinkTraffic, StepReport, WorkerMessage } from '../../protocol/messages.ts';
import type { RootCause, RunEvent } from '../../protocol/run-event.ts';
import type { Shares } from '../../protocol/shares.ts';
import type { ProcessEnd } from './failure.ts';
import type { ProgressRecord } from './progress.ts';
import type { ReplicaState } from './state-assembly.ts';

export type Input =
  | { readonly kind: 'message'; readonly worker: string; readonly message: WorkerMessage }
  | { readonly kind: 'disconnected'; readonly worker: string; readonly because: string }
  /** The launcher saw a worker process end. */
  | { readonly kind: 'process-ended'; readonly pid: number; readonly localRank: number; readonly end: ProcessEnd }
  | { readonly kind: 'stop-requested'; readonly because: string }
  /** Who starts workers on other hosts knows by now how many there will be. */
  | { readonly kind: 'workers-expected'; readonly workers: number }
  /** The coordinator itself can't go on: what it reaches its workers by is gone. */
  | {
      readonly kind: 'coordinator-failed';
      readonly host: string;
      readonly pid: number;
      readonly code: string;
      readonly message: string;
    }
  | {
      readonly kind: 'checkpoint-written';
      readonly step: number;
      readonly digest: string;
      readonly directory: string;
      readonly seconds: number;
    }
  | { readonly kind: 'checkpoint-failed'; readonly step: number; readonly because: string }
  /** Another coordinator has the run. */
  | { readonly kind: 'fenced'; readonly host: string; readonly pid: number; readonly because: string }
  | { readonly kind: 'tick' };

export type StepEvent = Extract<RunEvent, { kind: 'step' }>;

export type Outcome = 'done' | 'stopped' | 'failed';

export type Effect =
  | { readonly kind: 'send'; readonly worker: string; readonly message: CoordinatorMessage }
  /** Send the vectors of these names of a state, in parts. */
  | {
      readonly kind: 'send-state';
      readonly worker: string;
      readonly state: ReplicaState;
      readonly vectors: readonly string[];
    }
  /** Start a worker process anew in the place of the one that ended; `attempt`: which one since its last step, from 1. */
  | { readonly kind: 'start-worker'; readonly localRank: number; readonly attempt: number }
  /** End a worker process that does not hear any more. */
  | { readonly kind: 'end-worker'; readonly host: string; readonly localRank: number; readonly pid: number }
  | { readonly kind: 'disconnect'; readonly worker: string; readonly code: string; readonly because: string }
  | { readonly kind: 'tell'; readonly event: RunEvent }
  /** Put on record; `afterwards` is to be done once it is on disk. */
  | { readonly kind: 'journal'; readonly record: JournalEntry; readonly afterwards?: readonly Effect[] }
  | { readonly kind: 'worker-step'; readonly worker: string; readonly report: StepReport }
  /** What was measured of the steps after `step` may be of wrong bits: it goes from the metrics. */
  | { readonly kind: 'unmeasure'; readonly step: number }
  /** A step that was committed before is measured anew. */
  | { readonly kind: 'measure'; readonly event: StepEvent }
  /** What its links carried since its last report; `peer` is the worker at the other end. */
  | { readonly kind: 'worker-traffic'; readonly worker: string; readonly peer: string; readonly link: LinkTraffic }
  | {
      readonly kind: 'write-checkpoint';
      readonly state: ReplicaState;
      readonly progress: ProgressRecord;
      readonly final: boolean;
    }
  | { readonly kind: 'end'; readonly outcome: Outcome }
  /** Another coordinator has the run: end without a word to the workers, and write nothing more. */
  | { readonly kind: 'stand-aside' };

/** What the record keeps; the shell adds the time. */
export type JournalEntry =
  | {
      readonly kind: 'generation';
      readonly generation: number;
      readonly members: readonly string[];
      /** Microbatches by rank; none: evenly. */
      readonly shares?: Shares | undefined;
      readonly because: string;
    }
  /** All members are linked: they train on from the state after `step`. */
  | {
      readonly kind: 'begin';
      readonly generation: number;
      readonly step: number;
      readonly digest: string;
      /** What was done after that step may have had wrong bits, and is done again. */
      readonly distrusted?: boolean | undefined;
    }
  | { readonly kind: 'lost'; readonly worker: string; readonly step: number; readonly cause: RootCause }
  | {
      readonly kind: 'epoch';
      readonly step: number;
      readonly epoch: number;
      readonly digest: string;
      readonly loss: number;
      readonly testLoss: number | null;
      readonly testAccuracy: number | null;
    }
  | { readonly kind: 'checkpoint'; readonly step: number; readonly digest: string; readonly directory: string }
  /** Steps that are done, and of which nobody is left who could say what they were like and who did them. */
  | { readonly kind: 'unrecorded'; readonly from: number; readonly to: number }
  | { readonly kind: 'stopped'; readonly step: number; readonly because: string }
  | { readonly kind: 'finished'; readonly step: number; readonly digest: string }
  | { readonly kind: 'failed'; readonly step: number; readonly cause: RootCause };

export function stepEvent(report: StepReport, generation: number): StepEvent {
  return {
    kind: 'step',
    step: report.step,
    generation,
    loss: report.lossSum / report.samples,
    accuracy: report.correct / report.samples,
    gradientNorm: report.gradientNorm,
    samples: report.samples,
    seconds: report.seconds,
    phases: report.phases,
  };
}

export function unreported(from: number, to: number): Effect[] {
  const steps = from === to ? `step ${from}` : `steps ${from} to ${to}`;
  const message = `nobody is left who could report ${steps}: done, but not among the metrics`;
  return [
    { kind: 'tell', event: { kind: 'warning', message } },
    { kind: 'journal', record: { kind: 'unrecorded', from, to } },
  ];
}

export function ownFailure(failure: Pick<RootCause, 'host' | 'pid' | 'code' | 'message'>): RootCause {
  const { host, pid, code, message } = failure;
  const unknown = { rank: null, exitCode: null, signal: null, lastLines: [], logFile: null };
  return { ...unknown, who: 'coordinator', host, pid, code, message };
}
