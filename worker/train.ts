// Read this first: the training loop, as the algorithm reads.
//
//     data -> microbatch -> forward/backward -> fold -> reduce-scatter -> canonical sum -> all-gather -> apply
//
// Every rank runs it; the M microbatches of a step are shared out over the ranks, their gradients are summed in one tree whose
// shape does not depend on the ranks, and every rank applies the same update to the same bits. The loop knows nothing of
// sockets or files: what it needs comes in as `TrainingContext`, what it has to say goes out through `tell`.
//
// A step's vector is the engine's contribution (gradient sums, state changes, summed loss, correct) and one more float: a wish to
// stop, or to let another membership take over. Its sum is the same on every rank, so all stop after the same step without asking
// anyone.
//
// When a peer is lost, the collective throws, here or there in the step, and `state` is as it was after the last whole step: the
// next membership does the step in flight again, to the same bits; what was kept of it (kept-microbatches.ts) is not computed again.
//
// Where gradients are compressed on the way there is more state than the replica: each microbatch's residual (collective/all-reduce.ts),
// which only the rank that computes the microbatch has. So every rank keeps its part, where else rank 0's is all.

import type { Optimizer, Split } from '../jobs/contract.ts';
import { batchRange, placeOfStep, type BatchPlan } from '../protocol/batch-plan.ts';
import { isAudited } from '../protocol/audit-plan.ts';
import { isEvaluatedAfter, isKeptAfter } from '../protocol/milestones.ts';
import type { LinkTraffic, PhaseSeconds, StepReport, WorkerMessage, AuditFinding } from '../protocol/messages.ts';
import { evenShares, type Shares } from '../protocol/shares.ts';
import { auditorOf } from './auditor.ts';
import type { Loader } from './data/batch-loader.ts';
import { chunkRange, rankChunks } from './data/evaluation-chunks.ts';
import { digestOf } from './engine/digest.ts';
import { contributionOf, type Bucket, type Engine, type Evaluation } from './engine/engine.ts';
import type { KeptMicrobatches } from './kept-microbatches.ts';
import type { Recorder } from './timeline/recorder.ts';

/** The part of the collective that a step needs. */
export interface Collective {
  readonly rank: number;
  readonly worldSize: number;
  /** The runs of the vector that are sent on their own, in the order in which the backward pass finishes them. */
  readonly buckets: readonly Bucket[];
  /**
   * What compression has not sent yet of this rank's microbatches, by their index; none without compression. To be read and written
   * between two steps only.
   */
  readonly residuals: ReadonlyMap<number, Float32Array>;
  /** Where microbatch `index`'s vector is to be written, as soon as there is room. In ascending order of microbatches. */
  slot(index: number): Promise<Float32Array>;
  /** Bucket `bucket` of the vector of the last slot is written and may leave. */
  ready(bucket: number): void;
  /** Microbatch `index` has no samples. */
  absent(index: number): Promise<void>;
  /**
   * Sums everybody's vectors in the canonical tree, the same bits on every rank. The sum is to be read where it lies, and not to be
   * written to, because peers read it there, too; it stays until the slots of the step after next are written. Throws E_PEER_LOST.
   *
   * @param meanwhile some microseconds of other work, to be done over and over while nothing but peers' computing is waited for, until
   *   it returns false
   */
  allReduce(meanwhile?: () => boolean): Promise<AllReduced>;
}

export interface AllReduced extends AllReduceTiming {
  readonly sum: Float32Array;
}

export interface AllReduceTiming {
  /** Seconds until every peer's last contribution began to come; then until the sum was here. */
  readonly waitSeconds: number;
  readonly reduceSeconds: number;
  /** Bytes of this step by link; none for a rank alone. */
  readonly traffic: readonly LinkTraffic[];
  /** Where a timeline is wanted: how far each bucket was when (collective/bucket-marks.ts), in seconds of the loop's clock; until the next step. */
  readonly marks: Float64Array | null;
}

/** A replica: all that changes from step to step. */
export interface ReplicaState {
  /** Steps done. */
  step: number;
  /** All weights, in layout order. */
  readonly weights: Float32Array;
  /** The optimizer's vectors, each as long as the trainable weights. */
  readonly slots: readonly Float32Array[];
}

export interface TrainingContext {
  readonly generation: number;
  readonly plan: BatchPlan;
  /** Who computes which microbatches. */
  readonly shares: Shares;
  /** What is at hand of the step in flight, from a membership that ended within it; and is to be, of what is computed now. Null: nothing. */
  readonly kept: KeptMicrobatches | null;
  /** Total steps of the run. */
  readonly steps: number;
  readonly checkpointEverySteps: number;
  /** The digest of the weights is reported each such number of steps; 0: never. */
  readonly digestEverySteps: number;
  /** Microbatches that are computed again elsewhere: the share, and what reads another rank's; null: none. */
  readonly audit: { readonly rate: number; readonly loader: Loader } | null;
  readonly learningRate: number;
  readonly testSamples: number;
  readonly engine: Engine;
  readonly optimizer: Optimizer;
  readonly loader: Loader;
  readonly test: Split;
  readonly inputShape: readonly number[];
  readonly collective: Collective;
  /** Seconds on a monotonic clock. */
  readonly clock: () => number;
  readonly rssBytes: () => number;
  /** What somebody wants of training: to end, or to pause because another membership waits. */
  readonly wish: () => 'stop' | 'pause' | null;
  /** Throws when this membership has been given up: asked between two pieces of work in which no peer is heard. */
  readonly check: () => void;
  /** Of what is done when; null: nobody could want it. */
  readonly recorder: Recorder | null;
  /** Counts, for who looks after an interruption, the microbatches of the step in flight that are computed. */
  readonly inFlight: { microbatches: number };
  readonly report: (step: StepReport, traffic: readonly LinkTraffic[]) => void;
  readonly tell: (message: WorkerMessage) => void;
  /** Sends this rank's part of the run's state to be kept; resolves when the state may change. */
  readonly keep: (state: ReplicaState) => Promise<void>;
}

/** Of what training needs, what it is where one rank trains alone, and nobody watches, keeps or disturbs it. */
export function aloneContext(plan: BatchPlan) {
  return {
    generation: 1,
    plan,
    shares: evenShares(plan.microbatches, 1),
    kept: null,
    checkpointEverySteps: 0,
    digestEverySteps: 0,
    audit: null,
    recorder: null,
    rssBytes: () => 0,
    wish: () => null,
    check: () => {},
    inFlight: { microbatches: 0 },
    report: () => {},
    tell: () => {},
    keep: async () => {},
  } satisfies Partial<TrainingContext>;
}

/** What is yet to be done with the state that a membership begins with. */
export interface Due {
  readonly evaluate: boolean;
  readonly keep: boolean;
  /** There are too few to train: pause at once. */
  readonly hold: boolean;
}

/** A wish as its float: no number of wishes to pause makes one to stop. */
const WISHES = { pause: 1, stop: 1024 } as const;

/**
 * Trains from `state.step` to the end, or to an agreed stop or pause; returns why it ended. `state` is changed in place, a step at a time.
 */
export async function train(
  context: TrainingContext,
  state: ReplicaState,
  due: Due = { evaluate: false, keep: false, hold: false },
): Promise<'done' | 'stopped' | 'paused'> {
  const { plan, engine, collective, clock } = context;
  const place = contributionOf(engine.layout);
  const wishIndex = place.size;
  const mean = new Float32Array(engine.layout.trainableSize);
  const mine = context.shares[collective.rank] ?? [];
  const hasPart = collective.rank === 0 || collective.residuals.size > 0;
  const auditor = auditorOf(context);
  engine.loadWeights(state.weights);
  if (due.evaluate) await evaluateShare(context, state);
  if (due.keep && hasPart) await keepState(context, state);
  if (due.hold) return 'paused';

  while (state.step < context.steps) {
    const startedAt = clock();
    const trace = context.recorder?.of(state.step + 1) ?? null;
    let dataSeconds = 0;
    let computeSeconds = 0;
    const audits: AuditFinding[] = [];
    const { epoch, batch } = placeOfStep(plan, state.step);
    const range = batchRange(plan, batch);
    const samples = range.end - range.start;

    for (const m of mine) {
      const t0 = clock();
      const atHand = context.kept?.of(state.step, m) ?? null;
      const data = atHand === null ? await context.loader.load({ epoch, batch, microbatch: m }) : null;
      const t1 = clock();
      let t2 = t1;
      if (data?.size === 0) {
        await collective.absent(m);
      } else {
        const random = { seed: plan.seed, step: state.step, microbatch: m };
        const vector = await collective.slot(m);
        if (trace !== null) t2 = clock();
        const out = vector.subarray(0, place.size);
        const isAuditDue = auditor !== null && isAudited(plan.seed, auditor.rate, state.step, m);
        // What has left may be added to where it lies: it is copied before.
        const copy = atHand === null ? context.kept?.copy(state.step, m, out, collective.buckets) : null;
        const ready = (bucket: number): void => {
          copy?.take(bucket);
          collective.ready(bucket);
        };
        const wish = context.wish();
        vector[wishIndex] = wish === null ? 0 : WISHES[wish];
        const isInOnePiece = data === null || isAuditDue;
        const buckets = isInOnePiece ? undefined : { list: collective.buckets, ready };
        if (data === null) out.set(atHand ?? []);
        else await engine.gradient({ ...data, random }, out, buckets);
        if (isAuditDue) audits.push({ microbatch: m, digest: digestOf(out), as: 'owner' });
        if (isInOnePiece) for (const bucket of collective.buckets.keys()) ready(bucket);
        copy?.end();
      }
      context.inFlight.microbatches++;
      const t3 = clock();
      if (data !== null && data.size > 0) context.kept?.took(t3 - t0, mine.length);
      dataSeconds += t1 - t0;
      computeSeconds += t3 - t1;
      trace?.microbatch(m, [t0, t1, t2, t3]);
    }

    if (auditor !== null) {
      const auditStart = clock();
      audits.push(...(await auditor.recompute(state.step, { epoch, batch })));
      const auditEnd = clock();
      computeSeconds += auditEnd - auditStart;
      trace?.add('audit', auditStart, auditEnd);
    }

    let preparingSeconds = 0;
    const prepare = (): boolean => {
      const t0 = clock();
      const isMore = context.loader.prepare?.() ?? false;
      preparingSeconds += clock() - t0;
      return isMore;
    };
    const reduceStart = trace === null ? 0 : clock();
    const { sum, ...timing } = await collective.allReduce(prepare);

    const applyStart = clock();
    trace?.allReduce(reduceStart, applyStart, timing, preparingSeconds);
    const lossSum = sum[place.loss] ?? Number.NaN;
    const gradientNorm = engine.apply({
      sum,
      mean,
      samples,
      step: state.step + 1,
      learningRate: context.learningRate,
      optimizer: context.optimizer,
      weights: state.weights,
      slots: state.slots,
    });
    state.step++;
    context.inFlight.microbatches = 0;
    const isDigestDue = context.digestEverySteps > 0 && state.step % context.digestEverySteps === 0;
    const applied = trace === null ? 0 : clock();
    const digest = isDigestDue ? digestOf(state.weights) : null;
    const applyEnd = clock();
    trace?.add('apply', applyStart, applied);
    if (isDigestDue) trace?.add('digest', applied, applyEnd);

    const phases: PhaseSeconds = {
      data: dataSeconds + preparingSeconds,
      compute: computeSeconds,
      allreduce: timing.reduceSeconds,
      apply: applyEnd - applyStart,
      wait: Math.max(0, timing.waitSeconds - preparingSeconds),
    };
    const endedAt = clock();
    trace?.add('step', startedAt, endedAt);
    const report: StepReport = {
      step: state.step,
      samples,
      lossSum,
      correct: sum[place.correct] ?? 0,
      gradientNorm,
      seconds: endedAt - startedAt,
      phases,
      rssBytes: context.rssBytes(),
      ...(digest !== null && { digest }),
      ...(audits.length > 0 && { audits }),
    };
    context.report(report, timing.traffic);

    const wished = sum[wishIndex] ?? 0;
    const stopAgreed = wished >= WISHES.stop;
    const last = state.step === context.steps;
    if (isEvaluatedAfter(context, state.step)) await evaluateShare(context, state);
    if (hasPart && (stopAgreed || isKeptAfter(context, state.step))) await keepState(context, state);
    if (stopAgreed && !last) return 'stopped';
    if (wished > 0 && !last) return 'paused';
  }
  return 'done';
}

/** Evaluates this rank's chunks of the test set and tells the sums, with the digest of the weights that were used. */
async function evaluateShare(context: TrainingContext, state: ReplicaState): Promise<void> {
  const startedAt = context.clock();
  const { engine, collective, testSamples } = context;
  const mine = rankChunks(testSamples, collective.worldSize, collective.rank);
  const chunks: { index: number; samples: number; lossSum: number; correct: number }[] = [];
  for (let index = mine.start; index < mine.end; index++) {
    context.check();
    const { samples, result } = await evaluateChunk(engine, context.test, context.inputShape, testSamples, index);
    chunks.push({ index, samples, lossSum: result.lossSum, correct: result.correct });
  }
  const digest = digestOf(state.weights);
  const endedAt = context.clock();
  context.recorder?.of(state.step)?.add('evaluate', startedAt, endedAt);
  context.tell({
    kind: 'evaluation',
    generation: context.generation,
    step: state.step,
    digest,
    seconds: endedAt - startedAt,
    chunks,
  });
}

async function keepState(context: TrainingContext, state: ReplicaState): Promise<void> {
  const startedAt = context.clock();
  await context.keep(state);
  context.recorder?.of(state.step)?.add('keep', startedAt, context.clock());
}

/** Evaluates one chunk of the test set with the weights that the engine holds. */
export async function evaluateChunk(
  engine: Engine,
  test: Split,
  inputShape: readonly number[],
  testSamples: number,
  index: number,
): Promise<{ samples: number; labels: Int32Array; result: Evaluation }> {
  const range = chunkRange(testSamples, index);
  const samples = range.end - range.start;
  const floats = inputShape.reduce((a, b) => a * b, 1);
  const inputs = new Float32Array(samples * floats);
  const labels = new Int32Array(samples);
  for (let i = 0; i < samples; i++) {
    labels[i] = test.read(range.start + i, inputs.subarray(i * floats, (i + 1) * floats));
  }
  return { samples, labels, result: await engine.evaluate(samples, inputs, labels) };
}
