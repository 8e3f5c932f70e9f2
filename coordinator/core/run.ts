// The coordinator's decisions: who is in, when training starts, what is on record, when it ends. A state machine without
// clock, socket or disk: `receive(input, nowMs)` returns the effects that the shell (main.ts) carries out, in order.
//
// The coordinator is not on the step's path: workers step among themselves and report. Cost: a few microseconds a report.
//
// Who is in changes by generations. A lost member ends the present one at once, and the survivors do the step in flight again in the
// next; a newcomer's is graceful: it waits for the step in flight. A generation forms (formation.ts) and begins when all its members
// are linked; if one of them is lost before, yet another forms. What ends the run is an error that the next attempt would meet
// again, and that nobody is left who could make one.

import { placeOfStep, stepsPerEpoch, type BatchPlan } from '../../protocol/batch-plan.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { BUSY_SILENCE } from '../../protocol/heartbeat.ts';
import type { StepReport, WorkerMessage } from '../../protocol/messages.ts';
import { otherVersionText, PROTOCOL_VERSION, residualName } from '../../protocol/messages.ts';
import { isEvaluatedAfter, isKeptAfter } from '../../protocol/milestones.ts';
import type { RunConfig } from '../../protocol/run-config.ts';
import type { RootCause } from '../../protocol/run-event.ts';
import type { RunPhase } from '../../protocol/run-view.ts';
import { areEven, evenShares, keptShares, KEPT_FROM_SECONDS, type Share, type Shares } from '../../protocol/shares.ts';
import { admit, type ReadyMessage } from './admission.ts';
import { Audits } from './audits.ts';
import { DigestVotes } from './digest-votes.ts';
import { ownFailure, stepEvent, unreported, type Effect, type Input, type Outcome } from './effects.ts';
import { Evaluations, type WholeEvaluation } from './evaluations.ts';
import { isConsequence, isInherent } from './failure.ts';
import { Formation, type Beginning } from './formation.ts';
import { Losses } from './losses.ts';
import { Progress, sumEvaluation, type EvaluationReport, type ProgressRecord } from './progress.ts';
import { Stall } from './stall.ts';
import { StepTimes, stragglerOf } from './step-times.ts';
import { StateGathering, type ReplicaState } from './state-assembly.ts';
import { Suspicions } from './suspicions.ts';
import { byHost, byLocalRank, isOfBefore, returnedOf, UNKNOWN_STEP, type Worker } from './worker.ts';

export interface RunOptions {
  readonly config: RunConfig;
  readonly plan: BatchPlan;
  /** Which of the run's coordinators this is, counted from 1; see fence.ts. */
  readonly term: number;
  /** Workers to wait for. */
  readonly workers: number;
  readonly allowMixedEngines: boolean;
  /** A launcher watches the worker processes and reports their ends. */
  readonly supervised: boolean;
  /** Fewer than these wait for more. */
  readonly minWorkers: number;
  /** More than these are spares; there are never more than microbatches. */
  readonly maxWorkers: number;
  /** How often in a row one worker process is started anew without having done a step. */
  readonly restartLimit: number;
  /** A member for which the others wait for this share of a step makes room for a spare; 0: never. */
  readonly stragglerLimit: number;
  /** Milliseconds without a step, at least, before it is asked who hangs; 0: never. */
  readonly progressLimitMs: number;
  /** Milliseconds that a run with too few workers waits for more. */
  readonly waitLimitMs: number;
  /** The state that is resumed; null for a fresh run. */
  readonly resumed: ReplicaState | null;
  readonly progress: ProgressRecord;
  /** Steps that were done after the resumed checkpoint and are now done again. */
  readonly stepsLost: number;
  /** The last generation that the run has had, in whichever process; 0 for a fresh run. Its number is not used again. */
  readonly lastGeneration: number;
  /** Workers that it lost in other processes. */
  readonly workersLost: number;
  /** This one takes the place of one that does not answer, which its workers find out each at their own time. */
  readonly isBeforeHung: boolean;
}

/** After a coordinator's restart: how long to wait, from the first worker that is back, for the others. */
export const REJOIN_MS = 3000;
/** Times that all may go back to a state that they agreed on, before one that lies further on is agreed on. */
const ROLLBACKS_MAX = 3;
/** Steps whose loss sums are remembered, to compare later reports with. */
const REMEMBERED_STEPS = 1024;

export class Run {
  readonly options: RunOptions;
  readonly workers = new Map<string, Worker>();
  readonly progress: Progress;
  phase: RunPhase = 'gathering';
  because = 'no worker yet';
  generation: number;
  step: number;
  digest: string | null = null;
  /** Steps done by the weights of that digest: fewer than `step` where a run stops while it does some again. */
  digestStep: number | null = null;
  reproducible = true;
  workersLost = 0;
  stepsLost: number;
  microbatchesRecomputed = 0;
  checkpointStep: number | null;
  rootCause: RootCause | null = null;
  /** Of the members' weights: `digests.agreed` is the last one that all had. */
  readonly digests = new DigestVotes();
  /** Of microbatches that two workers computed. */
  readonly audits = new Audits();
  private readonly stall: Stall;

  private reference: { worker: string; ready: ReadyMessage } | null = null;
  private gathering: StateGathering | null = null;
  /** The generation that forms, until it begins. */
  private formation: Formation | null = null;
  /** Members of the generation that began last, in rank order. */
  private begun: readonly string[] = [];
  /** Who had which microbatches then. */
  private sharesBegun: ReadonlyMap<string, Share> = new Map();
  private isHolding = false;
  /** The members' state may be wrong: the next generation begins with what was kept and is known to be right. */
  private isDistrusted = false;
  /** The newest kept state that all members agreed on, then or later. */
  private trusted: ReplicaState | null;
  /** Steps after which all members held the same weights. */
  private trustedStep: number;
  /** Times that members went back since then because they were not to be trusted. */
  private rollbacks = 0;
  /** The last step whose figures are among the metrics. */
  private measuredStep: number;
  private readonly suspicions = new Suspicions();
  private readonly losses: Losses;
  /** Workers that failed by errors of their own since the last step. */
  private ownErrors = 0;
  /** Worker processes that the launcher has running. */
  private processes: number;
  /** To be waited for before training starts. */
  private workersExpected: number;
  /** Those that died before this coordinator had met them. */
  private lostUnmet = 0;
  /** By local rank: starts anew since its last step. */
  private readonly restarts = new Map<number, number>();
  private waitingSinceMs: number | null = null;
  /** When the first worker came back that had begun with another coordinator. */
  private rejoiningSinceMs: number | null = null;
  /** Reports of steps before which some are missing: somebody else may have them. */
  private readonly early = new Map<number, { readonly report: StepReport; readonly generation: number }>();
  private generationFirstStep = 0;
  /** Steps done by the most advanced state that some member has had since the last beginning. */
  private stepHeld: number;
  /** No generation has begun yet in this process: workers may come with steps that its checkpoint does not have. */
  private isResumedAnew = true;
  /** Loss sums by step: replicas must agree on them to the bit. */
  private readonly agreed = new Map<number, number>();
  private readonly evaluations: Evaluations;
  /** The newest whole state that workers sent, or that was resumed. */
  private kept: ReplicaState | null;
  /** A state that waits for its epoch's evaluation before it is written. */
  private heldState: ReplicaState | null = null;
  private writing = 0;
  private isCheckpointFailing = false;
  private ended = false;

  constructor(options: RunOptions) {
    this.options = options;
    const resumeStep = options.resumed?.step ?? null;
    this.kept = options.resumed;
    this.trusted = options.resumed;
    this.trustedStep = options.resumed?.step ?? 0;
    this.step = resumeStep ?? 0;
    this.measuredStep = this.step;
    this.stepHeld = this.step;
    this.evaluations = new Evaluations(resumeStep ?? -1);
    this.checkpointStep = resumeStep;
    this.stepsLost = options.stepsLost;
    this.workersLost = options.workersLost;
    this.losses = new Losses(options.supervised);
    this.stall = new Stall(options.progressLimitMs);
    this.processes = options.supervised ? options.workers : 0;
    this.workersExpected = options.workers;
    this.generation = options.lastGeneration;
    this.progress = new Progress(options.progress);
  }

  /** Feeds one event; returns what to do about it. `nowMs` is monotonic. */
  receive(input: Input, nowMs: number): Effect[] {
    // One whose run has ended may still be about to write that down.
    if (this.ended && input.kind !== 'fenced') return [];
    switch (input.kind) {
      case 'message':
        return this.message(input.worker, input.message, nowMs);
      case 'disconnected':
        return this.disconnected(input.worker, input.because, nowMs);
      case 'process-ended':
        return this.processEnded(input, nowMs);
      case 'stop-requested':
        return this.stop(input.because);
      case 'workers-expected':
        this.workersExpected = input.workers;
        this.explainGathering();
        return this.phase === 'gathering' ? this.takeIn(nowMs) : [];
      case 'coordinator-failed':
        return this.failBy(ownFailure(input));
      case 'fenced':
        return this.standAside(ownFailure({ ...input, code: 'E_FENCED', message: input.because }));
      case 'checkpoint-written': {
        this.writing--;
        this.isCheckpointFailing = false;
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
      case 'checkpoint-failed': {
        this.writing--;
        // Once until one is written again; and of the last one, which is not tried another time.
        const isTold = this.isCheckpointFailing && input.step < this.options.config.steps;
        this.isCheckpointFailing = true;
        const message = `the checkpoint after step ${input.step} could not be written: ${input.because}; training goes on`;
        const told: Effect[] = isTold ? [] : [{ kind: 'tell', event: { kind: 'warning', message } }];
        return [...told, ...this.endWhenComplete()];
      }
      case 'tick':
        return this.tick(nowMs);
    }
  }

  /** Ranks of the generation that is present or forms. */
  members(): Worker[] {
    return [...this.workers.values()].filter((w) => w.rank !== null).toSorted((a, b) => (a.rank ?? 0) - (b.rank ?? 0));
  }

  private message(id: string, message: WorkerMessage, nowMs: number): Effect[] {
    const worker = this.workers.get(id);
    if (message.kind === 'hello') return this.hello(id, message);
    if (worker === undefined) {
      return [{ kind: 'disconnect', worker: id, code: 'E_PROTOCOL', because: `"${message.kind}" before "hello"` }];
    }
    // Who is lost has been told so; what it said before it heard that matters to nobody.
    if (worker.state === 'lost') return [];
    const lie = this.lieOf(worker, message);
    if (lie !== null) return this.accuse(worker, nowMs, lie);
    switch (message.kind) {
      case 'ready':
        return this.ready(worker, message, nowMs);
      case 'linked':
        return this.linked(worker, message, nowMs);
      case 'interrupted':
        return this.interrupted(worker, message, nowMs);
      case 'standing':
        this.stall.answered(worker.id, message);
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
        return this.failed(worker, nowMs, message.code, message.message);
      // For the timeline, which decides nothing.
      case 'clock':
      case 'trace':
        return [];
    }
  }

  /** What can't be true of the generation that it speaks of; null: nothing. That one which is over has no effect is each message's own. */
  private lieOf({ lastRank, generation }: Worker, message: WorkerMessage): string | null {
    if (!('generation' in message) || message.kind === 'standing') return null;
    const what = `"${message.kind}" of generation ${message.generation}`;
    const newest = Math.max(this.generation, generation);
    if (message.generation > newest) return `${what}, and the newest is ${newest}`;
    return lastRank === null && generation === 0 ? `${what}, and it was in none` : null;
  }

  // ---- joining

  private hello(id: string, message: Extract<WorkerMessage, { kind: 'hello' }>): Effect[] {
    const { config } = this.options;
    if (message.protocol !== PROTOCOL_VERSION) {
      const because = otherVersionText(message);
      return [
        { kind: 'send', worker: id, message: { kind: 'refused', code: 'E_PROTOCOL_VERSION', because } },
        { kind: 'disconnect', worker: id, code: 'E_PROTOCOL_VERSION', because },
      ];
    }
    if (this.workers.has(id))
      return [{ kind: 'disconnect', worker: id, code: 'E_PROTOCOL', because: 'a second "hello"' }];
    const { rejoin, host, pid } = message;
    if (rejoin !== null && rejoin.term > this.options.term) {
      const because = `another coordinator has the run: worker process ${pid} on ${host} has joined it (term ${rejoin.term}, this one has ${this.options.term})`;
      return this.standAside(ownFailure({ host, pid, code: 'E_FENCED', message: because }));
    }
    this.workers.set(id, {
      id,
      host: message.host,
      pid: message.pid,
      localRank: message.localRank,
      state: 'preparing',
      rank: null,
      lastRank: null,
      isConnected: true,
      generation: message.rejoin?.generation ?? 0,
      rejoined: message.rejoin,
      ready: null,
      // What a worker that is back has done it tells itself.
      step: message.rejoin === null ? 0 : UNKNOWN_STEP,
      rssBytes: null,
      peakRssBytes: null,
      finishedDigest: null,
      times: new StepTimes(),
    });
    this.explainGathering();
    return [
      {
        kind: 'send',
        worker: id,
        message: {
          kind: 'welcome',
          protocol: PROTOCOL_VERSION,
          worker: id,
          config,
          step: this.step,
          term: this.options.term,
        },
      },
      { kind: 'tell', event: { kind: 'worker-joined', worker: id, host: message.host, pid: message.pid } },
    ];
  }

  private explainGathering(): void {
    if (this.phase !== 'gathering') return;
    const readyCount = [...this.workers.values()].filter((w) => w.ready !== null && w.isConnected).length;
    this.because = `${readyCount} of ${this.workersExpected} workers ready`;
  }

  private ready(worker: Worker, message: ReadyMessage, nowMs: number): Effect[] {
    if (worker.ready !== null) return this.accuse(worker, nowMs, 'a second "ready"');
    const decision = admit(
      this.reference,
      { worker: worker.id, ready: message },
      { allowMixed: this.options.allowMixedEngines },
    );
    if (decision.kind === 'refused') {
      const { code, because } = decision;
      const refusal: Effect[] = [
        { kind: 'send', worker: worker.id, message: { kind: 'refused', code, because } },
        { kind: 'tell', event: { kind: 'worker-refused', worker: worker.id, code, because } },
      ];
      if (this.isOfLauncher(worker)) return [...refusal, ...this.failed(worker, nowMs, code, because)];
      this.workers.delete(worker.id);
      return [...refusal, { kind: 'disconnect', worker: worker.id, code, because }];
    }
    if (decision.mixed !== null) this.reproducible = false;
    this.reference ??= { worker: worker.id, ready: message };
    worker.ready = message;
    worker.state = 'ready';
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
    return [...effects, ...this.takeIn(nowMs)];
  }

  /** Opens the first generation when everybody expected is ready; later, another for newcomers who can be of use. */
  private takeIn(nowMs: number): Effect[] {
    const ready = this.newcomers();
    if (this.phase === 'gathering') {
      this.rejoiningSinceMs ??= ready.some((w) => w.rejoined !== null) ? nowMs : null;
      const patienceMs = REJOIN_MS + (this.options.isBeforeHung ? BUSY_SILENCE.ceilingMs : 0);
      const isLate = this.rejoiningSinceMs !== null && nowMs - this.rejoiningSinceMs >= patienceMs;
      // Those who stepped together without a coordinator have each a part of what was evaluated: a newcomer is none of them.
      const { back, wereTogether } = returnedOf(ready);
      const isSomebodyMissing = ready.length < this.workersExpected || back.length + this.lostUnmet < wereTogether;
      if (isSomebodyMissing && !(isLate && ready.length >= this.options.minWorkers)) return [];
      const because = `${ready.length} of ${this.workersExpected} workers ready`;
      // The launcher's order where there is one, so that rank r is the launcher's process r.
      return this.regroup(because, nowMs, { graceful: true, newcomers: ready.toSorted(byLocalRank) });
    }
    if (this.isSomebodyComingBack(ready, nowMs)) return [];
    const isFull = this.members().length >= this.places;
    // A newcomer can't take over residuals: until it is needed it waits.
    const isOfUse = this.phase === 'waiting' || this.options.config.gradientCompression === 'none';
    if (this.formation !== null || !this.isTraining() || isFull || !isOfUse || ready.length === 0) {
      for (const worker of ready) worker.state = 'spare';
      return [];
    }
    const because = `${ready.map((w) => w.id).join(', ')} joined`;
    return this.regroup(because, nowMs, { graceful: true, newcomers: ready });
  }

  /**
   * All members were lost at once, as when their network was, and some of them are back: the others may have done one step more. They get a
   * moment, so that it need not be done again.
   */
  private isSomebodyComingBack(ready: readonly Worker[], nowMs: number): boolean {
    if (this.phase !== 'waiting' || this.formation !== null || this.members().length > 0) return false;
    const { together, wereTogether } = returnedOf(ready);
    if (together.length >= wereTogether) return false;
    this.rejoiningSinceMs ??= nowMs;
    return nowMs - this.rejoiningSinceMs < REJOIN_MS;
  }

  /** Newcomers are of use: there are steps to be done, or nobody is left who could end the run. */
  private isTraining(): boolean {
    if (this.phase === 'stopping') return false;
    if (this.step < this.options.config.steps || this.phase === 'waiting') return true;
    return this.members().every((w) => w.state === 'lost' || !w.isConnected);
  }

  private newcomers(): Worker[] {
    return [...this.workers.values()].filter(
      (w) => w.rank === null && w.isConnected && (w.state === 'ready' || w.state === 'spare'),
    );
  }

  /** Members of a generation at most. */
  private get places(): number {
    return Math.min(this.options.config.microbatches, this.options.maxWorkers);
  }

  // ---- generations

  /** Opens a generation of the survivors and of as many others as there are places. */
  private regroup(
    because: string,
    nowMs: number,
    { graceful, newcomers = this.newcomers() }: { graceful: boolean; newcomers?: readonly Worker[] },
  ): Effect[] {
    this.suspicions.drop();
    this.rejoiningSinceMs = null;
    this.stall.progress(nowMs);
    const survivors = this.members().filter((w) => w.isConnected && w.state !== 'lost');
    const active = [...survivors, ...newcomers].slice(0, this.places);
    for (const worker of this.workers.values()) {
      worker.rank = null;
      if (worker.state === 'ready' || worker.state === 'joining') worker.state = 'spare';
    }
    this.formation = null;
    if (active.length === 0) return this.wait(because, nowMs);
    const inOrder = byHost(active);
    inOrder.forEach((worker, rank) => {
      worker.rank = rank;
      worker.lastRank = rank;
      if (!this.begun.includes(worker.id)) worker.state = 'joining';
    });
    this.generation++;
    const { minWorkers } = this.options;
    const hold = inOrder.length < minWorkers;
    const shares = graceful || hold ? null : this.sharesKept(inOrder);
    const members = inOrder.map((w) => ({
      worker: w.id,
      rank: w.rank ?? 0,
      peerUrl: w.ready?.peerUrl ?? '',
      host: w.host,
    }));
    this.formation = new Formation({
      generation: this.generation,
      members: inOrder.map((w) => w.id),
      because,
      hold,
      shares,
    });
    if (this.phase !== 'stopping') {
      this.phase = hold ? 'waiting' : 'training';
      this.because = hold ? tooFew(inOrder.length, minWorkers, because) : because;
    }
    if (hold) this.waitingSinceMs ??= nowMs;
    const afterwards: Effect[] = inOrder.map((worker, rank) => ({
      kind: 'send',
      worker: worker.id,
      message: {
        kind: 'generation',
        generation: this.generation,
        graceful: graceful && this.canAgree(worker, active),
        rank,
        worldSize: inOrder.length,
        members,
        ...(shares !== null && { shares: shares.map((share) => [...share]) }),
        because,
      },
    }));
    // On record before anybody hears of it, so that no number is used twice.
    const record = {
      kind: 'generation' as const,
      generation: this.generation,
      members: inOrder.map((w) => w.id),
      ...(shares !== null && { shares }),
      because,
    };
    return [{ kind: 'journal', record, afterwards }];
  }

  /**
   * In a step that takes long nobody computes again what he has, or another's while his own waits to be done: survivors keep their
   * microbatches, and those of the lost are shared out. Null: evenly, by rank.
   */
  private sharesKept(inOrder: readonly Worker[]): Shares | null {
    const { microbatches, gradientCompression } = this.options.config;
    const before = inOrder.map(({ id }) => this.sharesBegun.get(id) ?? []);
    const computing = inOrder.flatMap(({ times: { now, mean } }) => now ?? mean ?? []).map((p) => p.data + p.compute);
    const isLong = computing.length === 0 || Math.max(...computing) >= KEPT_FROM_SECONDS;
    // Residuals lie with an even cut. And whoever is distrusted has computed from other weights.
    if (gradientCompression !== 'none' || this.isDistrusted || !isLong || before.every((share) => share.length === 0))
      return null;
    const shares = keptShares(microbatches, before);
    const even = evenShares(microbatches, inOrder.length);
    return shares.every((share, rank) => String(share) === String(even[rank])) ? null : shares;
  }

  /**
   * The generation that a worker is in can end by an agreement of its members. That of one that came back can't where some are missing: if
   * one of them is dead, no step of it will ever end.
   */
  private canAgree({ generation, rejoined }: Worker, active: readonly Worker[]): boolean {
    if (rejoined === null || rejoined.generation === 0 || generation !== rejoined.generation) return true;
    return active.filter((w) => w.generation === generation).length === rejoined.worldSize;
  }

  /** Nobody is left to train; somebody may come. */
  private wait(because: string, nowMs: number): Effect[] {
    this.begun = [];
    this.sharesBegun = new Map();
    this.gathering = null;
    if (this.phase === 'stopping') return this.endStopped();
    this.phase = 'waiting';
    this.because = tooFew(0, this.options.minWorkers, because);
    this.waitingSinceMs ??= nowMs;
    if (this.options.supervised && this.processes === 0 && !this.losses.isOpen && this.losses.first !== null) {
      return this.failBy(this.losses.first);
    }
    return [{ kind: 'tell', event: { kind: 'waiting', because: this.because } }];
  }

  private linked(worker: Worker, message: Extract<WorkerMessage, { kind: 'linked' }>, nowMs: number): Effect[] {
    const { formation } = this;
    if (formation?.generation !== message.generation) return [];
    formation.linked(worker.id, message);
    if (!formation.isComplete) return [];
    const isCompressed = this.options.config.gradientCompression !== 'none';
    const initialDigest = this.reference?.ready.weightsDigest ?? '';
    // Who is wrong is looked for before all go back.
    const seen = formation.decide(this.kept, initialDigest, isCompressed);
    const decision =
      seen.kind === 'begin' && this.isDistrusted ? formation.decide(this.trusted, initialDigest, true) : seen;
    if (decision.kind === 'begin') {
      if (this.isDistrusted && ++this.rollbacks > ROLLBACKS_MAX) {
        const again = `members' weights differ again and again after step ${this.trustedStep}, and nobody is found to be wrong`;
        return this.failBy(this.causeOf(worker, 'E_DIGEST', again));
      }
      return this.begin(formation, decision, nowMs);
    }
    const named = decision.workers.join(', ');
    const because = `after step ${decision.step} the weights of ${named} are not the others'`;
    if (decision.kind === 'undecided') {
      const tie = `after step ${decision.step} ${named} hold different weights, and no majority says whose are right`;
      return this.failBy(this.causeOf(worker, 'E_DIGEST', tie));
    }
    const deviants = decision.workers.flatMap((id) => this.workers.get(id) ?? []);
    this.isDistrusted = true;
    const expelled = deviants.flatMap((deviant) => this.expel(deviant, nowMs, 'E_DIGEST', because));
    return [...expelled, ...this.regroup(because, nowMs, { graceful: false })];
  }

  private begin(formation: Formation, beginning: Beginning, nowMs: number): Effect[] {
    const { generation, because } = formation;
    const { step, source, digest } = beginning;
    // Where nothing is left to be trained, few are enough.
    const hold = formation.hold && step < this.options.config.steps;
    // By whom those before were: members change below.
    const late = [...this.commitWhatIsKnown(step), ...this.concludeEvaluations()];
    this.formation = null;
    this.begun = formation.members;
    const { microbatches } = this.options.config;
    const shares = formation.shares ?? evenShares(microbatches, formation.members.length);
    this.sharesBegun = new Map(formation.members.map((id, rank) => [id, shares[rank] ?? []]));
    this.isHolding = hold;
    if (!hold) this.waitingSinceMs = null;
    // Steps that are on record and whose result nobody has any more are done again.
    if (this.isResumedAnew)
      this.stepsLost = Math.max(0, (this.options.resumed?.step ?? 0) + this.options.stepsLost - step);
    else this.stepsLost += Math.max(0, this.stepHeld - step);
    const isTakingOver = this.isResumedAnew;
    this.isResumedAnew = false;
    this.stepHeld = step;
    this.generationFirstStep = step + 1;
    const distrusted = this.isDistrusted;
    if (distrusted && this.measuredStep > step) late.push({ kind: 'unmeasure', step });
    if (distrusted) this.forgetAfter(step);
    this.isDistrusted = false;
    late.push(...this.leaveUntested(step));
    this.evaluations.clear();
    this.digests.clear();
    this.stall.begin(nowMs);
    const members = this.members();
    this.gathering = this.gatheringOf(members);
    const isKept = (this.kept?.step ?? 0) >= step;
    const evaluate = !hold && this.isEvaluated(step) && this.evaluations.step < step;
    // Where a coordinator finds none at all, and workers that have done steps, it takes the first chance.
    const isWanted = isTakingOver && this.kept === null && step > 0;
    const keep =
      !isKept && (hold || isWanted || isKeptAfter({ plan: this.options.plan, ...this.options.config }, step));
    if (this.phase !== 'stopping' && !hold) {
      this.phase = evaluate ? 'evaluating' : 'training';
      this.because = evaluate ? `evaluating after step ${step}` : because;
    }
    const spares = this.newcomers().length;
    const effects: Effect[] = [
      ...late,
      { kind: 'journal', record: { kind: 'begin', generation, step, digest, ...(distrusted && { distrusted }) } },
      {
        kind: 'tell',
        event: hold
          ? { kind: 'waiting', because: this.because }
          : { kind: 'generation', generation, worldSize: members.length, spares, because },
      },
    ];
    const names = this.replicaVectors();
    for (const worker of members) {
      worker.generation = generation;
      worker.step = step;
      worker.state = 'training';
      worker.finishedDigest = null;
      worker.times.begin();
      const message = { kind: 'begin' as const, generation, step, source, digest, evaluate, keep, hold };
      effects.push({ kind: 'send', worker: worker.id, message });
      if (source.kind === 'coordinator' && this.kept !== null) {
        const vectors = [...names, ...this.residualsOf(worker.rank ?? 0, members.length)];
        effects.push({ kind: 'send-state', worker: worker.id, state: this.kept, vectors });
      }
      if (this.phase === 'stopping') {
        effects.push({ kind: 'send', worker: worker.id, message: { kind: 'stop', because: this.because } });
      }
    }
    if (this.options.config.auditRate > 0 && members.length === 1 && !hold) {
      const nobody = '--audit: there is no second worker to compute anything again, so nothing is audited';
      effects.push({ kind: 'tell', event: { kind: 'warning', message: nobody } });
    }
    if (hold && this.phase === 'stopping') return [...effects, ...this.endWhenComplete()];
    // Who became ready while it formed.
    effects.push(...this.takeIn(nowMs));
    const isMore = !hold && this.phase !== 'stopping' && step + 1 < this.options.config.steps;
    if (!isMore || this.formation !== null || areEven(microbatches, shares)) return effects;
    // For the step in flight only: runs of microbatches travel as one.
    const evenly = 'the microbatches are shared out evenly again';
    return [...effects, ...this.regroup(evenly, nowMs, { graceful: true, newcomers: [] })];
  }

  private replicaVectors(): string[] {
    return ['weights', ...(this.reference?.ready.optimizer.slots ?? []).map((slot) => `slot:${slot}`)];
  }

  private gatheringOf(members: readonly Worker[]): StateGathering {
    const layout = this.reference?.ready.layout ?? [];
    const size = layout.reduce((sum, entry) => sum + entry.length, 0);
    const trainable = layout.reduce((sum, entry) => sum + (entry.trainable ? entry.length : 0), 0);
    const sent = members.map(({ id }, rank): [string, string[]] => [
      id,
      [...(rank === 0 ? this.replicaVectors() : []), ...this.residualsOf(rank, members.length)],
    ]);
    return new StateGathering(new Map(sent.filter(([, names]) => names.length > 0)), (name) =>
      name === 'weights' ? size : trainable,
    );
  }

  /** The residuals that a rank has, by name; none without compression. */
  private residualsOf(rank: number, worldSize: number): string[] {
    const { gradientCompression, microbatches } = this.options.config;
    if (gradientCompression === 'none') return [];
    return (evenShares(microbatches, worldSize)[rank] ?? []).map(residualName);
  }

  /** A member could not go on. If a process of the present generation has died, the news of that is under way; else a link has. */
  private interrupted(
    worker: Worker,
    message: Extract<WorkerMessage, { kind: 'interrupted' }>,
    nowMs: number,
  ): Effect[] {
    this.microbatchesRecomputed += message.computed;
    if (message.generation !== this.generation) return [];
    const accused = this.members().find((w) => w.rank === message.peer);
    this.suspicions.suspect(`${worker.id}: ${message.because}`, accused?.id ?? null, nowMs);
    return [];
  }

  private concludeSuspicion(nowMs: number): Effect[] {
    const found = this.suspicions.conclude(nowMs);
    if (found === null) return [];
    const { because } = found;
    const culprit = this.workers.get(found.culprit ?? '');
    const expelled =
      culprit === undefined || culprit.rank === null
        ? []
        : this.expel(culprit, nowMs, 'E_PEER_LOST', `no peer can keep a link to it: ${because}`);
    return [...expelled, ...this.regroup(because, nowMs, { graceful: false })];
  }

  /** A spare takes the place of a member that the others wait for, after the step in flight. */
  private replaceStraggler(nowMs: number): Effect[] {
    const { stragglerLimit } = this.options;
    const spares = this.newcomers();
    if (stragglerLimit === 0 || spares.length === 0 || this.formation !== null || this.phase !== 'training') return [];
    const timed = this.members().map(({ id, times }) => ({ worker: id, steps: times.recentSteps, phases: times.now }));
    const straggler = stragglerOf(timed, stragglerLimit);
    const slow = straggler === null ? undefined : this.workers.get(straggler.worker);
    if (straggler === null || slow === undefined) return [];
    slow.rank = null;
    slow.state = 'spare';
    const because = `${slow.id} makes room for a spare: ${straggler.because}`;
    const told: Effect = { kind: 'tell', event: { kind: 'warning', message: because } };
    return [told, ...this.regroup(because, nowMs, { graceful: true, newcomers: spares })];
  }

  /** Somebody's engine may hang: the others wait for it, in a step or to link up, and nobody reports. */
  private findHung(nowMs: number): Effect[] {
    const members = this.members();
    const isStepping = this.phase === 'training' || this.phase === 'evaluating' || this.phase === 'stopping';
    const isForming = this.formation !== null;
    if ((!isStepping && !isForming) || (this.isHolding && !isForming) || members.length < 2 || this.areThrough()) {
      this.stall.rest();
      return [];
    }
    const asked = members.map(({ id }) => {
      const share = isForming ? 0 : (this.sharesBegun.get(id)?.length ?? 0);
      return { worker: id, generation: this.generation, share };
    });
    const look = this.stall.look(asked, this.phase === 'evaluating', nowMs);
    switch (look.kind) {
      case 'well':
        return [];
      case 'ask':
        return members.map((w): Effect => ({ kind: 'send', worker: w.id, message: { kind: 'probe' } }));
      case 'unknown': {
        const told: Effect = { kind: 'tell', event: { kind: 'warning', message: look.because } };
        return look.allWait ? [told, ...this.regroup(look.because, nowMs, { graceful: false })] : [told];
      }
      case 'hung': {
        const hung = members.filter(({ id }) => look.workers.includes(id));
        const expelled = hung.flatMap((worker) => [
          ...this.expel(worker, nowMs, 'E_STALLED', look.because),
          // It may not hear that it is sent away.
          ...(worker.localRank !== null
            ? [{ kind: 'end-worker' as const, host: worker.host, localRank: worker.localRank, pid: worker.pid }]
            : []),
        ]);
        return [...expelled, ...this.regroup(look.because, nowMs, { graceful: false })];
      }
    }
  }

  // ---- steps

  private report(worker: Worker, message: Extract<WorkerMessage, { kind: 'report' }>, nowMs: number): Effect[] {
    // A worker's reports of a generation come before it links up in the next; later ones are of a generation that it left.
    if (message.generation !== worker.generation && !isOfBefore(worker, message.generation)) return [];
    const effects: Effect[] = [];
    for (const step of message.steps) {
      effects.push(...this.stepDone(worker, step, message.generation, nowMs));
      if (this.ended || worker.state === 'lost') return effects;
    }
    // Until the first generation of this coordinator begins, it does not know who is whose peer.
    if (this.begun.length === 0) return effects;
    this.progress.traffic(message.links);
    for (const link of message.links) {
      const peer = this.workers.get(this.begun[link.peer] ?? '');
      if (peer === undefined || peer === worker)
        return [...effects, ...this.accuse(worker, nowMs, `a link to rank ${link.peer} reported`)];
      effects.push({ kind: 'worker-traffic', worker: worker.id, peer: peer.id, link });
    }
    return effects;
  }

  private stepDone(worker: Worker, report: StepReport, generation: number, nowMs: number): Effect[] {
    // Among those that it repeats are none whose result it took from a peer.
    const isRepeated = worker.rejoined !== null && worker.ready === null && report.step > worker.step;
    if (worker.step !== UNKNOWN_STEP && report.step !== worker.step + 1 && !isRepeated)
      return this.accuse(worker, nowMs, `step ${report.step} reported after step ${worker.step}`);
    worker.step = report.step;
    this.stepHeld = Math.max(this.stepHeld, report.step);
    worker.rssBytes = report.rssBytes;
    worker.peakRssBytes = Math.max(worker.peakRssBytes ?? 0, report.rssBytes);
    if (worker.localRank !== null) this.restarts.delete(worker.localRank);
    this.progress.phases(report.phases);
    worker.times.add(report.phases);
    this.stall.step(report.seconds, nowMs);
    const effects: Effect[] = [{ kind: 'worker-step', worker: worker.id, report }];
    const agreed = this.agreed.get(report.step);
    if (agreed === undefined) {
      this.agreed.set(report.step, report.lossSum);
      this.agreed.delete(report.step - REMEMBERED_STEPS);
    } else if (!Object.is(agreed, report.lossSum)) {
      const because = `${worker.id} computed the loss sum ${report.lossSum} at step ${report.step}, others ${agreed}`;
      return [...effects, ...this.compareWeights(because, nowMs)];
    }
    if (report.step > this.step) effects.push(...this.commitInOrder(report, generation), ...this.concludeEvaluations());
    else if (report.step === this.measuredStep + 1) {
      this.measuredStep++;
      effects.push({ kind: 'measure', event: stepEvent(report, generation) });
    }
    return [...effects, ...this.compareDigests(worker, report, nowMs), ...this.compareAudits(worker, report, nowMs)];
  }

  /** Who holds other weights than the majority is sent away; where there is none, a new generation shows it again, and ends the run. */
  private compareDigests(worker: Worker, { step, digest }: StepReport, nowMs: number): Effect[] {
    if (digest === undefined || this.begun.length === 0) return [];
    const verdict = this.digests.accept(worker.id, step, digest, this.begun);
    if (verdict.kind === 'agreed') this.trust(step);
    if (verdict.kind !== 'deviating') return [];
    const { workers, because } = verdict;
    // Gradients of the wrong weights may be in everybody's by now.
    this.isDistrusted ||= verdict.digest !== null;
    const told: Effect = { kind: 'tell', event: { kind: 'mismatch', what: 'weights', step, workers, because } };
    const deviants = verdict.digest === null ? [] : workers.flatMap((id) => this.workers.get(id) ?? []);
    const expelled = deviants.flatMap((deviant) => this.expel(deviant, nowMs, 'E_DIGEST', because));
    return [told, ...expelled, ...this.regroup(because, nowMs, { graceful: false })];
  }

  /** All members held the same weights after `step`: so they did before. */
  private trust(step: number): void {
    if (step > this.trustedStep) this.rollbacks = 0;
    this.trustedStep = Math.max(this.trustedStep, step);
    if (this.kept !== null && this.kept.step <= this.trustedStep) this.trusted = this.kept;
  }

  /** What was done after `step` may have been wrong, and is done again. */
  private forgetAfter(step: number): void {
    this.agreed.clear();
    this.measuredStep = Math.min(this.measuredStep, step);
    this.kept = this.trusted;
    if (this.heldState !== null && this.heldState.step > step) this.heldState = null;
  }

  /** Whose microbatch had other bits is sent away, and the others go back to what was kept before it. */
  private compareAudits(worker: Worker, { step, audits = [] }: StepReport, nowMs: number): Effect[] {
    const effects: Effect[] = [];
    if (this.begun.length === 0) return effects;
    for (const { owner, auditor, culprit, because, ...found } of this.audits.accept(
      worker.id,
      step,
      audits,
      this.begun,
    )) {
      const workers = culprit === null ? [owner, auditor] : [culprit];
      effects.push({
        kind: 'tell',
        event: { kind: 'mismatch', what: 'microbatch', step: found.step, workers, because },
      });
      const accused = this.workers.get(culprit ?? '');
      if (accused === undefined || (this.kept?.step ?? 0) >= found.step) {
        const named = accused ?? this.workers.get(owner) ?? worker;
        return [...effects, ...this.failBy(this.causeOf(named, 'E_DIGEST', because))];
      }
      this.isDistrusted = true;
      // It is from before the wrong gradient.
      this.trusted = this.kept;
      effects.push(...this.expel(accused, nowMs, 'E_DIGEST', because));
      effects.push(...this.regroup(because, nowMs, { graceful: false }));
    }
    return effects;
  }

  /** Replicas contradict each other: a new generation compares their weights, and the majority's stay. */
  private compareWeights(because: string, nowMs: number): Effect[] {
    const warning: Effect = { kind: 'tell', event: { kind: 'warning', message: because } };
    this.isDistrusted = true;
    return [warning, ...this.regroup(because, nowMs, { graceful: false })];
  }

  /** Commits a step, and those after it that were reported before it; one whose predecessor is missing waits. */
  private commitInOrder(report: StepReport, generation: number): Effect[] {
    this.early.set(report.step, { report, generation });
    const effects: Effect[] = [];
    for (let next = this.early.get(this.step + 1); next !== undefined; next = this.early.get(this.step + 1)) {
      this.early.delete(next.report.step);
      effects.push(...this.commit(next.report, next.generation));
    }
    return effects;
  }

  /** All members have done `step` steps: what is not known by now of those before is not going to be. */
  private commitWhatIsKnown(step: number): Effect[] {
    const effects: Effect[] = [];
    const known = [...this.early.values()].toSorted((a, b) => a.report.step - b.report.step);
    this.early.clear();
    for (const { report, generation } of known) {
      if (report.step <= this.step || report.step > step) continue;
      if (report.step > this.step + 1) effects.push(...unreported(this.step + 1, report.step - 1));
      effects.push(...this.commit(report, generation));
    }
    if (step > this.step) effects.push(...unreported(this.step + 1, step));
    this.step = Math.max(this.step, step);
    return effects;
  }

  /** The first report of a step commits it: every rank has summed the same gradient by then. */
  private commit(report: StepReport, generation: number): Effect[] {
    this.step = report.step;
    this.measuredStep = report.step;
    this.ownErrors = 0;
    this.suspicions.clear();
    this.progress.step(report, report.step === this.generationFirstStep);
    const effects: Effect[] = [{ kind: 'tell', event: stepEvent(report, generation) }];
    const epochEnds = report.step % stepsPerEpoch(this.options.plan) === 0;
    if (epochEnds) this.progress.endEpoch(placeOfStep(this.options.plan, report.step - 1).epoch + 1, report.step);
    if (this.phase === 'training' && this.isEvaluated(report.step)) {
      this.phase = 'evaluating';
      this.because = `evaluating after step ${report.step}`;
    } else if (this.phase === 'evaluating') {
      this.phase = 'training';
      this.because = 'all members step';
    }
    return effects;
  }

  private isEvaluated(step: number): boolean {
    return isEvaluatedAfter({ plan: this.options.plan, steps: this.options.config.steps }, step);
  }

  private evaluation(worker: Worker, message: EvaluationReport, nowMs: number): Effect[] {
    if (message.generation !== worker.generation && !isOfBefore(worker, message.generation)) return [];
    if (message.step <= this.evaluations.step) return [];
    const other = this.evaluations.accept(worker.id, message);
    if (other !== null) {
      const because = `${worker.id} holds the weights ${message.digest.slice(0, 16)} after step ${message.step}, others ${other.slice(0, 16)}`;
      return this.compareWeights(because, nowMs);
    }
    this.stall.progress(nowMs);
    return this.concludeEvaluations();
  }

  /**
   * Completes the evaluations that are whole, of steps that are committed: workers that come back to another coordinator may tell of an
   * evaluation before somebody tells of the steps before it.
   */
  private concludeEvaluations(): Effect[] {
    const effects: Effect[] = [];
    const evaluators = {
      members: this.begun,
      testSamples: this.options.config.testSamples,
      togetherWith: (id: string) => this.workers.get(id)?.rejoined?.worldSize,
    };
    for (;;) {
      const whole = this.evaluations.nextWhole(this.step, evaluators);
      if (whole === null) return effects;
      effects.push(...this.concludeEvaluation(whole));
    }
  }

  private concludeEvaluation({ step, digest, chunks }: WholeEvaluation): Effect[] {
    this.trust(step);
    const effects = this.leaveUntested(step);
    const completed = this.progress.evaluated(step, sumEvaluation(chunks));
    if (this.phase === 'evaluating' && step < this.options.config.steps) {
      this.phase = 'training';
      this.because = 'all members step';
    }
    if (completed !== null) {
      effects.push(
        { kind: 'tell', event: { kind: 'epoch', report: completed, epochs: this.options.config.epochs } },
        {
          kind: 'journal',
          record: {
            kind: 'epoch',
            step,
            epoch: completed.epoch,
            digest,
            loss: completed.loss,
            testLoss: completed.testLoss,
            testAccuracy: completed.testAccuracy,
          },
        },
      );
    }
    return [...effects, ...this.writeHeldState(), ...this.endWhenComplete()];
  }

  /** Completes the epochs before `step` whose evaluation is not going to be whole: all who are here have told theirs by now. */
  private leaveUntested(step: number): Effect[] {
    return this.progress.withoutEvaluation(step).flatMap(({ report }): Effect[] => {
      const message = `epoch ${report.epoch} has no evaluation: of those who made it, somebody is gone`;
      return [
        { kind: 'tell', event: { kind: 'warning', message } },
        { kind: 'tell', event: { kind: 'epoch', report, epochs: this.options.config.epochs } },
      ];
    });
  }

  private statePart(worker: Worker, message: Extract<WorkerMessage, { kind: 'state' }>): Effect[] {
    let state: ReplicaState | null = null;
    try {
      state = this.gathering?.accept(worker.id, message) ?? null;
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      return [{ kind: 'disconnect', worker: worker.id, code: error.code, because: error.message }];
    }
    // After a loss steps may be done again whose state is kept already.
    if (state === null || state.step <= (this.kept?.step ?? -1)) return [];
    this.digest = state.digest;
    this.digestStep = state.step;
    this.kept = state;
    this.heldState = state;
    this.trust(0);
    return [...this.writeHeldState(), ...this.endWhenComplete()];
  }

  /** A state at the end of an epoch is written once the epoch's evaluation is known, so that its record is whole. */
  private writeHeldState(): Effect[] {
    const state = this.heldState;
    if (state === null) return [];
    const { config } = this.options;
    if (this.isEvaluated(state.step) && this.evaluations.step < state.step) return [];
    this.heldState = null;
    this.writing++;
    const final = state.step === config.steps || this.phase === 'stopping';
    return [{ kind: 'write-checkpoint', state, progress: this.progress.record(), final }];
  }

  // ---- the end

  private finished(worker: Worker, message: Extract<WorkerMessage, { kind: 'finished' }>, nowMs: number): Effect[] {
    // Who came back from another coordinator is asked again, in the generation that it is taken into.
    if (message.generation !== worker.generation || this.formation !== null || worker.rank === null) return [];
    worker.state = 'finished';
    worker.finishedDigest = message.digest;
    worker.peakRssBytes = message.peakRssBytes;
    const other = this.members().find((w) => w.finishedDigest !== null && w.finishedDigest !== message.digest);
    if (other !== undefined) {
      const because = `${worker.id} ends with the weights ${message.digest.slice(0, 16)}, ${other.id} with ${other.finishedDigest?.slice(0, 16)}`;
      return this.compareWeights(because, nowMs);
    }
    this.digest = message.digest;
    this.digestStep = message.step;
    return this.endWhenComplete();
  }

  private endWhenComplete(): Effect[] {
    if (this.formation !== null || this.writing > 0 || this.heldState !== null) return [];
    const areThrough = this.areThrough();
    // Not by the record: those who stopped may have been doing steps again.
    const isDone = areThrough && this.members().every((w) => w.step >= this.options.config.steps);
    if (isDone) {
      const record = { kind: 'finished' as const, step: this.step, digest: this.digest ?? '' };
      return [{ kind: 'journal', record }, ...this.end('done', 'the run is done')];
    }
    const isHeldStateKept = this.isHolding && (this.kept?.step ?? 0) >= this.generationFirstStep - 1;
    return areThrough || (isHeldStateKept && this.phase === 'stopping') ? this.endStopped() : [];
  }

  /** All members have finished: what is left is to write their last state. */
  private areThrough(): boolean {
    const members = this.members();
    return this.formation === null && members.length > 0 && members.every((w) => w.state === 'finished');
  }

  private endStopped(): Effect[] {
    const record = { kind: 'stopped' as const, step: this.step, because: this.because };
    return [{ kind: 'journal', record }, ...this.end('stopped', this.because)];
  }

  private stop(because: string): Effect[] {
    if (this.phase === 'stopping' || this.losses.isEnding) return [];
    const hasMembers = this.members().length > 0;
    this.phase = 'stopping';
    this.because = because;
    const told: Effect = { kind: 'tell', event: { kind: 'stopping', because } };
    if (!hasMembers) return [told, ...this.endStopped()];
    // Members of a generation that forms hear of it when it begins.
    const members = this.members().filter((w) => this.begun.includes(w.id));
    const effects = members.map((w): Effect => ({ kind: 'send', worker: w.id, message: { kind: 'stop', because } }));
    return [told, ...effects, ...this.endWhenComplete()];
  }

  private end(outcome: Outcome, because: string): Effect[] {
    this.ended = true;
    this.phase = outcome;
    this.because = because;
    const goodbyes: Effect[] = [...this.workers.values()]
      .filter((w) => w.isConnected && w.state !== 'lost')
      .map((w) => ({ kind: 'send', worker: w.id, message: { kind: 'dismissed', outcome, because } }));
    return [...goodbyes, { kind: 'end', outcome }];
  }

  // ---- losses

  private disconnected(id: string, because: string, nowMs: number): Effect[] {
    const worker = this.workers.get(id);
    if (worker === undefined) return [];
    worker.isConnected = false;
    // Until all have finished, the others may still lack what it sent them last.
    if (worker.state === 'finished' && this.areThrough()) return [];
    if (worker.state === 'lost') return this.conclude(nowMs);
    if (worker.rank === null && !this.isOfLauncher(worker)) {
      // Not a loss to a run that goes on without it.
      this.workers.delete(id);
      this.explainGathering();
      return [{ kind: 'tell', event: { kind: 'warning', message: `${id} on ${worker.host} left: ${because}` } }];
    }
    this.losses.of(id, nowMs).linkLost(id, worker);
    return this.lose(worker, nowMs);
  }

  private processEnded(input: Extract<Input, { kind: 'process-ended' }>, nowMs: number): Effect[] {
    this.processes--;
    // The last one: a worker that came back has an entry for each time.
    const worker = [...this.workers.values()].findLast((w) => w.pid === input.pid && w.localRank === input.localRank);
    if (worker?.state === 'finished' && this.areThrough()) {
      worker.isConnected = false;
      return [];
    }
    const who = worker?.id ?? `worker process ${input.localRank}`;
    const key = worker?.id ?? `pid ${input.pid}`;
    // Who died before this coordinator had met it.
    if (worker === undefined) {
      this.workersLost++;
      this.lostUnmet++;
    }
    if (!this.losses.isTold(key)) {
      const place = worker ?? { rank: null, host: 'this host', pid: input.pid };
      this.losses.of(key, nowMs).processEnded(who, place, input.end);
    }
    // One that ends by itself before it has begun would do so again.
    const isKnownLost = this.losses.isTold(key) || worker?.state === 'lost';
    const isFirst = this.phase === 'gathering' && this.generation === 0;
    if (isFirst && input.end.exitCode !== null && !isKnownLost) this.losses.condemn(key);
    const restarted = this.restart(input.localRank, key);
    // The launcher may be quicker than the link.
    const lost = worker === undefined ? this.conclude(nowMs) : this.lose(worker, nowMs);
    return [...restarted, ...lost];
  }

  private restart(localRank: number, key: string): Effect[] {
    const restarts = this.restarts.get(localRank) ?? 0;
    // When all steps are done, too: until all members have finished, those who are left may be lost as well.
    const isNeeded = this.phase !== 'stopping' && !this.areThrough();
    if (!isNeeded || this.losses.isFatal(key) || restarts >= this.options.restartLimit) return [];
    this.restarts.set(localRank, restarts + 1);
    this.processes++;
    return [{ kind: 'start-worker', localRank, attempt: restarts + 1 }];
  }

  /** The launcher has its process, and would start it anew; others come as guests. */
  private isOfLauncher({ localRank }: Worker): boolean {
    return this.options.supervised && localRank !== null;
  }

  /** A worker told its own error, or was refused for it. */
  private failed(worker: Worker, nowMs: number, code: string, message: string): Effect[] {
    this.losses.of(worker.id, nowMs).error(worker.id, worker, code, message);
    const isNeeded = worker.rank !== null || this.phase === 'gathering';
    const isOwn = !isConsequence(code);
    if (isOwn && isNeeded) this.ownErrors++;
    // The second in one step is no accident any more.
    if (isNeeded && isOwn && (isInherent(code) || this.ownErrors > 1)) {
      this.losses.condemn(worker.id);
      return this.conclude(nowMs);
    }
    return this.lose(worker, nowMs);
  }

  private accuse(worker: Worker, nowMs: number, what: string): Effect[] {
    const because = `${worker.id} broke the protocol: ${what}`;
    const hadRank = worker.rank !== null;
    const expelled = this.expel(worker, nowMs, 'E_PROTOCOL', because);
    return hadRank ? [...expelled, ...this.regroup(because, nowMs, { graceful: false })] : expelled;
  }

  /** Sends a worker away; the caller opens a generation without it. */
  private expel(worker: Worker, nowMs: number, code: string, because: string): Effect[] {
    this.losses.of(worker.id, nowMs).error(worker.id, worker, code, because);
    this.markLost(worker);
    return [
      { kind: 'tell', event: { kind: 'worker-refused', worker: worker.id, code, because } },
      { kind: 'send', worker: worker.id, message: { kind: 'refused', code, because } },
      { kind: 'disconnect', worker: worker.id, code, because },
      ...this.conclude(nowMs),
    ];
  }

  private markLost(worker: Worker): void {
    if (worker.state === 'lost') return;
    worker.state = 'lost';
    this.workersLost++;
  }

  /** A worker is gone; if it was a member, the others go on in a new generation. */
  private lose(worker: Worker, nowMs: number): Effect[] {
    const wasMember = worker.rank !== null && worker.state !== 'lost';
    this.markLost(worker);
    this.explainGathering();
    const told = this.conclude(nowMs);
    if (this.ended || !wasMember || this.losses.isEnding) return told;
    return [...told, ...this.regroup(`${worker.id} on ${worker.host} is lost`, nowMs, { graceful: false })];
  }

  /** Tells of the losses whose story is known by now; ends the run if one of them must, or if nobody is left. */
  private conclude(nowMs: number): Effect[] {
    const { told, fatal } = this.losses.conclude(nowMs);
    const effects = told.flatMap((cause): Effect[] => [
      { kind: 'tell', event: { kind: 'worker-lost', cause } },
      { kind: 'journal', record: { kind: 'lost', worker: cause.who, step: this.step, cause } },
    ]);
    if (fatal !== null) return [...effects, ...this.failBy(fatal)];
    const isAnybodyThere = [...this.workers.values()].some((w) => w.isConnected && w.state !== 'lost');
    const isAnybodyComing = !this.options.supervised || this.processes > 0 || this.losses.isOpen;
    if (isAnybodyThere || isAnybodyComing || this.areThrough() || this.losses.first === null) return effects;
    return [...effects, ...this.failBy(this.losses.first)];
  }

  private tick(nowMs: number): Effect[] {
    const effects = this.conclude(nowMs);
    if (this.ended) return effects;
    if (this.rejoiningSinceMs !== null) effects.push(...this.takeIn(nowMs));
    effects.push(...this.concludeSuspicion(nowMs), ...this.replaceStraggler(nowMs), ...this.findHung(nowMs));
    const { waitingSinceMs } = this;
    if (this.ended || waitingSinceMs === null || nowMs - waitingSinceMs < this.options.waitLimitMs) return effects;
    const limit = `it has waited for ${Math.round(this.options.waitLimitMs / 1000)} s (--wait-limit)`;
    const unknown = { rank: null, exitCode: null, signal: null, lastLines: [], logFile: null };
    const cause = this.losses.first ?? { ...unknown, who: 'coordinator', host: '', pid: null };
    return [...effects, ...this.failBy({ ...cause, code: 'E_TOO_FEW_WORKERS', message: `${this.because}; ${limit}` })];
  }

  private causeOf(worker: Worker, code: string, message: string): RootCause {
    const { id: who, rank, host, pid } = worker;
    return { who, rank, host, pid, exitCode: null, signal: null, code, message, lastLines: [], logFile: null };
  }

  /** Another has the workers, or will: nothing is said to them. */
  private standAside(cause: RootCause): Effect[] {
    this.rootCause = cause;
    this.ended = true;
    this.phase = 'failed';
    this.because = cause.message;
    return [{ kind: 'tell', event: { kind: 'warning', message: cause.message } }, { kind: 'stand-aside' }];
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

function tooFew(present: number, wanted: number, because: string): string {
  const missing = wanted - present;
  return `waiting for ${missing} more worker${missing === 1 ? '' : 's'} (--min-workers ${wanted}): ${because}`;
}
