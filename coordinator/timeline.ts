// `--timeline FILE`: asks the workers for their spans and the time, and writes what they and the run tell (core/timeline.ts). A file that
// can't be written is an alarm, never the end of training.
//
// A question is asked of each worker four times a second, and the next not before it has answered: its engine may hold its thread for long.

import { hostname } from 'node:os';
import { LockstepError } from '../protocol/errors.ts';
import type { CoordinatorMessage, WorkerMessage } from '../protocol/messages.ts';
import { batchPlanOf, type RunConfig } from '../protocol/run-config.ts';
import type { RunEvent } from '../protocol/run-event.ts';
import type { Worker } from './core/worker.ts';
import { Timeline, type TracedWorker } from './core/timeline.ts';
import { openTimelineFile, type TimelineFile } from './record/timeline-file.ts';
import type { WriteObserver } from './record/retried-lines.ts';
import { bootOf } from './record/run-lock.ts';

/** What is asked for by flags. */
export interface TimelineWish {
  readonly file: string;
  /** Steps of which spans are written, and all that lies between. */
  readonly from: number;
  readonly to: number;
}

export interface TimelineOptions {
  readonly wish: TimelineWish;
  readonly config: RunConfig;
  readonly term: number;
  /** The run goes on, and with it its timeline. */
  readonly isResumed: boolean;
  readonly observe: WriteObserver;
  readonly warn: (message: string) => void;
  readonly workers: ReadonlyMap<string, Worker>;
  readonly send: (worker: string, message: CoordinatorMessage) => void;
  /** False once another coordinator has the run, and the file. */
  readonly isOurs: () => boolean;
}

export interface TimelineWriter {
  /** A worker said something; what is none of the timeline's is passed over. */
  heard(worker: string, message: WorkerMessage): void;
  tell(event: RunEvent): void;
  /** A generation is on record. */
  forms(generation: number, members: readonly string[], because: string): void;
  /** To be called now and then: workers are asked. */
  tick(): void;
  close(): Promise<void>;
}

/** Microseconds of the machine's monotonic clock, the same in all of its processes. */
const machineUs = (): number => Number(process.hrtime.bigint()) / 1000;

/** Throws E_USAGE for a file that a new run can't write, or that is no timeline of the run that goes on. Null: there is an alarm instead. */
export async function openTimeline(options: TimelineOptions): Promise<TimelineWriter | null> {
  const { wish, config, term, isResumed, observe, workers } = options;
  const boot = bootOf();
  const head = { run: config.run, begunAtUs: 1000 * Date.now(), zeroUs: machineUs(), boot };
  let file: TimelineFile;
  try {
    file = await openTimelineFile({ path: wish.file, head, isResumed, observe });
  } catch (error) {
    if (error instanceof LockstepError) throw error;
    const failure = error instanceof Error ? error : new Error(String(error));
    if (!isResumed) {
      throw new LockstepError('E_USAGE', `--timeline ${wish.file}: ${failure.message}`, {
        remedy: 'Give a file in a directory that can be written to.',
        cause: error,
      });
    }
    observe(failure);
    return null;
  }
  const { from, to } = wish;
  const timeline = new Timeline({
    term,
    host: hostname(),
    pid: process.pid,
    boot,
    plan: batchPlanOf(config),
    steps: config.steps,
    from,
    to,
    zeroUs: file.zeroUs,
  });
  let isFull = false;
  const write = (lines: readonly string[]): void => {
    if (isFull || !options.isOurs() || file.add(lines)) return;
    isFull = true;
    options.warn(
      `--timeline: ${wish.file} is as long as it may be; no more is written (--timeline-steps chooses steps)`,
    );
    for (const worker of workers.keys()) ask(worker);
  };
  /** When those were asked that have not answered. */
  const asked = new Map<string, number>();
  const ask = (worker: string): void => {
    const sentUs = machineUs();
    asked.set(worker, sentUs);
    options.send(worker, { kind: 'clock', sentUs, ...(isFull ? { from: 0, to: 0 } : { from, to }) });
  };
  const traced = (id: string): TracedWorker | null => {
    const worker = workers.get(id);
    if (worker === undefined) return null;
    const { host, pid, rank, rejoined } = worker;
    return { id, host, pid, rank, formerly: rejoined?.worker ?? null };
  };
  write(timeline.begin(machineUs()));
  return {
    heard: (id, message) => {
      const worker = traced(id);
      if (worker === null) return;
      const nowUs = machineUs();
      if (message.kind === 'hello') ask(id);
      // What was never asked has no answer.
      if (message.kind === 'clock' && asked.get(id) === message.sentUs) {
        asked.delete(id);
        write(timeline.clock(worker, message, nowUs));
      }
      if (message.kind === 'trace') write(timeline.trace(worker, message, nowUs));
    },
    tell: (event) => write(timeline.event(event, machineUs())),
    forms: (generation, members, because) => write(timeline.forms(generation, members, because, machineUs())),
    tick: () => {
      for (const [id, { isConnected, state }] of workers) {
        if (isConnected && state !== 'lost' && !asked.has(id) && !isFull) ask(id);
      }
    },
    close: async () => {
      if (!options.isOurs()) return file.abandon();
      const lines = timeline.end(machineUs());
      write(lines.slice(0, -1));
      // The observer has told of what the disk says.
      return file.close(lines.at(-1) ?? '').catch(() => {});
    },
  };
}
