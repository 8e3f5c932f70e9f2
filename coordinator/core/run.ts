// The coordinator's decisions: who is in, when training starts, what is on record, when it ends. A state machine without
// clock, socket or disk: `receive(input, nowMs)` returns the effects that the shell (main.ts) carries out, in order.
//
// The coordinator is not on the step's path: workers step among themselves and report. Cost: a few microseconds a report.
// Deliberately absent in this version: going on after a lost worker. A lost member ends the run with its root cause, and
// `--resume` goes on from the last checkpoint.

import { placeOfStep, rankMicrobatches, stepsPerEpoch, type BatchPlan } from '../../protocol/batch-plan.ts';
import { LockstepError } from '../../protocol/errors.ts';
import type { CoordinatorMessage, LinkTraffic, WorkerMessage, StepReport } from '../../protocol/messages.ts';
import { PROTOCOL_VERSION, residualName } from '../../protocol/messages.ts';
import type { RunConfig } from '../../protocol/run-config.ts';
import type { RootCause, RunEvent } from '../../protocol/run-event.ts';
import type { WorkerState } from '../../protocol/metrics.ts';
import type { RunPhase } from '../../protocol/run-view.ts';
import { admit, type ReadyMessage } from './admission.ts';
import { Audits } from './audits.ts';
import { DigestVotes } from './digest-votes.ts';
import { FailureInquiry, type ProcessEnd } from './failure.ts';
import { Progress, sumEvaluation, type EvaluationReport, type ProgressRecord } from './progress.ts';
import { StepTimes } from './step-times.ts';
import { StateGathering, type ReplicaState } from './state-assembly.ts';

export type Input =
  | { readonly kind: 'message'; readonly worker: string; readonly message: WorkerMessage }
  | { readonly kind: 'disconnected'; readonly worker: string; readonly because: string }
  /** The launcher saw a worker process end. */
  | { readonly kind: 'process-ended'; readonly pid: number; readonly localRank: number; readonly end: ProcessEnd }
  | { readonly kind: 'stop-requested'; readonly because: string }
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
  | { readonly kind: 'tick' };

export type Outcome = 'done' | 'stopped' | 'failed';

export type Effect =
  | { readonly kind: 'send'; readonly worker: string; readonly message: CoordinatorMessage }
  /** Send the resumed state, in parts: the replica, or the residuals of these names. */
  | { readonly kind: 'send-state'; readonly worker: string; readonly vectors: 'replica' | readonly string[] }
  | { readonly kind: 'disconnect'; readonly worker: string; readonly code: string; readonly because: string }
  | { readonly kind: 'tell'; readonly event: RunEvent }
  | { readonly kind: 'journal'; readonly record: JournalEntry }
  | { readonly kind: 'worker-step'; readonly worker: string; readonly report: StepReport }
  /** What its links carried since its last report; `peer` is the worker at the other end. */
  | { readonly kind: 'worker-traffic'; readonly worker: string; readonly peer: string; readonly link: LinkTraffic }
  | {
      readonly kind: 'write-checkpoint';
      readonly state: ReplicaState;
      readonly progress: ProgressRecord;
      readonly final: boolean;
    }
  | { readonly kind: 'end'; readonly outcome: Outcome };

/** What the record keeps; the shell adds the time. */
export type JournalEntry =
  | {
      readonly kind: 'generation';
      readonly generation: number;
      readonly members: readonly string[];
      readonly because: string;
    }
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
  | { readonly kind: 'stopped'; readonly step: number; readonly because: string }
  | { readonly kind: 'finished'; readonly step: number; readonly digest: string }
  | { readonly kind: 'failed'; readonly step: number; readonly cause: RootCause };

export interface Worker {
  readonly id: string;
  host: string;
  pid: number;
  localRank: number | null;
  state: WorkerState;
  rank: number | null;
  ready: ReadyMessage | null;
  /** Steps done, by its last report. */
  step: number;
  rssBytes: number | null;
  peakRssBytes: number | null;
  finishedDigest: string | null;
  readonly times: StepTimes;
}

export interface RunOptions {
  readonly config: RunConfig;
  readonly plan: BatchPlan;
  /** Workers to wait for. */
  readonly workers: number;
  readonly allowMixedEngines: boolean;
  /** A launcher watches the worker processes and reports their ends. */
  readonly supervised: boolean;
  /** Steps done by the checkpoint that is resumed; null for a fresh run. */
  readonly resumeStep: number | null;
  readonly progress: ProgressRecord;
  /** Steps that were done after the resumed checkpoint and are now done again. */
  readonly stepsLost: number;
}

export class Run {
  readonly options: RunOptions;
  readonly workers = new Map<string, Worker>();
  readonly progress: Progress;
  phase: RunPhase = 'gathering';
  because = 'no worker yet';
  generation = 0;
  step: number;
  digest: string | null = null;
  reproducible = true;
  workersLost = 0;
  checkpointStep: number | null;
  rootCause: RootCause | null = null;
  /** Of the members' weights: `digests.agreed` is the last one that all had. */
  readonly digests = new DigestVotes();
  /** Of microbatches that two workers computed. */
  readonly audits = new Audits();

  private reference: { worker: string; ready: ReadyMessage } | null = null;
  private gathering: StateGathering | null = null;
  private inquiry: FailureInquiry | null = null;
  private generationFirstStep = 0;
  /** Loss sums by step, until every rank has reported the step: replicas must agree on them to the bit. */
  private readonly agreed = new Map<number, { lossSum: number; reports: number }>();
  private readonly evaluations = new Map<number, EvaluationReport[]>();
  /** A state that waits for its epoch's evaluation before it is written. */
  private heldState: ReplicaState | null = null;
  private evaluatedStep = -1;
  private writing = 0;
  private ended = false;

  constructor(options: RunOptions) {
    this.options = options;
    this.step = options.resumeStep ?? 0;
    this.checkpointStep = options.resumeStep;
    this.progress = new Progress(options.progress);
  }

  /** Feeds one event; returns what to do about it. `nowMs` is monotonic. */
  receive(input: Input, nowMs: number): Effect[] {
    if (this.ended) return [];
    switch (input.kind) {
      case 'message':
        return this.message(input.worker, input.message, nowMs);
      case 'disconnected':
        return this.disconnected(input.worker, input.because, nowMs);
      case 'process-ended':
        return this.processEnded(input, nowMs);
      case 'stop-requested':
        return this.stop(input.because);
      case 'coordinator-failed':
        return this.failBy(ownFailure(input));
      case 'checkpoint-written': {
        this.writing--;
        this.checkpointStep = input.step;
        const effects: Effect[] = [
          {
            kind: 'tell',
            event: { kind: 'checkpoint', step: input.step, directory: input.directory, seconds: input.seconds },
          },
          {
            kind: 'journal',
            record: { kind: 'checkpoint', step: input.step, digest: input.digest, directory: input.directory },
          },
        ];
        return [...effects, ...this.endWhenComplete()];
      }
      case 'checkpoint-failed':
        this.writing--;
        return [
          {
            kind: 'tell',
            event: {
              kind: 'warning',
              message: `the checkpoint after step ${input.step} could not be written: ${input.because}; training goes on`,
            },
          },
          ...this.endWhenComplete(),
        ];
      case 'tick':
        return this.concludeInquiry(nowMs);
    }
  }

  /** Ranks of the present generation. */
  members(): Worker[] {
    return [...this.workers.values()].filter((w) => w.rank !== null);
  }

  private message(id: string, message: WorkerMessage, nowMs: number): Effect[] {
    const worker = this.workers.get(id);
    if (message.kind === 'hello') return this.hello(id, message);
    if (worker === undefined) {
      return [{ kind: 'disconnect', worker: id, code: 'E_PROTOCOL', because: `"${message.kind}" before "hello"` }];
    }
    switch (message.kind) {
      case 'ready':
        return this.ready(worker, message, nowMs);
      case 'linked':
        return [];
      case 'report':
        return this.report(worker, message, nowMs);
      case 'evaluation':
        return this.evaluation(worker, message, nowMs);
      case 'state':
        return this.statePart(worker, message);
      case 'finished':
        return this.finished(worker, message, nowMs);
      case 'failed':
        return this.fail(worker, nowMs, message.code, message.message);
    }
  }

  private hello(id: string, message: Extract<WorkerMessage, { kind: 'hello' }>): Effect[] {
    const { config, resumeStep } = this.options;
    if (message.protocol !== PROTOCOL_VERSION) {
      const because = `worker on ${message.host} speaks protocol ${message.protocol}, this coordinator ${PROTOCOL_VERSION}: install the same Lockstep on both`;
      return [
        { kind: 'send', worker: id, message: { kind: 'refused', code: 'E_PROTOCOL_VERSION', because } },
        { kind: 'disconnect', worker: id, code: 'E_PROTOCOL_VERSION', because },
      ];
    }
    if (this.workers.has(id))
      return [{ kind: 'disconnect', worker: id, code: 'E_PROTOCOL', because: 'a second "hello"' }];
    this.workers.set(id, {
      id,
      host: message.host,
      pid: message.pid,
      localRank: message.localRank,
      state: 'preparing',
      rank: null,
      ready: null,
      step: 0,
      rssBytes: null,
      peakRssBytes: null,
      finishedDigest: null,
      times: new StepTimes(),
    });
    this.explainGathering();
    const effects: Effect[] = [
      {
        kind: 'send',
        worker: id,
        message: { kind: 'welcome', protocol: PROTOCOL_VERSION, worker: id, config, resumeStep },
      },
      { kind: 'tell', event: { kind: 'worker-joined', worker: id, host: message.host, pid: message.pid } },
    ];
    if (resumeStep !== null) effects.splice(1, 0, { kind: 'send-state', worker: id, vectors: 'replica' });
    return effects;
  }

  private explainGathering(): void {
    if (this.phase !== 'gathering') return;
    const readyCount = [...this.workers.values()].filter((w) => w.ready !== null).length;
    this.because = `${readyCount} of ${this.options.workers} workers ready`;
  }

  private ready(worker: Worker, message: ReadyMessage, nowMs: number): Effect[] {
    if (worker.ready !== null) return this.accuse(worker, nowMs, 'a second "ready"');
    const decision = admit(
      this.reference,
      { worker: worker.id, ready: message },
      {
        step: this.options.resumeStep ?? 0,
        allowMixed: this.options.allowMixedEngines,
      },
    );
    if (decision.kind === 'refused') {
      const { code, because } = decision;
      const refusal: Effect[] = [
        { kind: 'send', worker: worker.id, message: { kind: 'refused', code, because } },
        { kind: 'tell', event: { kind: 'worker-refused', worker: worker.id, code, because } },
      ];
      if (this.options.supervised) return [...refusal, ...this.fail(worker, nowMs, code, because)];
      this.workers.delete(worker.id);
      return [...refusal, { kind: 'disconnect', worker: worker.id, code, because }];
    }
    if (decision.mixed !== null) this.reproducible = false;
    this.reference ??= { worker: worker.id, ready: message };
    worker.ready = message;
    worker.state = 'ready';
    worker.step = message.step;
    this.explainGathering();
    const effects: Effect[] = [
      {
        kind: 'tell',
        event: { kind: 'worker-ready', worker: worker.id, engine: message.engine, fingerprint: message.fingerprint },
      },
    ];
    if (decision.mixed !== null) {
      effects.push({
        kind: 'tell',
        event: {
          kind: 'warning',
          message: `${worker.id} runs another engine (${decision.mixed}): this run is not reproducible`,
        },
      });
    }
    return [...effects, ...this.begin()];
  }

  /** Opens the first generation when everybody expected is ready. */
  private begin(): Effect[] {
    if (this.phase !== 'gathering') return this.makeSpares();
    const ready = [...this.workers.values()].filter((w) => w.ready !== null);
    if (ready.length < this.options.workers) return [];
    this.generation++;
    this.phase = 'training';
    const because = `${ready.length} of ${this.options.workers} workers ready`;
    this.because = because;
    // The launcher's order where there is one, so that rank r is the launcher's process r.
    ready.sort(
      (a, b) =>
        (a.localRank ?? Infinity) - (b.localRank ?? Infinity) || a.id.localeCompare(b.id, 'en', { numeric: true }),
    );
    const active = ready.slice(0, this.options.config.microbatches);
    active.forEach((worker, rank) => {
      worker.rank = rank;
      worker.state = 'training';
    });
    const members = active.map((w) => ({
      worker: w.id,
      rank: w.rank ?? 0,
      peerUrl: w.ready?.peerUrl ?? '',
      host: w.host,
    }));
    this.generationFirstStep = this.step + 1;
    const layout = this.reference?.ready.layout ?? [];
    const optimizer = this.reference?.ready.optimizer ?? { name: '', slots: [] };
    const size = layout.reduce((sum, entry) => sum + entry.length, 0);
    const trainable = layout.reduce((sum, entry) => sum + (entry.trainable ? entry.length : 0), 0);
    const replica = ['weights', ...optimizer.slots.map((slot) => `slot:${slot}`)];
    const residuals = active.map((_, rank) => this.residualsOf(rank, active.length));
    this.gathering = new StateGathering(
      new Map(
        active
          .map(({ id }, rank): [string, string[]] => [id, [...(rank === 0 ? replica : []), ...(residuals[rank] ?? [])]])
          .filter(([, names]) => names.length > 0),
      ),
      (name) => (name === 'weights' ? size : trainable),
    );
    const effects: Effect[] = active.flatMap((worker, rank): Effect[] => {
      const message = {
        kind: 'generation' as const,
        generation: this.generation,
        rank,
        worldSize: active.length,
        members,
        because,
      };
      const vectors = residuals[rank] ?? [];
      const isResumed = this.options.resumeStep !== null && vectors.length > 0;
      return [
        { kind: 'send', worker: worker.id, message },
        ...(isResumed ? [{ kind: 'send-state' as const, worker: worker.id, vectors }] : []),
      ];
    });
    effects.push(
      {
        kind: 'tell',
        event: {
          kind: 'generation',
          generation: this.generation,
          worldSize: active.length,
          spares: ready.length - active.length,
          because,
        },
      },
      {
        kind: 'journal',
        record: { kind: 'generation', generation: this.generation, members: active.map((w) => w.id), because },
      },
    );
    if (this.options.config.auditRate > 0 && active.length === 1) {
      const message = '--audit: there is no second worker to compute anything again, so nothing is audited';
      effects.push({ kind: 'tell', event: { kind: 'warning', message } });
    }
    return [...effects, ...this.makeSpares()];
  }

  /** The residuals that a rank has, by name; none without compression. */
  private residualsOf(rank: number, worldSize: number): string[] {
    const { gradientCompression, microbatches } = this.options.config;
    if (gradientCompression === 'none') return [];
    const { start, end } = rankMicrobatches(microbatches, worldSize, rank);
    return Array.from({ length: end - start }, (_, i) => residualName(start + i));
  }

  private makeSpares(): Effect[] {
    for (const worker of this.workers.values()) {
      if (worker.state === 'ready' && worker.rank === null) worker.state = 'spare';
    }
    return [];
  }

  private report(worker: Worker, message: Extract<WorkerMessage, { kind: 'report' }>, nowMs: number): Effect[] {
    if (worker.rank === null || message.generation !== this.generation) return [];
    const effects: Effect[] = [];
    for (const step of message.steps) {
      effects.push(...this.stepDone(worker, step, nowMs));
      if (this.ended || this.inquiry !== null) return effects;
    }
    this.progress.traffic(message.links);
    const members = this.members();
    for (const link of message.links) {
      const peer = members.find((member) => member.rank === link.peer);
      if (peer === undefined || peer === worker)
        return [...effects, ...this.accuse(worker, nowMs, `a link to rank ${link.peer} reported`)];
      effects.push({ kind: 'worker-traffic', worker: worker.id, peer: peer.id, link });
    }
    return effects;
  }

  private stepDone(worker: Worker, report: StepReport, nowMs: number): Effect[] {
    if (report.step !== worker.step + 1)
      return this.accuse(worker, nowMs, `step ${report.step} reported after step ${worker.step}`);
    worker.step = report.step;
    worker.state = 'training';
    worker.rssBytes = report.rssBytes;
    worker.peakRssBytes = Math.max(worker.peakRssBytes ?? 0, report.rssBytes);
    this.progress.phases(report.phases);
    worker.times.add(report.phases);
    const effects: Effect[] = [{ kind: 'worker-step', worker: worker.id, report }];

    const agreed = this.agreed.get(report.step);
    if (agreed === undefined) {
      this.agreed.set(report.step, { lossSum: report.lossSum, reports: 1 });
      effects.push(...this.commit(report));
    } else {
      if (!Object.is(agreed.lossSum, report.lossSum)) {
        return this.fail(
          worker,
          nowMs,
          'E_DIGEST',
          `${worker.id} computed the loss sum ${report.lossSum} at step ${report.step}, others ${agreed.lossSum}`,
        );
      }
      agreed.reports++;
    }
    if ((this.agreed.get(report.step)?.reports ?? 0) >= this.members().length) this.agreed.delete(report.step);
    return [...effects, ...this.compareDigests(worker, report, nowMs), ...this.compareAudits(worker, report, nowMs)];
  }

  private compareDigests(worker: Worker, { step, digest }: StepReport, nowMs: number): Effect[] {
    if (digest === undefined) return [];
    const members = this.members().map((member) => member.id);
    const verdict = this.digests.accept(worker.id, step, digest, members);
    if (verdict.kind !== 'deviating') return [];
    const { workers, because } = verdict;
    const culprit = this.workers.get(workers[0] ?? '') ?? worker;
    return [
      { kind: 'tell', event: { kind: 'mismatch', what: 'weights', step, workers, because } },
      ...this.fail(culprit, nowMs, 'E_DIGEST', because),
    ];
  }

  private compareAudits(worker: Worker, { step, audits = [] }: StepReport, nowMs: number): Effect[] {
    const members = this.members().map((member) => member.id);
    return this.audits.accept(worker.id, step, audits, members).flatMap(({ owner, auditor, culprit, because }) => {
      const workers = culprit === null ? [owner, auditor] : [culprit];
      const accused = this.workers.get(culprit ?? owner) ?? worker;
      return [
        { kind: 'tell', event: { kind: 'mismatch', what: 'microbatch', step, workers, because } } satisfies Effect,
        ...this.fail(accused, nowMs, 'E_DIGEST', because),
      ];
    });
  }

  /** The first report of a step commits it: every rank has summed the same gradient by then. */
  private commit(report: StepReport): Effect[] {
    const { config, plan } = this.options;
    this.step = report.step;
    this.progress.step(report, report.step === this.generationFirstStep);
    const loss = report.lossSum / report.samples;
    const effects: Effect[] = [
      {
        kind: 'tell',
        event: {
          kind: 'step',
          step: report.step,
          loss,
          accuracy: report.correct / report.samples,
          gradientNorm: report.gradientNorm,
          samples: report.samples,
          seconds: report.seconds,
          phases: report.phases,
        },
      },
    ];
    const epochEnds = report.step % stepsPerEpoch(plan) === 0;
    if (epochEnds) this.progress.endEpoch(placeOfStep(plan, report.step - 1).epoch + 1);
    if (this.phase === 'training' && (epochEnds || report.step === config.steps)) {
      this.phase = 'evaluating';
      this.because = `evaluating after step ${report.step}`;
    } else if (this.phase === 'evaluating') {
      this.phase = 'training';
      this.because = 'all members step';
    }
    return effects;
  }

  private evaluation(worker: Worker, message: EvaluationReport, nowMs: number): Effect[] {
    if (worker.rank === null || message.generation !== this.generation) return [];
    const reports = this.evaluations.get(message.step) ?? [];
    reports.push(message);
    this.evaluations.set(message.step, reports);
    const first = reports[0];
    if (first !== undefined && first.digest !== message.digest) {
      return this.fail(
        worker,
        nowMs,
        'E_DIGEST',
        `${worker.id} holds the weights ${message.digest.slice(0, 16)} after step ${message.step}, others ${first.digest.slice(0, 16)}`,
      );
    }
    if (reports.length < this.members().length) return [];
    this.evaluations.delete(message.step);
    this.evaluatedStep = message.step;
    const completed = this.progress.evaluated(sumEvaluation(reports.flatMap((r) => r.chunks)));
    if (this.phase === 'evaluating' && message.step < this.options.config.steps) {
      this.phase = 'training';
      this.because = 'all members step';
    }
    const effects: Effect[] = [];
    if (completed !== null) {
      effects.push(
        { kind: 'tell', event: { kind: 'epoch', report: completed, epochs: this.options.config.epochs } },
        {
          kind: 'journal',
          record: {
            kind: 'epoch',
            step: message.step,
            epoch: completed.epoch,
            digest: message.digest,
            loss: completed.loss,
            testLoss: completed.testLoss,
            testAccuracy: completed.testAccuracy,
          },
        },
      );
    }
    return [...effects, ...this.writeHeldState(), ...this.endWhenComplete()];
  }

  private statePart(worker: Worker, message: Extract<WorkerMessage, { kind: 'state' }>): Effect[] {
    let state: ReplicaState | null = null;
    try {
      state = this.gathering?.accept(worker.id, message) ?? null;
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      return [{ kind: 'disconnect', worker: worker.id, code: error.code, because: error.message }];
    }
    if (state === null) return [];
    this.digest = state.digest;
    this.heldState = state;
    return [...this.writeHeldState(), ...this.endWhenComplete()];
  }

  /** A state at the end of an epoch is written once the epoch's evaluation is known, so that its record is whole. */
  private writeHeldState(): Effect[] {
    const state = this.heldState;
    if (state === null) return [];
    const { plan, config } = this.options;
    const isEvaluated = state.step % stepsPerEpoch(plan) === 0 || state.step === config.steps;
    if (isEvaluated && this.evaluatedStep < state.step) return [];
    this.heldState = null;
    this.writing++;
    const final = state.step === config.steps || this.phase === 'stopping';
    return [{ kind: 'write-checkpoint', state, progress: this.progress.record(), final }];
  }

  private finished(worker: Worker, message: Extract<WorkerMessage, { kind: 'finished' }>, nowMs: number): Effect[] {
    worker.state = 'finished';
    worker.finishedDigest = message.digest;
    worker.peakRssBytes = message.peakRssBytes;
    const other = this.members().find((w) => w.finishedDigest !== null && w.finishedDigest !== message.digest);
    if (other !== undefined) {
      return this.fail(
        worker,
        nowMs,
        'E_DIGEST',
        `${worker.id} ends with the weights ${message.digest.slice(0, 16)}, ${other.id} with ${other.finishedDigest?.slice(0, 16)}`,
      );
    }
    this.digest = message.digest;
    return this.endWhenComplete();
  }

  private endWhenComplete(): Effect[] {
    const members = this.members();
    if (this.inquiry !== null || members.length === 0 || this.writing > 0 || this.heldState !== null) return [];
    if (!members.every((w) => w.state === 'finished')) return [];
    const outcome: Outcome = this.step >= this.options.config.steps ? 'done' : 'stopped';
    const record: JournalEntry =
      outcome === 'done'
        ? { kind: 'finished', step: this.step, digest: this.digest ?? '' }
        : { kind: 'stopped', step: this.step, because: this.because };
    return [{ kind: 'journal', record }, ...this.end(outcome, outcome === 'done' ? 'the run is done' : this.because)];
  }

  private stop(because: string): Effect[] {
    if (this.phase === 'gathering') {
      this.because = because;
      return [
        { kind: 'tell', event: { kind: 'stopping', because } },
        { kind: 'journal', record: { kind: 'stopped', step: this.step, because } },
        ...this.end('stopped', because),
      ];
    }
    if (this.phase === 'stopping' || this.inquiry !== null) return [];
    this.phase = 'stopping';
    this.because = because;
    const effects: Effect[] = this.members().map((w) => ({
      kind: 'send',
      worker: w.id,
      message: { kind: 'stop', because },
    }));
    return [{ kind: 'tell', event: { kind: 'stopping', because } }, ...effects];
  }

  private end(outcome: Outcome, because: string): Effect[] {
    this.ended = true;
    this.phase = outcome;
    this.because = because;
    const goodbyes: Effect[] = [...this.workers.values()]
      .filter((w) => w.state !== 'lost')
      .map((w) => ({ kind: 'send', worker: w.id, message: { kind: 'dismissed', because } }));
    return [...goodbyes, { kind: 'end', outcome }];
  }

  private disconnected(id: string, because: string, nowMs: number): Effect[] {
    const worker = this.workers.get(id);
    if (worker === undefined || worker.state === 'finished') return [];
    const needed = worker.rank !== null || this.options.supervised;
    const wasLost = worker.state === 'lost';
    worker.state = 'lost';
    if (!needed) {
      this.workers.delete(id);
      this.explainGathering();
      return [{ kind: 'tell', event: { kind: 'warning', message: `${id} on ${worker.host} left: ${because}` } }];
    }
    if (!wasLost) this.workersLost++;
    this.inquiry ??= new FailureInquiry(nowMs, this.options.supervised);
    this.inquiry.linkLost(id, worker);
    return this.concludeInquiry(nowMs);
  }

  private processEnded(input: Extract<Input, { kind: 'process-ended' }>, nowMs: number): Effect[] {
    const worker = [...this.workers.values()].find((w) => w.pid === input.pid && w.localRank === input.localRank);
    if (worker?.state === 'finished') return [];
    // The launcher may be quicker than the link: the worker is lost once, whoever tells first.
    if (worker !== undefined && worker.state !== 'lost') {
      worker.state = 'lost';
      this.workersLost++;
    }
    this.inquiry ??= new FailureInquiry(nowMs, this.options.supervised);
    const who = worker?.id ?? `worker process ${input.localRank}`;
    this.inquiry.processEnded(who, worker ?? { rank: null, host: 'this host', pid: input.pid }, input.end);
    return this.concludeInquiry(nowMs);
  }

  private accuse(worker: Worker, nowMs: number, what: string): Effect[] {
    return this.fail(worker, nowMs, 'E_PROTOCOL', `${worker.id} broke the protocol: ${what}`);
  }

  private fail(worker: Worker, nowMs: number, code: string, message: string): Effect[] {
    this.inquiry ??= new FailureInquiry(nowMs, this.options.supervised);
    this.inquiry.error(worker.id, worker, code, message);
    return this.concludeInquiry(nowMs);
  }

  private concludeInquiry(nowMs: number): Effect[] {
    const cause = this.inquiry?.conclude(nowMs) ?? null;
    return cause === null ? [] : this.failBy(cause);
  }

  private failBy(cause: RootCause): Effect[] {
    this.rootCause = cause;
    return [
      { kind: 'tell', event: { kind: 'failed', cause } },
      { kind: 'journal', record: { kind: 'failed', step: this.step, cause } },
      ...this.end('failed', cause.message),
    ];
  }
}

function ownFailure({ host, pid, code, message }: Extract<Input, { kind: 'coordinator-failed' }>): RootCause {
  const unknown = { rank: null, exitCode: null, signal: null, lastLines: [], logFile: null };
  return { ...unknown, who: 'coordinator', host, pid, code, message };
}
