// The timeline of a run as lines of a Chrome trace (chrome-trace.ts): what each worker's threads did, and above it the coordinator's
// generations, losses, checkpoints and evaluations. A process is a worker or a coordinator; a row is one of its threads, or a bucket on its
// way. No clock here.
//
// A worker's spans wait until its clock is known (aligned-clock.ts). A coordinator that follows another is a process of its own, and so is a
// worker that joins it: under the name that it has there. Cost: some 120 bytes a span.

import type { BatchPlan } from '../../protocol/batch-plan.ts';
import type { TraceMessage, WorkerMessage } from '../../protocol/messages.ts';
import { isEvaluatedAfter } from '../../protocol/milestones.ts';
import type { RunEvent } from '../../protocol/run-event.ts';
import { MAX_TRACED_BUCKETS, spansOf, type Span, type SpanKind } from '../../protocol/timeline.ts';
import { AlignedClock } from './aligned-clock.ts';
import { TraceLines, type Args, type Row } from './chrome-trace.ts';

/** Coordinators' processes have their terms for numbers, from 1; workers' follow. */
const FIRST_WORKER = 1000;
/** The numbers of a process's rows begin with its own: none has another's. */
const ROWS = 1000;
const ROW = { events: 0, generations: 1, checkpoints: 2, evaluations: 3, engine: 1, buckets: 10 } as const;
/** Messages that may wait for a worker's clock. */
const MAX_HELD = 600;
/** What a clock's uncertainty changes by before it is said again. */
const TOLD_AGAIN = 2;

/** How a span is called, and what its detail is. */
const LABELS: Readonly<Record<SpanKind, { readonly name: string; readonly detail?: string; readonly on?: 'bucket' }>> =
  {
    step: { name: 'step' },
    data: { name: 'data', detail: 'microbatch' },
    slot: { name: 'wait for a slot', detail: 'microbatch' },
    compute: { name: 'forward/backward', detail: 'microbatch' },
    audit: { name: 'audit' },
    allreduce: { name: 'all-reduce' },
    wait: { name: 'wait for peers', detail: 'preparedUs' },
    exchange: { name: 'exchange' },
    apply: { name: 'apply' },
    digest: { name: 'digest' },
    evaluate: { name: 'evaluate' },
    keep: { name: 'send state' },
    link: { name: 'link up' },
    begin: { name: 'wait to begin' },
    state: { name: 'take state' },
    bucket: { name: 'bucket', detail: 'bucket', on: 'bucket' },
    send: { name: 'send', detail: 'bucket', on: 'bucket' },
    sum: { name: 'sum', detail: 'bucket', on: 'bucket' },
    gather: { name: 'gather', detail: 'bucket', on: 'bucket' },
  };

/** A worker as its process in the trace is called. */
export interface TracedWorker {
  readonly id: string;
  readonly host: string;
  readonly pid: number;
  readonly rank: number | null;
  /** Its name with the coordinator before; null: it had none. */
  readonly formerly: string | null;
}

/** What is known of a worker's process. */
interface Process {
  readonly clock: AlignedClock;
  held: TraceMessage[];
  lost: number;
  name: string;
  readonly rows: Set<number>;
  /** Null: nothing was told yet. */
  toldUncertaintyUs: number | null;
}

export interface TimelineOptions {
  /** Of this coordinator. */
  readonly term: number;
  readonly host: string;
  readonly pid: number;
  readonly boot: string | null;
  readonly plan: BatchPlan;
  /** Of the run. */
  readonly steps: number;
  /** Whose losses are shown. */
  readonly from: number;
  readonly to: number;
  /** Of this machine's clock, in microseconds: 0 in the trace. */
  readonly zeroUs: number;
}

/** Each method returns the lines that are due, in order; `nowUs` is this machine's clock, in microseconds. */
export class Timeline {
  private readonly options: TimelineOptions;
  private readonly lines: TraceLines;
  private readonly processes = new Map<string, Process>();
  private generation: { readonly name: string; readonly sinceUs: number; readonly args: Args } | null = null;
  private evaluatedSinceUs: number | null = null;

  constructor(options: TimelineOptions) {
    this.options = options;
    this.lines = new TraceLines(options.zeroUs);
  }

  begin(nowUs: number): string[] {
    const { term, host, pid } = this.options;
    const { lines } = this;
    return [
      ...lines.process(term, `coordinator ${term}, process ${pid} on ${host}`),
      ...lines.thread(this.own(ROW.generations), 'generations'),
      ...lines.thread(this.own(ROW.checkpoints), 'checkpoints'),
      ...lines.thread(this.own(ROW.evaluations), 'evaluations'),
      this.happened('the coordinator begins', nowUs, { term, host, pid }),
    ];
  }

  /** A worker said what time it is there. */
  clock(worker: TracedWorker, answer: Extract<WorkerMessage, { kind: 'clock' }>, nowUs: number): string[] {
    const process = this.processOf(worker.id);
    if (answer.boot !== null && answer.boot === this.options.boot) process.clock.same();
    else process.clock.trip({ sentUs: answer.sentUs, heardUs: nowUs, atUs: answer.atUs });
    const alignment = process.clock.at(nowUs);
    if (alignment === null) return [];
    const due = [...this.called(worker, process), ...this.released(worker, process)];
    const { uncertaintyUs } = alignment;
    const told = process.toldUncertaintyUs;
    if (told !== null && uncertaintyUs <= told * TOLD_AGAIN && uncertaintyUs >= told / TOLD_AGAIN) return due;
    process.toldUncertaintyUs = uncertaintyUs;
    return [...due, this.lines.instant(rowOf(worker, ROW.engine), 'clock', nowUs, { ...alignment }, 'process')];
  }

  trace(worker: TracedWorker, message: TraceMessage, nowUs: number): string[] {
    const process = this.processOf(worker.id);
    process.held.push(message);
    if (process.clock.at(nowUs) !== null) return [...this.called(worker, process), ...this.released(worker, process)];
    if (process.held.length > MAX_HELD) {
      const [oldest] = process.held.splice(0, 1);
      process.lost += oldest === undefined ? 0 : oldest.lost + spansOf(oldest.spans).length;
    }
    return [];
  }

  /** A generation is on record: from now on it forms. */
  forms(generation: number, members: readonly string[], because: string, nowUs: number): string[] {
    const name = `generation ${generation}`;
    const ended = this.enter(`${name} forms`, { members, because }, nowUs);
    return [...ended, this.happened(name, nowUs, { members, because })];
  }

  event(event: RunEvent, nowUs: number): string[] {
    const { plan, steps, from, to } = this.options;
    switch (event.kind) {
      case 'generation': {
        const { generation, worldSize, because } = event;
        return this.enter(`generation ${generation}`, { workers: worldSize, because }, nowUs);
      }
      case 'waiting':
        return this.enter('waiting', { because: event.because }, nowUs);
      case 'step': {
        const { step, loss } = event;
        if (isEvaluatedAfter({ plan, steps }, step)) this.evaluatedSinceUs = nowUs;
        if (step < from || step > to) return [];
        return [this.lines.counter(this.own(ROW.events), 'loss', nowUs, { loss })];
      }
      case 'epoch': {
        const since = this.evaluatedSinceUs;
        this.evaluatedSinceUs = null;
        const { epoch, testLoss, testAccuracy } = event.report;
        if (since === null || testLoss === null) return [];
        return [this.did(ROW.evaluations, `evaluation of epoch ${epoch}`, since, nowUs, { testLoss, testAccuracy })];
      }
      case 'checkpoint': {
        const { step, seconds, directory } = event;
        return [this.did(ROW.checkpoints, `checkpoint of step ${step}`, nowUs - 1e6 * seconds, nowUs, { directory })];
      }
      case 'worker-joined':
        return [this.happened(`${event.worker} joined`, nowUs, { host: event.host, pid: event.pid })];
      case 'worker-lost': {
        const { who, host, pid, message } = event.cause;
        return [this.happened(`${who} lost`, nowUs, { host, pid, because: message })];
      }
      case 'worker-refused':
        return [this.happened(`${event.worker} refused`, nowUs, { because: event.because })];
      case 'mismatch':
        return [this.happened('mismatch', nowUs, { step: event.step, because: event.because })];
      case 'failed':
        return [this.happened('failed', nowUs, { because: event.cause.message })];
      case 'stopping':
        return [this.happened('stopping', nowUs, { because: event.because })];
      case 'listening':
      case 'resumed':
      case 'warning':
      case 'worker-ready':
      case 'finished':
        return [];
    }
  }

  end(nowUs: number): string[] {
    const found = [...this.processes].filter(([, { lost }]) => lost > 0);
    const spansLost = Object.fromEntries(found.map(([worker, { lost }]) => [worker, lost]));
    return [...this.leave(nowUs), this.happened('the coordinator ends', nowUs, { spansLost })];
  }

  private processOf(worker: string): Process {
    const known = this.processes.get(worker);
    if (known !== undefined) return known;
    const process = {
      clock: new AlignedClock(),
      held: [],
      lost: 0,
      name: '',
      rows: new Set<number>(),
      toldUncertaintyUs: null,
    };
    this.processes.set(worker, process);
    return process;
  }

  /** A worker's name, where it has changed: its rank is another with each generation. */
  private called(worker: TracedWorker, process: Process): string[] {
    const { id, host, pid, rank, formerly } = worker;
    const before = formerly === null || formerly === id ? '' : ` (${formerly} before)`;
    const name = `${id}${before}, ${rank === null ? 'no rank' : `rank ${rank}`}, process ${pid} on ${host}`;
    if (process.name === name) return [];
    process.name = name;
    return this.lines.process(rowOf(worker, ROW.engine).pid, name);
  }

  private released(worker: TracedWorker, process: Process): string[] {
    const { held } = process;
    process.held = [];
    return held.flatMap(({ generation, spans, lost }) => {
      process.lost += lost;
      return spansOf(spans).flatMap((span) => this.spanOf(worker, process, span, generation));
    });
  }

  private spanOf(worker: TracedWorker, process: Process, span: Span, generation: number): string[] {
    const { name, detail, on } = LABELS[span.kind];
    const number = on === 'bucket' ? ROW.buckets + Math.min(span.detail, MAX_TRACED_BUCKETS) : ROW.engine;
    const row = rowOf(worker, number);
    const isNew = !process.rows.has(number);
    process.rows.add(number);
    const args = {
      step: span.step,
      ...(span.kind === 'step' && { generation }),
      ...(detail !== undefined && { [detail]: span.detail }),
    };
    const line = this.lines.span(row, name, process.clock.here(span.startUs), process.clock.here(span.endUs), args);
    if (!isNew) return [line];
    return [...this.lines.thread(row, on === 'bucket' ? `collective: bucket ${span.detail}` : 'engine'), line];
  }

  private enter(name: string, args: Args, nowUs: number): string[] {
    const left = this.leave(nowUs);
    this.generation = { name, sinceUs: nowUs, args };
    return left;
  }

  private leave(nowUs: number): string[] {
    const { generation } = this;
    this.generation = null;
    if (generation === null) return [];
    return [this.did(ROW.generations, generation.name, generation.sinceUs, nowUs, generation.args)];
  }

  private own(row: number): Row {
    const { term } = this.options;
    return { pid: term, tid: ROWS * term + row };
  }

  private did(row: number, name: string, sinceUs: number, nowUs: number, args: Args): string {
    return this.lines.span(this.own(row), name, sinceUs, nowUs, args);
  }

  private happened(name: string, nowUs: number, args: Args): string {
    return this.lines.instant(this.own(ROW.events), name, nowUs, args, 'global');
  }
}

/** Names of workers are w0, w1, ... */
function rowOf({ id }: TracedWorker, row: number): Row {
  const pid = FIRST_WORKER + Number(id.slice(1));
  return { pid, tid: ROWS * pid + row };
}
