// A worker outlives its coordinator's process, and its link to it: it goes on training with its peers, who are reached without the
// coordinator, and calls until one answers. Then it says who it is and what it stands at, and reports again what that coordinator may
// not have heard of: the steps after those that it has on record.
//
// What else was said meanwhile is lost, and missed by nobody: the next generation asks again for what matters.

import { LockstepError } from '../protocol/errors.ts';
import {
  MAX_REPORTED_STEPS,
  type CoordinatorMessage,
  type StepReport,
  type WorkerMessage,
} from '../protocol/messages.ts';
import type { RunConfig } from '../protocol/run-config.ts';
import type { ControlLink } from './control-link.ts';

/** Reports kept to be made again: some megabytes. */
const MAX_REMEMBERED_STEPS = 20_000;
/** Evaluations kept, one an epoch. */
const MAX_REMEMBERED_EVALUATIONS = 64;
/** Messages of a timeline kept for a coordinator that is yet to come: those of half a minute, newest. */
const MAX_KEPT_TRACES = 600;
/** Between two calls: from so soon to so long. */
const CALL_AGAIN_MS = { least: 50, most: 1000 };
/** Without a coordinator for so long a worker ends: nobody would keep what it trains. */
export const COORDINATOR_LIMIT_MS = 120_000;

/** What another call would meet again. */
const FINAL: ReadonlySet<string> = new Set(['E_PROTOCOL', 'E_UNAUTHORIZED', 'E_TOKEN_EXPIRED', 'E_FORBIDDEN', 'E_TLS']);

type Hello = Extract<WorkerMessage, { kind: 'hello' }>;
type Rejoin = NonNullable<Hello['rejoin']>;

export interface RejoinOptions {
  readonly first: ControlLink;
  readonly connect: () => Promise<ControlLink>;
  readonly hello: Omit<Hello, 'rejoin'>;
  /** Of the first coordinator, and what it gave to show that. */
  readonly term: number;
  readonly termProof: string | undefined;
  /** That it is ready, and where peers reach it now. */
  readonly ready: () => Promise<WorkerMessage>;
  readonly config: RunConfig;
  /** What the worker stands at now. */
  readonly standing: () => Omit<Rejoin, 'term' | 'termProof'>;
  /** Told of the name that another coordinator gave this worker. */
  readonly renamed?: (worker: string) => void;
  /** True when nobody watches this process any more who should: then it does not call. */
  readonly isOrphaned: () => boolean;
  readonly log: (line: string) => void;
}

type MemberControl = Pick<ControlLink, 'send' | 'drained' | 'listen' | 'closed' | 'close'>;

/** What was reported, as far back as it may matter. */
class History {
  private steps: { readonly generation: number; readonly step: StepReport }[] = [];
  private evaluations: Extract<WorkerMessage, { kind: 'evaluation' }>[] = [];

  add(message: WorkerMessage): void {
    if (message.kind === 'report') {
      this.steps.push(...message.steps.map((step) => ({ generation: message.generation, step })));
      if (this.steps.length > MAX_REMEMBERED_STEPS) this.steps = this.steps.slice(-MAX_REMEMBERED_STEPS / 2);
    }
    if (message.kind === 'evaluation') {
      this.evaluations = [...this.evaluations.slice(1 - MAX_REMEMBERED_EVALUATIONS), message];
    }
  }

  /**
   * What was reported of the steps after `step`, in messages, and every evaluation: that the coordinator has step reports does not mean
   * that it has all pieces of the evaluations before, since other workers may have repeated theirs a moment ago. A step that was done
   * twice is reported as it was the last time.
   */
  *after(step: number): Generator<WorkerMessage> {
    const last = new Map(this.steps.map((one) => [one.step.step, one]));
    const wanted = [...last.values()]
      .filter((one) => one.step.step > step)
      .toSorted((a, b) => a.step.step - b.step.step);
    const evaluations = new Map(this.evaluations.map((evaluation) => [evaluation.step, evaluation]));
    for (const evaluation of evaluations.values()) if (evaluation.step <= step) yield evaluation;
    let batch: StepReport[] = [];
    for (const [i, { generation, step: report }] of wanted.entries()) {
      batch.push(report);
      const evaluation = evaluations.get(report.step);
      const isLast = wanted[i + 1]?.generation !== generation || batch.length === MAX_REPORTED_STEPS;
      if (!isLast && evaluation === undefined) continue;
      yield { kind: 'report', generation, steps: batch, links: [] };
      batch = [];
      // Where it was made: the epoch's end.
      if (evaluation !== undefined) yield evaluation;
    }
  }
}

/**
 * The control link of a worker that has joined; it stays while coordinators come and go. `again`: it joins anew, because peers do not reach
 * it any more as it has told the coordinator.
 */
export function keepJoined(options: RejoinOptions): MemberControl & { again(because: string): void } {
  const { log } = options;
  const history = new History();
  let traces: WorkerMessage[] = [];
  let link: ControlLink | null = options.first;
  const life = { isClosing: false };
  /** The highest that was joined. */
  let { term, termProof } = options;
  let handler: (message: CoordinatorMessage) => void = () => {};
  let giveUp: (error: LockstepError) => void = () => {};
  const closed = new Promise<LockstepError>((resolve) => {
    giveUp = resolve;
  });

  const hear = (message: CoordinatorMessage): void => {
    // Who is sent away does not come back.
    if (message.kind === 'dismissed' || message.kind === 'refused') life.isClosing = true;
    handler(message);
  };

  /** Introduces this worker on a new link. Throws E_PROTOCOL when that coordinator won't have it back. */
  const introduce = async (to: ControlLink): Promise<void> => {
    const shown = termProof !== undefined && { termProof };
    to.send({ ...options.hello, rejoin: { ...options.standing(), term, ...shown } });
    const welcome = await to.next();
    if (welcome.kind !== 'welcome') {
      const because = 'because' in welcome ? welcome.because : `it sent "${welcome.kind}"`;
      throw new LockstepError('E_PROTOCOL', `the coordinator does not take this worker back: ${because}`);
    }
    if (JSON.stringify(welcome.config) !== JSON.stringify(options.config)) {
      throw new LockstepError('E_PROTOCOL', 'the coordinator that answers now has another run');
    }
    // One that was thought dead, and has not heard yet that it is replaced.
    if (welcome.term < term) {
      const older = `it is an older coordinator: its term is ${welcome.term}, and ${term} was joined before`;
      throw new LockstepError('E_COORDINATOR_LOST', older);
    }
    term = welcome.term;
    termProof = welcome.secrets?.term;
    const ready = await options.ready();
    // From here to `link = to` nothing is reported in between.
    for (const message of history.after(welcome.step)) to.send(message);
    to.send(ready);
    for (const trace of traces) to.send(trace);
    traces = [];
    link = to;
    options.renamed?.(welcome.worker);
    log(`joined again as ${welcome.worker}`);
    to.listen(hear);
    follow(to);
  };

  const call = async (why: LockstepError): Promise<void> => {
    const lostAt = performance.now();
    log(`${why.message}; training goes on, and a coordinator is looked for`);
    for (let waitMs = CALL_AGAIN_MS.least; !life.isClosing; waitMs = Math.min(1.5 * waitMs, CALL_AGAIN_MS.most)) {
      if (options.isOrphaned() || performance.now() - lostAt > COORDINATOR_LIMIT_MS) return giveUp(why);
      await new Promise<void>((resolve) => {
        setTimeout(resolve, waitMs);
      });
      let to: ControlLink | null = null;
      try {
        to = await options.connect();
        return await introduce(to);
      } catch (error) {
        await to?.close();
        const isFinal = error instanceof LockstepError && FINAL.has(error.code);
        if (isFinal) return giveUp(error);
      }
    }
    return undefined;
  };

  const follow = (present: ControlLink): void => {
    void present.closed.then(async (error) => {
      if (link !== present) return;
      link = null;
      // It may hold more than what has ended: a connection to a NATS server, a heart.
      await present.close().catch((cause: unknown) => log(`the link that ended: ${String(cause)}`));
      if (!life.isClosing) await call(error);
    });
  };
  follow(options.first);

  return {
    send: (message) => {
      history.add(message);
      if (link === null && message.kind === 'trace') traces = [...traces.slice(1 - MAX_KEPT_TRACES), message];
      link?.send(message);
    },
    drained: async () => link?.drained(),
    listen: (handle) => {
      handler = handle;
      link?.listen(hear);
    },
    closed,
    again: (because) => {
      log(`${because}; it joins again`);
      link?.close().catch((cause: unknown) => log(`the link that ended: ${String(cause)}`));
    },
    close: async () => {
      life.isClosing = true;
      await link?.close();
    },
  };
}
