// The training loop with a toy engine and an exchange in memory: no socket, no TensorFlow, real batch plan and optimizer.

import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { Audits } from '../../coordinator/core/audits.ts';
import type { Optimizer, Split } from '../../jobs/contract.ts';
import type { BatchPlan } from '../../protocol/batch-plan.ts';
import { LockstepError } from '../../protocol/errors.ts';
import type { StepReport, WorkerMessage } from '../../protocol/messages.ts';
import { evenShares } from '../../protocol/shares.ts';
import { spansOf } from '../../protocol/timeline.ts';
import { KeptMicrobatches } from '../../worker/kept-microbatches.ts';
import { BatchLoader } from '../../worker/data/batch-loader.ts';
import { applyOnHost } from '../../worker/engine/apply.ts';
import type { Engine, Update } from '../../worker/engine/engine.ts';
import { Recorder } from '../../worker/timeline/recorder.ts';
import { aloneContext, train, type Collective, type ReplicaState, type TrainingContext } from '../../worker/train.ts';

const SHAPE = [2];
const TRAIN = 10;
const TEST = 600;
/** Three weights, their loss and right answers, the wish to stop. */
const LENGTH = 6;
const plan: BatchPlan = { samples: TRAIN, globalBatch: 4, microbatches: 4, seed: 3 };

/** Sample i is the point (i, 1) with label i mod 2. */
const split = (size: number): Split => ({
  size,
  read: (index, into) => {
    into[0] = index;
    into[1] = 1;
    return index % 2;
  },
});

/** Least squares on w·x against the label, one weight vector of two floats and one moving average of the inputs. */
function toyEngine(): Engine & { loaded: Float32Array } {
  const engine = {
    loaded: new Float32Array(3),
    info: { name: 'toy', library: 'none', device: 'none', threads: 1, settings: {} },
    layout: {
      entries: [
        { name: 'w', shape: [2], offset: 0, length: 2, trainable: true },
        { name: 'mean', shape: [1], offset: 2, length: 1, trainable: false },
      ],
      size: 3,
      trainableSize: 2,
    },
    topology: {},
    initialWeights: async () => new Float32Array(3),
    loadWeights: (weights: Float32Array) => engine.loaded.set(weights),
    gradient: async (
      batch: { size: number; inputs: Float32Array; labels: Int32Array },
      out: Float32Array,
      buckets?: Parameters<Engine['gradient']>[2],
    ) => {
      out.fill(0);
      let mean = 0;
      for (let i = 0; i < batch.size; i++) {
        const [x0, x1, y] = [batch.inputs[2 * i] ?? 0, batch.inputs[2 * i + 1] ?? 0, batch.labels[i] ?? 0];
        const error = (engine.loaded[0] ?? 0) * x0 + (engine.loaded[1] ?? 0) * x1 - y;
        out[0] = (out[0] ?? 0) + 2 * error * x0;
        out[1] = (out[1] ?? 0) + 2 * error * x1;
        out[3] = (out[3] ?? 0) + error * error;
        out[4] = (out[4] ?? 0) + (Math.abs(error) < 0.5 ? 1 : 0);
        mean += x0 / batch.size;
      }
      out[2] = 0.1 * (mean - (engine.loaded[2] ?? 0)) * batch.size;
      buckets?.list.forEach((_, index) => buckets.ready(index));
    },
    evaluate: async (size: number) => ({ lossSum: size, correct: 1, predictions: new Int32Array(size) }),
    apply: (update: Update) => {
      const norm = applyOnHost(engine.layout, update);
      engine.loaded.set(update.weights);
      return norm;
    },
    memory: () => ({ tensors: 0, bytes: 0 }),
    close: () => {},
  };
  return engine;
}

const plainSgd: Optimizer = {
  name: 'sgd',
  learningRate: 0.001,
  slots: [],
  settings: {},
  update: (weights, gradient, _slots, _step, rate) => {
    for (let i = 0; i < weights.length; i++) weights[i] = (weights[i] ?? 0) - rate * (gradient[i] ?? 0);
  },
};

/** Sums in the canonical tree, written out recursively; an absent vector adds nothing. */
function treeSum(vectors: (Float32Array | null)[], start: number, size: number): Float32Array | null {
  if (size === 1) return vectors[start] ?? null;
  const left = treeSum(vectors, start, size / 2);
  const right = treeSum(vectors, start + size / 2, size / 2);
  if (left === null || right === null) return left ?? right;
  return left.map((x, i) => Math.fround(x + (right[i] ?? 0)));
}

/** Exchanges for `worldSize` ranks that live in one process and meet at every step. */
function exchanges(worldSize: number): Collective[] {
  let vectors: (Float32Array | null)[] = Array.from({ length: plan.microbatches }, () => null);
  let waiting: ((sum: Float32Array) => void)[] = [];
  return Array.from({ length: worldSize }, (_, rank) => {
    let pending = { index: 0, vector: new Float32Array(0), missing: 0 };
    return {
      rank,
      worldSize,
      residuals: new Map<number, Float32Array>(),
      // Two buckets, so that one may leave before the other.
      buckets: [
        { offset: 3, length: LENGTH - 3 },
        { offset: 0, length: 3 },
      ],
      slot: async (index) => {
        // As after another step: nothing of it is to be read.
        const vector = new Float32Array(LENGTH).fill(Number.NaN);
        pending = { index, vector, missing: 2 };
        return vector;
      },
      ready: () => {
        pending.missing--;
        if (pending.missing === 0) vectors[pending.index] = pending.vector;
      },
      absent: async (index) => {
        vectors[index] = null;
      },
      allReduce: async () => {
        const sum = await new Promise<Float32Array>((resolve) => {
          waiting.push(resolve);
          if (waiting.length === worldSize) {
            // One sum for all of them, as peers read each other's: who writes to it spoils it for the others.
            const whole = treeSum(vectors, 0, plan.microbatches) ?? new Float32Array(LENGTH);
            const all = waiting;
            waiting = [];
            vectors = Array.from({ length: plan.microbatches }, () => null);
            for (const go of all) go(whole);
          }
        });
        return { waitSeconds: 0, reduceSeconds: 0, traffic: [], marks: null, sum };
      },
    };
  });
}

/** What a rank trains with. */
const contextOf = (collective: Collective): TrainingContext => ({
  ...aloneContext(plan),
  shares: evenShares(plan.microbatches, collective.worldSize),
  steps: 6,
  learningRate: 0.001,
  testSamples: TEST,
  engine: toyEngine(),
  optimizer: plainSgd,
  loader: new BatchLoader({ plan, split: split(TRAIN), inputShape: SHAPE, augment: null }),
  test: split(TEST),
  inputShape: SHAPE,
  collective,
  clock: () => 0,
});

interface Outcome {
  readonly ended: string;
  readonly state: ReplicaState;
  readonly reports: StepReport[];
  readonly told: WorkerMessage[];
  readonly keptSteps: number[];
}

async function trainAll(
  worldSize: number,
  change: (rank: number) => Partial<TrainingContext> = () => ({}),
): Promise<Outcome[]> {
  return Promise.all(
    exchanges(worldSize).map(async (collective, rank) => {
      const state: ReplicaState = { step: 0, weights: new Float32Array([0.5, 0.25, 0]), slots: [] };
      const reports: StepReport[] = [];
      const told: WorkerMessage[] = [];
      const keptSteps: number[] = [];
      const ended = await train(
        {
          ...contextOf(collective),
          report: (step) => reports.push(step),
          tell: (message) => told.push(message),
          keep: async (kept) => {
            keptSteps.push(kept.step);
          },
          ...change(rank),
        },
        state,
      );
      return { ended, state, reports, told, keptSteps };
    }),
  );
}

const evaluations = (outcome: Outcome): Extract<WorkerMessage, { kind: 'evaluation' }>[] =>
  outcome.told.filter((m) => m.kind === 'evaluation');

describe('train', () => {
  it('gives the same bits on every rank and for every world size', async () => {
    const alone = (await trainAll(1))[0]?.state.weights ?? new Float32Array();
    expect([...alone].every(Number.isFinite)).toBe(true);
    for (const worldSize of [2, 3, 4]) {
      for (const { state } of await trainAll(worldSize)) expect([...state.weights]).toEqual([...alone]);
    }
  });

  it('tells a timeline of the steps that are wanted: what lies within a step, the evaluation and the state after it', async () => {
    let now = 0;
    const clock = (): number => (now += 0.001);
    const recorder = new Recorder({ originUs: () => 0, seconds: clock, boot: () => null });
    recorder.asked({ kind: 'clock', sentUs: 0, from: 3, to: 4 });
    // Three steps an epoch.
    await trainAll(1, () => ({ clock, recorder, digestEverySteps: 2 }));
    const told = spansOf(recorder.take(1)?.spans ?? new Uint8Array(0));
    const names = (step: number): string[] => told.filter((span) => span.step === step).map(({ kind }) => kind);
    const shared = ['allreduce', 'wait', 'exchange', 'apply'];
    // The third batch has two samples: the first and the third microbatch none.
    const short = ['data', 'compute', 'data', 'slot', 'compute', 'data', 'compute', 'data', 'slot', 'compute'];
    const whole = Array.from({ length: 4 }, () => ['data', 'slot', 'compute']).flat();
    expect(names(3)).toEqual([...short, ...shared, 'step', 'evaluate', 'keep']);
    expect(names(4)).toEqual([...whole, ...shared, 'digest', 'step']);
    expect(told).toHaveLength(names(3).length + names(4).length);
    for (const step of told.filter(({ kind }) => kind === 'step')) {
      const within = told.filter((span) => span.step === step.step && span !== step && span.startUs < step.endUs);
      for (const { startUs, endUs } of within) {
        expect(startUs).toBeGreaterThanOrEqual(step.startUs);
        expect(endUs).toBeLessThanOrEqual(step.endUs);
      }
    }
  });

  it('averages over the samples of the batch, also in the short last one', async () => {
    // One step by hand on batch 0; w = (0.5, 0.25), so error(x) = 0.5 x + 0.25 - y.
    const seen: number[] = [];
    const spy = {
      ...split(TRAIN),
      read: (index: number, into: Float32Array) => (seen.push(index), split(TRAIN).read(index, into)),
    };
    const loader = new BatchLoader({ plan, split: spy, inputShape: SHAPE, augment: null });
    const [outcome] = await trainAll(1, () => ({ steps: 1, loader }));
    const samples = seen.slice(0, 4);
    expect(new Set(samples).size).toBe(4);
    const errors = samples.map((x) => 0.5 * x + 0.25 - (x % 2));
    const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
    expect(outcome?.state.weights[0]).toBeCloseTo(
      0.5 - 0.001 * mean(errors.map((e, i) => 2 * e * (samples[i] ?? 0))),
      6,
    );
    expect(outcome?.state.weights[1]).toBeCloseTo(0.25 - 0.001 * mean(errors.map((e) => 2 * e)), 6);
    expect(outcome?.state.weights[2]).toBeCloseTo(0.1 * mean(samples), 6);

    const reports = (await trainAll(1))[0]?.reports ?? [];
    expect(reports.map((r) => r.samples)).toEqual([4, 4, 2, 4, 4, 2]);
  });

  it('counts what is prepared while a rank waits as time for data, not as waiting', async () => {
    let now = 0;
    const plain = new BatchLoader({ plan, split: split(TRAIN), inputShape: SHAPE, augment: null });
    const loader = {
      load: plain.load.bind(plain),
      prepare: () => (now += 2) > 0,
      close: plain.close.bind(plain),
    };
    const [alone] = exchanges(1);
    // Waits for 5 seconds, in 4 of which two samples are prepared.
    const collective = alone && {
      ...alone,
      allReduce: async (meanwhile?: () => boolean) => {
        meanwhile?.();
        meanwhile?.();
        now++;
        return { ...(await alone.allReduce()), waitSeconds: 5, reduceSeconds: 1 };
      },
    };
    const [outcome] = await trainAll(1, () => ({
      steps: 1,
      loader,
      clock: () => now,
      ...(collective && { collective }),
    }));
    expect(outcome?.reports[0]).toMatchObject({ seconds: 5, phases: { data: 4, wait: 1, allreduce: 1 } });
  });

  it('divides a short batch by its own number of samples', async () => {
    // Two samples in all, x = 0 and x = 1: errors 0.25 and 0.5 * 1 + 0.25 - 1 = -0.25.
    const short = { ...plan, samples: 2 };
    const loader = new BatchLoader({ plan: short, split: split(2), inputShape: SHAPE, augment: null });
    const [outcome] = await trainAll(1, () => ({ plan: short, steps: 1, loader }));
    expect(outcome?.state.weights[0]).toBeCloseTo(0.5 - 0.001 * ((2 * -0.25 * 1) / 2), 7);
    expect(outcome?.state.weights[1]).toBeCloseTo(0.25, 7);
    expect(outcome?.state.weights[2]).toBeCloseTo(0.1 * 0.5, 7);
  });

  it('evaluates every chunk of the test set once, whatever the world size, after each epoch', async () => {
    for (const worldSize of [1, 2, 4]) {
      const outcomes = await trainAll(worldSize);
      for (const at of [0, 1]) {
        const chunks = outcomes.flatMap((o) => evaluations(o)[at]?.chunks ?? []).toSorted((a, b) => a.index - b.index);
        expect(chunks.map((c) => [c.index, c.samples])).toEqual([
          [0, 250],
          [1, 250],
          [2, 100],
        ]);
      }
      expect(new Set(outcomes.map((o) => evaluations(o)[0]?.digest)).size).toBe(1);
    }
  });

  it('keeps the state on rank 0 alone: at the end of each epoch, every so many steps, and at the end', async () => {
    const outcomes = await trainAll(2, () => ({ steps: 5, checkpointEverySteps: 2 }));
    expect(outcomes.map((o) => o.keptSteps)).toEqual([[2, 3, 4, 5], []]);
    expect(evaluations(outcomes[1] as Outcome).map((e) => e.step)).toEqual([3, 5]);
  });

  it('reports the digest of its weights each so many steps, the same on every rank, and not between', async () => {
    const outcomes = await trainAll(2, () => ({ digestEverySteps: 2, testSamples: 0 }));
    const digests = outcomes.map(({ reports }) => reports.map(({ digest }) => digest));
    expect(digests[0]).toEqual(digests[1]);
    expect(digests[0]?.map((digest) => digest !== undefined)).toEqual([false, true, false, true, false, true]);
    const weights = outcomes[0]?.state.weights ?? new Float32Array(0);
    expect(digests[0]?.at(-1)).toBe(createHash('sha256').update(new Uint8Array(weights.buffer)).digest('hex'));
    expect((await trainAll(1))[0]?.reports.some((report) => 'digest' in report)).toBe(false);
  });

  describe('with audits', () => {
    const audit = (rate: number): TrainingContext['audit'] => ({
      rate,
      loader: new BatchLoader({ plan, split: split(TRAIN), inputShape: SHAPE, augment: null }),
    });

    it('gives the same bits as without, and two digests of each microbatch that has samples, from two ranks', async () => {
      // Its gradient depends on all that a microbatch is: samples and the key of chance.
      const keyed = (): Engine => {
        const engine = toyEngine();
        const { gradient } = engine;
        engine.gradient = async (batch, out, buckets) => {
          await gradient(batch, out);
          const { seed, step, microbatch } = batch.random;
          out[0] = (out[0] ?? 0) + seed + step / 8 + microbatch / 128;
          buckets?.list.forEach((_, index) => buckets.ready(index));
        };
        return engine;
      };
      const [lone] = await trainAll(1, () => ({ engine: keyed() }));
      const alone = lone?.state.weights ?? new Float32Array();
      for (const worldSize of [2, 3, 4]) {
        const outcomes = await trainAll(worldSize, () => ({ engine: keyed(), audit: audit(1), testSamples: 0 }));
        for (const { state } of outcomes) expect([...state.weights]).toEqual([...alone]);
        const found = outcomes.flatMap(({ reports }, rank) =>
          reports.flatMap(({ step, audits = [] }) => audits.map((one) => ({ ...one, step, rank }))),
        );
        const owners = found.filter((one) => one.as === 'owner');
        // Five whole batches of four and two short ones of two samples: in 6 steps 4 x 4 + 2 x 2 microbatches.
        expect(owners).toHaveLength(20);
        expect(found).toHaveLength(40);
        for (const { step, microbatch, digest, rank } of owners) {
          const other = found.filter((f) => f.as === 'auditor' && f.step === step && f.microbatch === microbatch);
          expect(other).toEqual([expect.objectContaining({ digest, rank: (rank + 1) % worldSize })]);
        }
      }
    });

    it('computes only the share that is asked for again, nothing where nobody else is', async () => {
      let gradients = 0;
      const counting = (): Engine => {
        const engine = toyEngine();
        const { gradient } = engine;
        engine.gradient = (...call) => (gradients++, gradient(...call));
        return engine;
      };
      const outcomes = await trainAll(2, () => ({ engine: counting(), audit: audit(0.3), testSamples: 0 }));
      const audited = gradients - 20;
      expect(audited).toBeGreaterThan(0);
      expect(audited).toBeLessThan(20);
      const found = outcomes.flatMap(({ reports }) => reports.flatMap(({ audits = [] }) => audits));
      expect(found.filter((one) => one.as === 'auditor')).toHaveLength(audited);
      expect(found.filter((one) => one.as === 'owner')).toHaveLength(audited);
      gradients = 0;
      const [lone] = await trainAll(1, () => ({ engine: counting(), audit: audit(1), testSamples: 0 }));
      expect(gradients).toBe(20);
      expect(lone?.reports.every(({ audits }) => audits === undefined)).toBe(true);
    });

    it('finds a worker that flips a bit of its gradients, though all end with the same, wrong weights', async () => {
      const flipping = (): Engine => {
        const engine = toyEngine();
        const { gradient } = engine;
        engine.gradient = async (batch, out, buckets) => {
          await gradient(batch, out);
          const bits = new Int32Array(out.buffer, out.byteOffset, 1);
          bits[0] = (bits[0] ?? 0) ^ (1 << 20);
          buckets?.list.forEach((_, index) => buckets.ready(index));
        };
        return engine;
      };
      const outcomes = await trainAll(4, (rank) => ({
        audit: audit(1),
        digestEverySteps: 1,
        testSamples: 0,
        ...(rank === 2 && { engine: flipping() }),
      }));
      expect(new Set(outcomes.map(({ reports }) => reports.at(-1)?.digest)).size).toBe(1);
      expect(outcomes[0]?.state.weights).not.toEqual((await trainAll(1))[0]?.state.weights);
      const audits = new Audits();
      const members = ['w0', 'w1', 'w2', 'w3'];
      const firstStep = outcomes.flatMap(({ reports: [report] }, rank) =>
        audits.accept(`w${rank}`, report?.step ?? 0, report?.audits ?? [], members),
      );
      expect(firstStep.map(({ culprit }) => culprit)).toEqual(['w2']);
    });
  });

  it('keeps the residuals of every rank where there are some', async () => {
    const compressed = exchanges(2).map((collective, rank) => ({
      ...collective,
      residuals: new Map([[2 * rank, new Float32Array(2)]]),
    }));
    const outcomes = await trainAll(2, (rank) => ({ steps: 3, collective: compressed[rank] as Collective }));
    expect(outcomes.map((o) => o.keptSteps)).toEqual([[3], [3]]);
  });

  it('stops every rank after the same step, and keeps it, when one of them wants to stop', async () => {
    let asked = 0;
    const outcomes = await trainAll(3, (rank) => (rank === 2 ? { wish: () => (++asked > 2 ? 'stop' : null) } : {}));
    const steps = outcomes.map((o) => o.state.step);
    expect(new Set(steps).size).toBe(1);
    expect(steps[0]).toBeLessThan(6);
    expect(outcomes.map((o) => o.ended)).toEqual(['stopped', 'stopped', 'stopped']);
    expect(outcomes[0]?.keptSteps.at(-1)).toBe(steps[0]);
  });

  it('refuses to apply a gradient that is not finite, naming the step', async () => {
    const engine = toyEngine();
    const broken = {
      ...engine,
      gradient: async (...[, out, buckets]: Parameters<Engine['gradient']>) => {
        out.fill(Number.NaN);
        buckets?.list.forEach((_, index) => buckets.ready(index));
      },
    } as unknown as Engine;
    await expect(trainAll(1, () => ({ engine: broken }))).rejects.toMatchObject({
      code: 'E_NOT_FINITE',
      message: expect.stringContaining('step 1') as string,
    });
  });

  /** What one rank of an exchange in memory trains with. */
  function oneRank(change: Partial<TrainingContext> = {}): TrainingContext {
    const [collective] = exchanges(1);
    return {
      ...contextOf(collective as Collective),
      testSamples: 0,
      test: split(0),
      ...change,
    };
  }

  it('goes on from a kept step to the same bits as without the break', async () => {
    const whole = (await trainAll(2))[0]?.state.weights ?? new Float32Array();
    const first = (await trainAll(4, () => ({ steps: 4 })))[0]?.state as ReplicaState;
    const state: ReplicaState = { step: first.step, weights: first.weights.slice(), slots: [] };
    await train(oneRank(), state);
    expect([...state.weights]).toEqual([...whole]);
  });

  it.each([
    ['at the sum', 4],
    ['after its second microbatch', 2],
  ])(
    'computes no microbatch again that it had when a peer was lost %s, and asks anew what is wished',
    async (_, computed) => {
      const whole = (await trainAll(2))[0]?.state.weights ?? new Float32Array();
      const state: ReplicaState = { step: 0, weights: new Float32Array([0.5, 0.25, 0]), slots: [] };
      const kept = new KeptMicrobatches({ floats: LENGTH - 1 });
      const engine = toyEngine();
      const asked: string[] = [];
      const { gradient } = engine;
      engine.gradient = async (...args) => {
        asked.push(`${args[0].random.step}/${args[0].random.microbatch}`);
        return gradient(...args);
      };
      // A second between any two looks: worth while.
      let seconds = 0;
      const clock = (): number => seconds++;
      const lost = new LockstepError('E_PEER_LOST', 'the link is lost');
      const context = oneRank({ kept, engine, clock });
      const { collective } = context;
      const failing: Collective = {
        ...collective,
        slot: async (index) => {
          if (state.step === 1 && index === computed) throw lost;
          return collective.slot(index);
        },
        allReduce: async () => {
          if (state.step === 1) throw lost;
          return collective.allReduce();
        },
      };
      await expect(train({ ...context, collective: failing }, state)).rejects.toBe(lost);
      expect(state.step).toBe(1);
      const before = asked.splice(0);
      expect(before.filter((place) => place.startsWith('1/'))).toHaveLength(computed);

      const again = oneRank({ kept, engine, clock, wish: () => (state.step === 1 ? 'pause' : null) });
      await expect(train(again, state)).resolves.toBe('paused');
      expect(state.step).toBe(2);
      await expect(train(oneRank({ engine }), state)).resolves.toBe('done');
      expect(asked.filter((place) => place.startsWith('1/'))).toEqual(['1/0', '1/1', '1/2', '1/3'].slice(computed));
      expect([...state.weights]).toEqual([...whole]);
    },
  );

  it('audits a microbatch that it had as one that it computes', async () => {
    const kept = new KeptMicrobatches({ floats: LENGTH - 1 });
    const audit = { rate: 1, loader: oneRank().loader };
    let seconds = 0;
    const clock = (): number => seconds++;
    const digests = async (): Promise<string[]> => {
      const [outcome] = await trainAll(2, (rank) => ({ audit, steps: 1, ...(rank === 0 && { kept, clock }) }));
      return (outcome?.reports[0]?.audits ?? []).flatMap(({ as, digest }) => (as === 'owner' ? [digest] : []));
    };
    const computed = await digests();
    expect([computed.length, kept.count(0)]).toEqual([2, 1]);
    expect(await digests()).toEqual(computed);
  });
});
