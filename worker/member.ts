// What a ready worker does: it serves the generations that the coordinator opens, one after the other. In each it links up with the
// members, takes the state that they begin with, and trains (train.ts) until training ends, another generation takes over, or a peer
// is lost; then it waits for the next. The replica outlives them all: after each it is the state of a whole step.
//
// A newer generation ends the present one: after a whole step that all agree on when it is graceful, else at once, because somebody
// of the present one is gone and no step of it can end. Whoever is behind then gets what the most advanced member has.

import type { DataSet, JobDefinition } from '../jobs/contract.ts';
import type { BatchPlan } from '../protocol/batch-plan.ts';
import { LockstepError } from '../protocol/errors.ts';
import {
  residualName,
  type CoordinatorMessage,
  type Dismissal,
  type StatePart,
  type StepReport,
} from '../protocol/messages.ts';
import type { RunConfig } from '../protocol/run-config.ts';
import { areWhole, evenShares, type Share, type Shares } from '../protocol/shares.ts';
import type { SpanKind } from '../protocol/timeline.ts';
import { PeerFault } from './collective/shell/exchange.ts';
import type { Communication, OpenCollective } from './collective/shell/generation.ts';
import { reasonOf } from './collective/shell/link-up.ts';
import type { ControlLink } from './control-link.ts';
import type { Loader } from './data/batch-loader.ts';
import { digestOf } from './engine/digest.ts';
import type { Engine } from './engine/engine.ts';
import type { KeptMicrobatches } from './kept-microbatches.ts';
import { ReportBatch } from './report-batch.ts';
import { StateSender } from './state-sender.ts';
import { takeStatePart } from './state-transfer.ts';
import { stepVectorOf } from './step-vector.ts';
import type { Recorder } from './timeline/recorder.ts';
import { train, type Collective, type ReplicaState, type TrainingContext } from './train.ts';

export type Generation = Extract<CoordinatorMessage, { kind: 'generation' }>;
type Begin = Extract<CoordinatorMessage, { kind: 'begin' }>;

/** How often it is looked, while nothing else is to be done, whether a link has failed. */
const LOOK_MS = 20;

export interface Replica {
  readonly job: JobDefinition;
  readonly engine: Engine;
  readonly data: DataSet;
  readonly plan: BatchPlan;
  readonly config: RunConfig;
  readonly state: ReplicaState;
  /** All vectors of the state by their names on the wire: the weights first, then the optimizer's slots. */
  readonly vectors: ReadonlyMap<string, Float32Array>;
  /** Of the step in flight; it outlives the generation in which it was computed. */
  readonly kept: KeptMicrobatches;
}

export interface MemberOptions {
  readonly control: Pick<ControlLink, 'send' | 'drained' | 'listen' | 'closed'>;
  readonly communication: Pick<Communication, 'open'>;
  readonly replica: Replica;
  /** What is computed again for others, and read for that; null: nothing. */
  readonly audit: TrainingContext['audit'];
  /** Told of each generation as it is entered. */
  readonly serving: (generation: Generation) => void;
  readonly openLoader: (share: Share) => Promise<Loader>;
  /** Seconds on a monotonic clock. */
  readonly clock: () => number;
  readonly rssBytes: () => number;
  readonly peakRssBytes: () => number;
  /** Told of each step that this worker has done. */
  readonly observe: (step: StepReport) => void;
  readonly recorder: Recorder;
  /** Plain lines for the worker's own log. */
  readonly log: (line: string) => void;
}

/** What the coordinator has said, as far as it still matters. */
class Orders {
  newest: Generation | null = null;
  dismissed: Dismissal | null = null;
  stopWanted = false;
  private lost: Error | null = null;
  /** Gives up the generation that is served. */
  private present: AbortController | null = null;
  private begin: Begin | null = null;
  private parts: StatePart[] = [];
  private stir: () => void = () => {};
  private readonly say: MemberOptions['control']['send'];
  private readonly recorder: Recorder;
  /** The generation that is served, steps done, and microbatches computed of the next. */
  standing = { generation: 0, step: 0, computed: 0 };

  constructor({ control, recorder }: Pick<MemberOptions, 'control' | 'recorder'>) {
    this.say = control.send;
    this.recorder = recorder;
    control.listen((message) => this.take(message));
    void control.closed.then((error) => {
      this.lost = error;
      this.present?.abort(error);
      this.stir();
    });
  }

  private take(message: CoordinatorMessage): void {
    switch (message.kind) {
      case 'generation':
        if (message.generation <= (this.newest?.generation ?? 0)) return;
        this.newest = message;
        this.begin = null;
        this.parts = [];
        if (!message.graceful) this.giveUp(`generation ${message.generation} takes over: ${message.because}`);
        break;
      case 'begin':
        if (message.generation === this.newest?.generation) this.begin = message;
        break;
      case 'state':
        this.parts.push(message);
        break;
      case 'stop':
        this.stopWanted = true;
        break;
      case 'probe':
        this.say({ kind: 'standing', ...this.standing });
        break;
      case 'clock':
        this.say(this.recorder.asked(message));
        break;
      case 'dismissed':
        this.dismissed = message;
        this.giveUp(`dismissed: ${message.because}`);
        break;
      case 'refused':
        this.lost = refusal(message.code, message.because);
        this.present?.abort(this.lost);
        break;
      case 'welcome':
        break;
    }
    this.stir();
  }

  private giveUp(because: string): void {
    this.present?.abort(new LockstepError('E_PEER_LOST', because));
  }

  /** The next generation after `entered`, as soon as there is one, or the worker's dismissal. */
  async after(entered: number): Promise<Generation | Dismissal> {
    for (;;) {
      if (this.dismissed !== null) return this.dismissed;
      if (this.newest !== null && this.newest.generation > entered) return this.newest;
      if (this.lost !== null) throw this.lost;
      await this.stirred();
    }
  }

  /** From now on `generation` is served: the signal says when it must be given up. */
  enter(generation: Generation): AbortSignal {
    const controller = new AbortController();
    this.present = controller;
    const { newest } = this;
    if (this.lost !== null) controller.abort(this.lost);
    else if (newest !== null && newest.generation > generation.generation && !newest.graceful) {
      this.giveUp(`generation ${newest.generation} has taken over`);
    }
    return controller.signal;
  }

  /** True when a generation after `generation` waits for its members to pause. */
  isPauseWanted(generation: number): boolean {
    return (this.newest?.generation ?? 0) > generation;
  }

  /** The word to begin; throws when the generation is given up or one of its links fails before. */
  async beginning(generation: number, signal: AbortSignal, collective: OpenCollective): Promise<Begin> {
    for (;;) {
      signal.throwIfAborted();
      if (collective.failure !== null) throw collective.failure;
      if (this.begin?.generation === generation) return this.begin;
      // A generation that a newer one makes wait for nothing: its members will not all come.
      if (this.isPauseWanted(generation)) throw new LockstepError('E_PEER_LOST', 'a newer generation takes over');
      await this.stirred(LOOK_MS);
    }
  }

  /** The next part of the state that `generation` begins with. */
  async part(generation: number, signal: AbortSignal): Promise<StatePart> {
    for (;;) {
      signal.throwIfAborted();
      const part = this.parts.shift();
      if (part !== undefined) return part;
      // The rest went with the coordinator that sent it.
      if (this.isPauseWanted(generation)) throw new LockstepError('E_PEER_LOST', 'a newer generation takes over');
      await this.stirred();
    }
  }

  /** Until the coordinator says something, or `ms` are over. */
  private stirred(ms?: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = ms === undefined ? null : setTimeout(resolve, ms);
      this.stir = () => {
        if (timer !== null) clearTimeout(timer);
        resolve();
      };
    });
  }
}

export function refusal(code: string, because: string): LockstepError {
  const known = code === 'E_FINGERPRINT' || code === 'E_DIGEST' || code === 'E_PROTOCOL_VERSION' ? code : 'E_PROTOCOL';
  return new LockstepError(known, `the coordinator refused this worker: ${because}`, {
    remedy:
      known === 'E_FINGERPRINT'
        ? 'Run the same engine, library, thread count and instruction set on all workers, or give --allow-mixed-engines.'
        : "See the coordinator's log.",
  });
}

/** Serves generations until it is dismissed, and returns how the run ended; throws what made it fail: an error of its own, or the coordinator's loss. */
export async function serveGenerations(options: MemberOptions): Promise<Dismissal['outcome']> {
  const orders = new Orders(options);
  let entered = 0;
  for (;;) {
    const generation = await orders.after(entered);
    if (generation.kind === 'dismissed') {
      options.log(`dismissed: ${generation.because}`);
      return generation.outcome;
    }
    entered = generation.generation;
    await serve(options, orders, generation);
  }
}

async function serve(options: MemberOptions, orders: Orders, generation: Generation): Promise<void> {
  const { control, replica, recorder, clock, log } = options;
  const { state, kept } = replica;
  const { generation: number, rank, worldSize, members } = generation;
  log(`generation ${number}: rank ${rank} of ${worldSize}; ${generation.because}`);
  options.serving(generation);
  const shares = sharesOf(generation, replica.plan.microbatches);
  const signal = orders.enter(generation);
  const reports = new ReportBatch(
    number,
    (message) => control.send(message),
    () => recorder.take(number),
  );
  let recorded = clock();
  /** What has been done since the last call. */
  const record = (kind: SpanKind): void => {
    const now = clock();
    recorder.of(state.step)?.add(kind, recorded, now);
    recorded = now;
  };
  const sender = new StateSender(control);
  const served: { collective: OpenCollective | null; loader: Loader | null } = { collective: null, loader: null };
  const inFlight = { microbatches: 0 };
  orders.standing = {
    generation: number,
    get step() {
      return state.step;
    },
    get computed() {
      return inFlight.microbatches;
    },
  };
  try {
    const vector = stepVectorOf(replica.config, replica.engine.layout);
    const plan = { generation: number, rank, ...vector, shares, isTraced: recorder.isWanted };
    const collective = await options.communication.open(plan, members, signal);
    served.collective = collective;
    signal.addEventListener('abort', () => collective.abandon(reasonOf(signal)));
    record('link');
    control.send({ kind: 'linked', generation: number, step: state.step, digest: digestOf(state.weights) });
    served.loader = await options.openLoader(shares[rank] ?? []);
    const begin = await orders.beginning(number, signal, collective);
    record('begin');
    const residuals = new Map([...collective.residuals].map(([m, residual]) => [residualName(m), residual]));
    await takeState(replica, begin, shares, collective, residuals, () => orders.part(number, signal));
    record('state');
    const keep = async (whole: ReplicaState): Promise<void> => {
      const own = [...(rank === 0 ? replica.vectors : []), ...residuals];
      const vectors = own.map(([name, data]) => ({ name, data }));
      reports.flush();
      await sender.send(whole.step, digestOf(whole.weights), vectors);
    };
    const { config, engine, data } = replica;
    const ended = await train(
      {
        generation: number,
        plan: replica.plan,
        shares,
        kept,
        steps: config.steps,
        checkpointEverySteps: config.checkpointEverySteps,
        learningRate: config.learningRate,
        testSamples: config.testSamples,
        engine,
        optimizer: replica.job.optimizer,
        loader: served.loader,
        test: data.test,
        inputShape: data.inputShape,
        collective,
        clock,
        rssBytes: options.rssBytes,
        wish: () => (orders.stopWanted ? 'stop' : orders.isPauseWanted(number) ? 'pause' : null),
        digestEverySteps: config.digestEverySteps,
        audit: options.audit,
        recorder,
        check: () => signal.throwIfAborted(),
        inFlight,
        report: (step, traffic) => {
          options.observe(step);
          reports.add(step, traffic);
        },
        tell: (message) => reports.before(message),
        keep,
      },
      state,
      begin,
    );
    await sender.finish();
    log(`${ended} after step ${state.step}`);
    if (ended === 'paused') return;
    reports.before({
      kind: 'finished',
      generation: number,
      step: state.step,
      digest: digestOf(state.weights),
      peakRssBytes: options.peakRssBytes(),
      because: ended,
    });
    // Peers may still be reading the last sum: the links stay up until everybody has it.
    await orders.after(number);
  } catch (error) {
    const { collective } = served;
    const isOver = signal.aborted || (collective !== null && collective.failure !== null);
    const isPeerLost = error instanceof LockstepError && error.code === 'E_PEER_LOST';
    if (!isOver && !isPeerLost) throw error;
    const told = error instanceof Error ? error : new Error(String(error));
    log(`generation ${number} is over after step ${state.step}: ${told.message}`);
    reports.before({
      kind: 'interrupted',
      generation: number,
      step: state.step,
      computed: Math.max(0, inFlight.microbatches - kept.count(state.step)),
      peer: error instanceof PeerFault ? error.peer : null,
      code: error instanceof LockstepError ? error.code : 'E_TRAINING',
      because: told.message.slice(0, 8000),
    });
  } finally {
    sender.stop();
    reports.flush();
    await served.loader?.close();
    await served.collective?.close();
  }
}

/** Who computes what: as it was told, else evenly. Throws E_PROTOCOL. */
function sharesOf({ shares, worldSize }: Generation, microbatches: number): Shares {
  if (shares === undefined) return evenShares(microbatches, worldSize);
  if (!areWhole(microbatches, worldSize, shares))
    throw new LockstepError('E_PROTOCOL', `the coordinator shares out other than the ${microbatches} microbatches`);
  return shares;
}

/** Brings the replica, and this rank's residuals, to the state that the generation begins with. Throws E_DIGEST when it is another. */
async function takeState(
  replica: Replica,
  begin: Begin,
  shares: Shares,
  collective: Collective,
  residuals: ReadonlyMap<string, Float32Array>,
  nextPart: () => Promise<StatePart>,
): Promise<void> {
  const { state, vectors, engine, config, kept } = replica;
  const { source } = begin;
  if (source.kind === 'held') return;
  // Taken aside first: who is interrupted has the whole state that it had before.
  const taken = new Map([...vectors].map(([name, vector]): [string, Float32Array] => [name, vector.slice()]));
  if (source.kind === 'start') {
    for (const vector of taken.values()) vector.fill(0);
    taken.get('weights')?.set(await engine.initialWeights(config.seed));
  } else if (source.kind === 'rank') {
    await broadcast(collective, shares[collective.rank] ?? [], source.rank, [...taken.values()]);
  } else {
    const wanted = new Map([...taken, ...residuals]);
    for (let isWhole = false; !isWhole;) {
      const part = await nextPart();
      if (part.step !== begin.step) {
        throw new LockstepError('E_PROTOCOL', `a part of the state after step ${part.step}, not ${begin.step}`);
      }
      isWhole = takeStatePart(part, wanted);
    }
  }
  const found = digestOf(taken.get('weights') ?? new Float32Array(0));
  if (found !== begin.digest) {
    throw new LockstepError(
      'E_DIGEST',
      `the weights after step ${begin.step} arrived with the digest ${found}, not ${begin.digest}`,
    );
  }
  for (const [name, vector] of taken) vectors.get(name)?.set(vector);
  // From a rank, whoever has done that step gets the state that he has.
  if (source.kind !== 'rank' || state.step !== begin.step) kept.forget();
  state.step = begin.step;
}

/**
 * One rank's vectors become everybody's, by the same all-reduce as gradients: a sum of which only one microbatch is there is that
 * microbatch, bit for bit. Each vector is at most as long as the gradient's.
 */
async function broadcast(
  collective: Collective,
  mine: Share,
  source: number,
  vectors: readonly Float32Array[],
): Promise<void> {
  const { rank, buckets } = collective;
  for (const vector of vectors) {
    for (const [i, m] of mine.entries()) {
      if (rank !== source || i > 0) {
        await collective.absent(m);
        continue;
      }
      const slot = await collective.slot(m);
      slot.set(vector);
      for (const bucket of buckets.keys()) collective.ready(bucket);
    }
    const { sum } = await collective.allReduce();
    vector.set(sum.subarray(0, vector.length));
  }
}
