// A worker's life: join the coordinator, prove what its engine computes, serve the generations that it is a member of (member.ts), say
// how it ended. The shell around both; all that it does not own (the job's code, the engine, the data, the clock) comes
// in as functions, so that the launcher decides where they come from.

import { availableParallelism, hostname } from 'node:os';
import type { DataSet, JobDefinition } from '../jobs/contract.ts';
import type { NatsServer } from '../nats/server.ts';
import { LockstepError } from '../protocol/errors.ts';
import { PROTOCOL_VERSION, type CoordinatorMessage, type Dismissal, type WorkerMessage } from '../protocol/messages.ts';
import { batchPlanOf, type JobReference, type RunConfig } from '../protocol/run-config.ts';
import type { Share } from '../protocol/shares.ts';
import type { Tls } from '../protocol/tls.ts';
import type { LocalWays } from './collective/links/ws.ts';
import { hasCoresToSpare, startCommunication } from './collective/shell/communication.ts';
import type { Communication } from './collective/shell/generation.ts';
import { connectControl, type ControlLink } from './control-link.ts';
import { dataThreadsFor } from './data/ahead.ts';
import type { Loader } from './data/batch-loader.ts';
import { startDataThreads, type DataSource } from './data/shell/data-threads.ts';
import { plainLoader, whileWaitingLoader } from './data/shell/plain-loader.ts';
import { startHeart } from './heart/heart.ts';
import { digestOf } from './engine/digest.ts';
import { contributionOf, type Engine } from './engine/engine.ts';
import { fingerprintOf } from './engine/fingerprint.ts';
import { startExporter, type Exporter, type ExporterOptions } from './metrics/exporter.ts';
import { watchGpu } from './metrics/gpu.ts';
import { KeptMicrobatches } from './kept-microbatches.ts';
import { keepJoined } from './rejoin.ts';
import { refusal, serveGenerations, type Replica } from './member.ts';
import { bootOf, originUs } from './timeline/machine-clock.ts';
import { Recorder } from './timeline/recorder.ts';
import type { ReplicaState } from './train.ts';

// The launcher comes in by this door and by engine/environment.ts, which must be known before a worker starts.
export type { Engine } from './engine/engine.ts';
export { openTensorflow } from './engine/tensorflow/open.ts';
export { openWasm } from './engine/wasm/open.ts';
export { openWebgpu, probeWebgpu } from './engine/webgpu/open.ts';
export { evaluateWeights } from './evaluate.ts';
export { replaySteps, type KeptState } from './replay.ts';
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
  /** Told of each generation's place, when it begins for this worker. */
  readonly placed?: (place: { readonly rank: number; readonly worldSize: number }) => void;
  /** Plain lines for the worker's own log. */
  readonly log: (line: string) => void;
}

/** What a worker reaches others by. */
export interface Surroundings {
  /** This machine's name, as others are told it. */
  readonly host: string;
  /** Throws E_COORDINATOR_LOST, E_UNAUTHORIZED or E_TLS. */
  connect(options: WorkerOptions): Promise<ControlLink>;
  communicate(options: Parameters<typeof startCommunication>[0]): Promise<Communication>;
  /** Serves the worker's own metrics; null: nobody could ask for them. */
  expose(options: ExporterOptions): Promise<Exporter | null>;
}

/** Sockets, shared memory or a NATS server, as the options say. */
const REAL: Surroundings = {
  host: hostname(),
  connect: async ({ coordinator, token, tls }) => {
    if (coordinator.kind === 'http') return connectControl(coordinator.url, token, tls, startHeart);
    // Where it is needed only: the client of NATS takes a tenth of a second to load.
    const { connectControlOverNats } = await import('./nats-control-link.ts');
    return connectControlOverNats(coordinator.server, coordinator.run, token, startHeart);
  },
  communicate: startCommunication,
  expose: startExporter,
};

type Welcome = Extract<CoordinatorMessage, { kind: 'welcome' }>;

/** Runs one worker to its end. Returns how the run ended, when it was dismissed; throws what made it fail. */
export async function runWorker(options: WorkerOptions, around: Surroundings = REAL): Promise<Dismissal['outcome']> {
  const { first, welcome } = await join(options, around);
  // The link that is there when it ends: coordinators may come and go.
  const session: Session = { control: first };
  try {
    options.log(`joined run ${welcome.config.run} as ${welcome.worker}`);
    return await work(options, around, first, welcome, session);
  } catch (error) {
    const told = error instanceof Error ? error : new Error(String(error));
    session.control.send({
      kind: 'failed',
      code: told instanceof LockstepError ? told.code : 'E_TRAINING',
      message: told.message.slice(0, 8000),
      stack: (told.stack ?? '').slice(0, 8000),
    });
    throw error;
  } finally {
    await session.control.close();
  }
}

/** Where the launcher has said that there is a coordinator there is one soon, though the first one may just have died. */
const JOIN_LIMIT_MS = 30_000;
const JOIN_AGAIN_MS = 200;
const GONE: ReadonlySet<string> = new Set(['E_COORDINATOR_LOST', 'E_NATS_LOST', 'E_NATS_UNREACHABLE']);

async function join(
  options: WorkerOptions,
  around: Surroundings,
): Promise<{ readonly first: ControlLink; readonly welcome: Welcome }> {
  const beganAt = performance.now();
  for (;;) {
    let first: ControlLink | null = null;
    try {
      first = await around.connect(options);
      first.send({ ...helloOf(options, around.host), rejoin: null });
      return { first, welcome: await expectMessage(first, 'welcome') };
    } catch (error) {
      await first?.close();
      const isGone = error instanceof LockstepError && GONE.has(error.code);
      const isPatient = options.localRank !== null && performance.now() - beganAt < JOIN_LIMIT_MS;
      if (!isGone || !isPatient) throw error;
    }
    await new Promise<void>((resolve) => {
      setTimeout(resolve, JOIN_AGAIN_MS);
    });
  }
}

interface Session {
  control: Pick<ControlLink, 'send' | 'close'>;
}

function helloOf(options: WorkerOptions, host: string): Omit<Extract<WorkerMessage, { kind: 'hello' }>, 'rejoin'> {
  return {
    kind: 'hello',
    protocol: PROTOCOL_VERSION,
    lockstep: options.lockstepVersion,
    node: process.version,
    host,
    pid: process.pid,
    localRank: options.localRank,
  };
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

async function work(
  options: WorkerOptions,
  around: Surroundings,
  control: ControlLink,
  welcome: Welcome,
  session: Session,
): Promise<Dismissal['outcome']> {
  const { config } = welcome;
  const job = await options.openJob(config.job);
  const engine = await options.openEngine(job, config);
  options.log(
    `engine ${engine.info.name}: ${engine.info.library} on ${engine.info.device}, ${engine.info.threads} thread(s)`,
  );
  const data = await options.openData(job);
  const plan = batchPlanOf(config);
  const microbatchSize = Math.ceil(config.globalBatch / config.microbatches);
  const proof = await fingerprintOf(engine, data.inputShape, data.classes.length, microbatchSize);

  const weights = await engine.initialWeights(config.seed);
  const state: ReplicaState = {
    step: 0,
    weights,
    slots: job.optimizer.slots.map(() => new Float32Array(engine.layout.trainableSize)),
  };
  const vectors = new Map<string, Float32Array>([
    ['weights', state.weights],
    ...job.optimizer.slots.map((slot, i): [string, Float32Array] => [
      `slot:${slot}`,
      state.slots[i] ?? new Float32Array(0),
    ]),
  ]);

  const address = addressFor(options.peerListen, control.localAddress ?? '127.0.0.1');
  // A NATS server drops who does not read for a while, and an engine may hold its thread longer: links over one never share it.
  const nats = options.coordinator.kind === 'nats' ? options.coordinator.server : null;
  const communicate = async (): Promise<Communication> =>
    around.communicate({
      ...address,
      token: welcome.secrets?.peers ?? null,
      run: config.run,
      onRefused: (code) => exporter?.countRefusal(code),
      ways: options.localWays,
      tls: options.tls,
      threaded: nats !== null || hasCoresToSpare(options.workersHere),
      ...(nats !== null && { nats }),
    });
  let exporter: Exporter | null = null;
  let communication = await communicate();
  /** A server of a cluster may be lost that carried the gradients alone: then no peer is reached, and the coordinator must be told. */
  const watchOver = (present: Communication, joined: { again(because: string): void }): void => {
    void present.lost.then(() => {
      if (present === communication) joined.again('the connection that carries gradients is lost');
    });
  };
  options.log(`peers reach it at ${communication.url.split('?', 1)[0]}`);
  const { port: _peersOnly, ...metricsAddress } = address;
  exporter = await around.expose({
    ...metricsAddress,
    tls: options.tls,
    keys:
      options.token === null
        ? null
        : {
            whole: options.token,
            scopeKey: (scope) => (scope === 'observe' ? (welcome.secrets?.observe ?? null) : null),
          },
    run: config.run,
    worker: welcome.worker,
    engineBytes: () => engine.memory().bytes,
    gpu: gpuOf(engine),
  });
  const initialDigest = digestOf(state.weights);
  const ready = (): WorkerMessage => ({
    kind: 'ready',
    engine: engine.info,
    fingerprint: proof,
    weightsDigest: initialDigest,
    peerUrl: communication.url,
    ...(exporter !== null && { metricsUrl: exporter.url }),
    layout: engine.layout.entries.map((entry) => ({ ...entry, shape: [...entry.shape] })),
    topology: JSON.stringify(engine.topology),
    optimizer: { name: job.optimizer.name, slots: [...job.optimizer.slots] },
  });
  try {
    control.send(ready());
    const served: { generation: number; worldSize: number; memberProof?: string } = { generation: 0, worldSize: 0 };
    const launcher = options.localRank === null ? null : process.ppid;
    const clock = (): number => performance.now() / 1000;
    const recorder = new Recorder({ originUs, seconds: clock, boot: bootOf });
    const joined = keepJoined({
      first: control,
      connect: () => around.connect(options),
      hello: helloOf(options, around.host),
      term: welcome.term,
      termProof: welcome.secrets?.term,
      ready: async () => {
        if (communication.isLost) {
          await communication.close();
          communication = await communicate();
          watchOver(communication, joined);
        }
        return ready();
      },
      config,
      standing: () => ({ worker: welcome.worker, ...served, step: state.step }),
      renamed: (worker) => {
        exporter?.rename(worker);
        recorder.forget();
      },
      isOrphaned: () => launcher !== null && process.ppid !== launcher,
      log: options.log,
    });
    session.control = joined;
    watchOver(communication, joined);
    const kept = new KeptMicrobatches({ floats: contributionOf(engine.layout).size });
    const replica = { job, engine, data, plan, config, state, vectors, kept };
    return await serveGenerations({
      control: joined,
      communication: { open: async (...args) => communication.open(...args) },
      replica,
      audit: auditOf(replica),
      serving: ({ generation, rank, worldSize, proof: memberProof }) => {
        Object.assign(served, { generation, worldSize, ...(memberProof !== undefined && { memberProof }) });
        options.placed?.({ rank, worldSize });
      },
      openLoader: async (mine) => openLoader(options, replica, mine),
      clock,
      recorder,
      rssBytes: () => process.memoryUsage.rss(),
      peakRssBytes: () => process.resourceUsage().maxRSS * 1024,
      observe: (step) => exporter?.observe(step),
      log: options.log,
    });
  } finally {
    await exporter?.close();
    await communication.close();
    engine.close();
    data.train.close?.();
    data.test.close?.();
  }
}

/** The first GPU that the process may use is the one that it uses. */
function gpuOf(engine: Engine): ExporterOptions['gpu'] {
  if (engine.info.name !== 'tensorflow-gpu') return () => null;
  return watchGpu(process.env['CUDA_VISIBLE_DEVICES']?.split(',', 1)[0] ?? '0', () => performance.now());
}

/** Where to listen for peers, and what to tell them where that is every address of this machine. */
function addressFor(
  wish: WorkerOptions['peerListen'],
  own: string,
): { readonly host: string; readonly port: number; readonly announced?: string } {
  if (wish === null) return { host: own, port: 0 };
  return wish.host === '0.0.0.0' || wish.host === '::' ? { ...wish, announced: own } : wish;
}

/** What an audit reads is read when it is needed: other microbatches than this rank's own. */
function auditOf({ config, data, job }: Replica): { rate: number; loader: Loader } | null {
  return config.auditRate === 0 ? null : { rate: config.auditRate, loader: plainLoader(config, job, data) };
}

/** Data is prepared ahead by threads where there are cores for them, else in the time in which this rank waits. */
async function openLoader(options: WorkerOptions, replica: Replica, mine: Share): Promise<Loader> {
  const { config, plan, data, job } = replica;
  const threads = config.dataThreads ?? dataThreadsFor(availableParallelism(), options.workersHere);
  const how = threads === 0 ? 'while this worker waits for others' : `by ${threads} thread(s)`;
  options.log(`data: prepared ahead ${how}`);
  if (threads === 0) return whileWaitingLoader(config, job, data, mine);
  return startDataThreads({
    source: options.dataSource(config.job),
    threads,
    plan,
    augment: config.augment,
    inputShape: data.inputShape,
    mine,
    steps: config.steps,
  });
}
