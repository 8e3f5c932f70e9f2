// A worker's life: join the coordinator, prove what its engine computes, take the state, link up with its peers, train, say
// how it ended. The shell around train.ts; all that it does not own (the job's code, the engine, the data, the clock) comes
// in as functions, so that the launcher decides where they come from.

import { availableParallelism, hostname } from 'node:os';
import type { DataSet, JobDefinition } from '../jobs/contract.ts';
import type { NatsServer } from '../nats/server.ts';
import { rankMicrobatches, type BatchPlan } from '../protocol/batch-plan.ts';
import { LockstepError } from '../protocol/errors.ts';
import { PROTOCOL_VERSION, residualName, type CoordinatorMessage, type StatePart } from '../protocol/messages.ts';
import type { JobReference, RunConfig } from '../protocol/run-config.ts';
import type { Tls } from '../protocol/tls.ts';
import type { LocalWays } from './collective/links/ws.ts';
import { hasCoresToSpare, startCommunication } from './collective/shell/communication.ts';
import type { Communication } from './collective/shell/generation.ts';
import { connectControl, type ControlLink } from './control-link.ts';
import { dataThreadsFor } from './data/ahead.ts';
import { BatchLoader, type Loader } from './data/batch-loader.ts';
import { alignedFloats } from './data/shell/aligned.ts';
import { startDataThreads, type DataSource } from './data/shell/data-threads.ts';
import { startHeart } from './heart/heart.ts';
import { connectControlOverNats } from './nats-control-link.ts';
import { digestOf } from './engine/digest.ts';
import { contributionOf, type Engine } from './engine/engine.ts';
import { fingerprintOf } from './engine/fingerprint.ts';
import { ReportBatch } from './report-batch.ts';
import { statePartsOf, takeStatePart } from './state-transfer.ts';
import { train, type ReplicaState } from './train.ts';

// The launcher comes in by this door and by engine/environment.ts, which must be known before a worker starts.
export type { Engine } from './engine/engine.ts';
export { openTensorflow } from './engine/tensorflow/open.ts';
export { openWasm } from './engine/wasm/open.ts';
export { openWebgpu, probeWebgpu } from './engine/webgpu/open.ts';
export { evaluateWeights } from './evaluate.ts';
export { callerOptions, tlsError, type Trust } from './tls.ts';

export interface WorkerOptions {
  /** At its address, or by the run's name on a NATS server; peers are then reached over that server, too. */
  readonly coordinator:
    | { readonly kind: 'http'; readonly url: string }
    | { readonly kind: 'nats'; readonly server: NatsServer; readonly run: string };
  readonly token: string | null;
  /** The launcher's number of this process on its host; null when nobody numbers it. */
  readonly localRank: number | null;
  /** Workers on this machine, as far as the launcher says. */
  readonly workersHere: number;
  readonly lockstepVersion: string;
  /** Where it listens for its peers; null: at the address from which it reaches the coordinator, on a free port. */
  readonly peerListen: { readonly host: string; readonly port: number } | null;
  /** The best way that it may take to peers of its own machine. */
  readonly localWays: LocalWays;
  /** For an https:// coordinator, and for links over a network then; null: neither is encrypted. */
  readonly tls: Tls | null;
  /** Finds the job on this machine's disk and checks its hash. */
  readonly openJob: (reference: JobReference) => Promise<JobDefinition>;
  readonly openEngine: (job: JobDefinition, config: RunConfig) => Promise<Engine>;
  readonly openData: (job: JobDefinition) => Promise<DataSet>;
  /** How a thread of its own opens the same data. */
  readonly dataSource: (reference: JobReference) => DataSource;
  /** Plain lines for the worker's own log. */
  readonly log: (line: string) => void;
}

type Welcome = Extract<CoordinatorMessage, { kind: 'welcome' }>;
type Generation = Extract<CoordinatorMessage, { kind: 'generation' }>;

/** Runs one worker to its end. Returns when it was dismissed; throws what made it fail. */
export async function runWorker(options: WorkerOptions): Promise<void> {
  const { coordinator, token, tls } = options;
  const control =
    coordinator.kind === 'http'
      ? await connectControl(coordinator.url, token, tls, startHeart)
      : await connectControlOverNats(coordinator.server, coordinator.run, token, startHeart);
  try {
    control.send({
      kind: 'hello',
      protocol: PROTOCOL_VERSION,
      lockstep: options.lockstepVersion,
      node: process.version,
      host: hostname(),
      pid: process.pid,
      localRank: options.localRank,
    });
    const welcome = await expectMessage(control, 'welcome');
    options.log(`joined run ${welcome.config.run} as ${welcome.worker}`);
    await work(options, control, welcome);
  } catch (error) {
    const told = error instanceof Error ? error : new Error(String(error));
    control.send({
      kind: 'failed',
      code: told instanceof LockstepError ? told.code : 'E_TRAINING',
      message: told.message.slice(0, 8000),
      stack: (told.stack ?? '').slice(0, 8000),
    });
    throw error;
  } finally {
    await control.close();
  }
}

async function expectMessage<K extends CoordinatorMessage['kind']>(
  control: ControlLink,
  kind: K,
): Promise<Extract<CoordinatorMessage, { kind: K }>> {
  const message = await control.next();
  if (isKind(message, kind)) return message;
  if (message.kind === 'refused') throw refusal(message.code, message.because);
  throw new LockstepError('E_PROTOCOL', `the coordinator sent "${message.kind}" where "${kind}" was due`);
}

function isKind<K extends CoordinatorMessage['kind']>(
  message: CoordinatorMessage,
  kind: K,
): message is Extract<CoordinatorMessage, { kind: K }> {
  return message.kind === kind;
}

function refusal(code: string, because: string): LockstepError {
  const known = code === 'E_FINGERPRINT' || code === 'E_DIGEST' || code === 'E_PROTOCOL_VERSION' ? code : 'E_PROTOCOL';
  return new LockstepError(known, `the coordinator refused this worker: ${because}`, {
    remedy:
      known === 'E_FINGERPRINT'
        ? 'Run the same engine, library, thread count and instruction set on all workers, or give --allow-mixed-engines.'
        : "See the coordinator's log.",
  });
}

async function work(options: WorkerOptions, control: ControlLink, welcome: Welcome): Promise<void> {
  const { config } = welcome;
  const job = await options.openJob(config.job);
  const engine = await options.openEngine(job, config);
  options.log(
    `engine ${engine.info.name}: ${engine.info.library} on ${engine.info.device}, ${engine.info.threads} thread(s)`,
  );
  const data = await options.openData(job);
  const plan: BatchPlan = {
    samples: config.trainSamples,
    globalBatch: config.globalBatch,
    microbatches: config.microbatches,
    seed: config.seed,
  };
  const microbatchSize = Math.ceil(config.globalBatch / config.microbatches);
  const proof = await fingerprintOf(engine, data.inputShape, data.classes.length, microbatchSize);

  const state: ReplicaState = {
    step: welcome.resumeStep ?? 0,
    weights: await engine.initialWeights(config.seed),
    slots: job.optimizer.slots.map(() => new Float32Array(engine.layout.trainableSize)),
  };
  const vectors = new Map<string, Float32Array>([
    ['weights', state.weights],
    ...job.optimizer.slots.map((slot, i): [string, Float32Array] => [
      `slot:${slot}`,
      state.slots[i] ?? new Float32Array(0),
    ]),
  ]);
  if (welcome.resumeStep !== null) await receiveState(control, vectors, state);

  // A NATS server drops who does not read for a while, and an engine may hold its thread longer: links over one never share it.
  const nats = options.coordinator.kind === 'nats' ? options.coordinator.server : null;
  const communication = await startCommunication({
    ...addressFor(options.peerListen, control.localAddress ?? '127.0.0.1'),
    token: options.token,
    run: config.run,
    ways: options.localWays,
    tls: options.tls,
    threaded: nats !== null || hasCoresToSpare(options.workersHere),
    ...(nats !== null && { nats }),
  });
  options.log(`peers reach it at ${communication.url.split('?', 1)[0]}`);
  try {
    control.send({
      kind: 'ready',
      engine: engine.info,
      fingerprint: proof,
      weightsDigest: digestOf(state.weights),
      step: state.step,
      peerUrl: communication.url,
      layout: engine.layout.entries.map((entry) => ({ ...entry, shape: [...entry.shape] })),
      topology: JSON.stringify(engine.topology),
      optimizer: { name: job.optimizer.name, slots: [...job.optimizer.slots] },
    });
    const first = await control.next();
    if (first.kind === 'dismissed' || first.kind === 'stop') {
      options.log(`dismissed: ${first.because}`);
      return;
    }
    if (first.kind === 'refused') throw refusal(first.code, first.because);
    if (first.kind !== 'generation') {
      throw new LockstepError('E_PROTOCOL', `the coordinator sent "${first.kind}" where "generation" was due`);
    }
    const isResumed = welcome.resumeStep !== null;
    const replica = { job, engine, data, plan, config, state, vectors, communication, isResumed };
    await trainGeneration(options, control, first, replica);
  } finally {
    await communication.close();
    engine.close();
    data.train.close?.();
    data.test.close?.();
  }
}

/** Where to listen for peers, and what to tell them where that is every address of this machine. */
function addressFor(
  wish: WorkerOptions['peerListen'],
  own: string,
): { readonly host: string; readonly port: number; readonly announced?: string } {
  if (wish === null) return { host: own, port: 0 };
  return wish.host === '0.0.0.0' || wish.host === '::' ? { ...wish, announced: own } : wish;
}

/** Takes the residuals that follow a generation where compressed training is resumed. */
async function receiveResiduals(
  control: ControlLink,
  residuals: ReadonlyMap<string, Float32Array>,
  step: number,
): Promise<void> {
  let part: StatePart;
  do {
    part = await expectMessage(control, 'state');
    if (part.step !== step) {
      throw new LockstepError('E_PROTOCOL', `residuals after step ${part.step} came where those after ${step} are due`);
    }
  } while (!takeStatePart(part, residuals));
}

/** Takes the state that follows a welcome, and checks that its weights are what their digest says. */
async function receiveState(
  control: ControlLink,
  vectors: ReadonlyMap<string, Float32Array>,
  state: ReplicaState,
): Promise<void> {
  let part: StatePart;
  do {
    part = await expectMessage(control, 'state');
  } while (!takeStatePart(part, vectors));
  const found = digestOf(state.weights);
  if (found !== part.digest || part.step !== state.step) {
    throw new LockstepError(
      'E_DIGEST',
      `the state after step ${part.step} arrived with the digest ${found}, not ${part.digest}`,
    );
  }
}

interface Replica {
  readonly job: JobDefinition;
  readonly engine: Engine;
  readonly data: DataSet;
  readonly plan: BatchPlan;
  readonly config: RunConfig;
  readonly state: ReplicaState;
  readonly vectors: ReadonlyMap<string, Float32Array>;
  readonly communication: Communication;
  readonly isResumed: boolean;
}

async function trainGeneration(
  options: WorkerOptions,
  control: ControlLink,
  generation: Generation,
  replica: Replica,
): Promise<void> {
  const { engine, config, state } = replica;
  options.log(`generation ${generation.generation}: rank ${generation.rank} of ${generation.worldSize}`);
  const loader = await openLoader(options, replica, generation);
  const collective = await replica.communication.open(
    {
      generation: generation.generation,
      rank: generation.rank,
      microbatches: config.microbatches,
      length: contributionOf(engine.layout).size + 1,
      firstStep: state.step,
      bucketFloats: config.bucketBytes / Float32Array.BYTES_PER_ELEMENT,
      compression:
        config.gradientCompression === 'none'
          ? null
          : { elements: config.gradientCompression, floats: engine.layout.trainableSize },
    },
    generation.members,
  );
  const residuals = new Map([...collective.residuals].map(([m, residual]) => [residualName(m), residual]));
  if (replica.isResumed && residuals.size > 0) {
    await receiveResiduals(control, residuals, state.step).catch(async (error: unknown) => {
      await collective.close();
      throw error;
    });
  }
  control.send({ kind: 'linked', generation: generation.generation });

  const reports = new ReportBatch(generation.generation, (message) => control.send(message));
  let stopWanted = false;
  let dismissed: (() => void) | null = null;
  let isDismissed = false;
  control.listen((message) => {
    if (message.kind === 'stop') stopWanted = true;
    if (message.kind === 'dismissed') {
      isDismissed = true;
      dismissed?.();
    }
  });

  const keep = async (kept: ReplicaState): Promise<void> => {
    const own = [...(generation.rank === 0 ? replica.vectors : []), ...residuals];
    const vectors = own.map(([name, data]) => ({ name, data }));
    reports.flush();
    for (const part of statePartsOf(kept.step, digestOf(kept.weights), vectors)) {
      control.send(part);
      await control.drained();
    }
  };

  try {
    // A lost coordinator ends training: nobody would keep its result.
    const ended = await Promise.race([
      train(
        {
          generation: generation.generation,
          plan: replica.plan,
          steps: config.steps,
          checkpointEverySteps: config.checkpointEverySteps,
          digestEverySteps: config.digestEverySteps,
          audit: auditOf(replica),
          learningRate: config.learningRate,
          testSamples: config.testSamples,
          engine,
          optimizer: replica.job.optimizer,
          loader,
          test: replica.data.test,
          inputShape: replica.data.inputShape,
          collective,
          clock: () => performance.now() / 1000,
          rssBytes: () => process.memoryUsage.rss(),
          stopWanted: () => stopWanted,
          report: (step, traffic) => reports.add(step, traffic),
          tell: (message) => reports.before(message),
          keep,
        },
        state,
      ),
      control.closed.then((error) => Promise.reject(error)),
    ]);
    reports.before({
      kind: 'finished',
      step: state.step,
      digest: digestOf(state.weights),
      peakRssBytes: process.resourceUsage().maxRSS * 1024,
      because: ended,
    });
    options.log(`${ended} after step ${state.step}`);
    if (!isDismissed) {
      await Promise.race([
        new Promise<void>((resolve) => {
          dismissed = resolve;
        }),
        control.closed,
      ]);
    }
  } finally {
    reports.flush();
    await loader.close();
    await collective.close();
  }
}

/** What an audit reads is read when it is needed: other microbatches than this rank's own. */
function auditOf({ config, plan, data, job }: Replica): { rate: number; loader: Loader } | null {
  if (config.auditRate === 0) return null;
  const augment = config.augment ? (job.augment ?? null) : null;
  const loader = new BatchLoader({ plan, split: data.train, inputShape: data.inputShape, augment }, alignedFloats);
  return { rate: config.auditRate, loader };
}

/** Data is prepared ahead where there are cores for it, else when it is needed. */
async function openLoader(options: WorkerOptions, replica: Replica, generation: Generation): Promise<Loader> {
  const { config, plan, data, job } = replica;
  const { inputShape } = data;
  const threads = config.dataThreads ?? dataThreadsFor(availableParallelism(), options.workersHere);
  options.log(threads === 0 ? 'data: read when it is needed' : `data: prepared ahead by ${threads} thread(s)`);
  if (threads === 0) {
    const augment = config.augment ? (job.augment ?? null) : null;
    return new BatchLoader({ plan, split: data.train, inputShape, augment }, alignedFloats);
  }
  return startDataThreads({
    source: options.dataSource(config.job),
    threads,
    plan,
    augment: config.augment,
    inputShape,
    mine: rankMicrobatches(plan.microbatches, generation.worldSize, generation.rank),
    steps: config.steps,
  });
}
