// Every flag of `train` and `coordinator` in one table: how it is written, what it takes, what holds when it is not given, and
// its line of help. Environment forms, parsing, the echo of the configuration and the help texts all read this table.

import { NATS_PORT, type NatsServer } from '../../nats/server.ts';
import { PIN, type Pin } from '../pinning.ts';
import { DEFAULT_DIGEST_EVERY_STEPS, gradientCompressionSchema } from '../../protocol/run-config.ts';
import {
  address,
  capability,
  natsUrl,
  nodeRange,
  numberOrAuto,
  onOrOff,
  oneOf,
  positiveNumber,
  powerOfTwo,
  share,
  someText,
  stepRange,
  wholeNumber,
  type Address,
  type NodeRange,
  type Parser,
  type StepRange,
} from './values.ts';

/** The values of the flags. Undefined: not given, so that the job's or the machine's value holds. */
export interface TrainFlags {
  readonly workers: number | undefined;
  readonly minWorkers: number;
  readonly maxWorkers: number | undefined;
  readonly waitLimit: number;
  readonly restartLimit: number;
  readonly nnodes: NodeRange | undefined;
  readonly nprocPerNode: number | 'auto' | undefined;
  readonly pin: Pin;
  readonly workerOutput: 'file' | 'both';
  readonly stragglerLimit: number;
  readonly progressLimit: number;
  readonly epochs: number | undefined;
  readonly maxSteps: number | undefined;
  readonly batchSize: number | undefined;
  readonly microbatches: number | undefined;
  readonly learningRate: number | undefined;
  readonly seed: number | undefined;
  readonly engine: string;
  readonly engineMode: string | undefined;
  readonly adapter: string | undefined;
  readonly precision: string | undefined;
  readonly transport: string;
  readonly bucketSize: number | undefined;
  readonly gradientCompression: string | undefined;
  readonly dataThreads: number | undefined;
  readonly natsUrl: NatsServer | undefined;
  readonly natsCreds: string | undefined;
  readonly natsReplicas: number | undefined;
  readonly standby: boolean;
  readonly listen: Address;
  readonly runDir: string | undefined;
  readonly resume: boolean;
  readonly autoResume: boolean;
  readonly allowChangedJob: boolean;
  readonly checkpointEvery: number | undefined;
  readonly keepCheckpoints: number;
  readonly digestEvery: number;
  readonly audit: number;
  readonly trainSamples: number | undefined;
  readonly testSamples: number | undefined;
  readonly augment: boolean | undefined;
  readonly tokenFile: string | undefined;
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  readonly tlsCa: string | undefined;
  readonly tlsClientCa: string | undefined;
  readonly localTransport: LocalTransport;
  readonly report: string | undefined;
  readonly tensorboard: string | undefined;
  readonly timeline: string | undefined;
  readonly timelineSteps: StepRange;
  readonly logLevel: string;
  readonly logFormat: 'pretty' | 'json';
  readonly allowMixedEngines: boolean;
}

/** What this version can do of what the contract names. A capability is switched on by moving its word. */
export const CAPABILITIES = {
  engine: { now: ['auto', 'tensorflow-gpu', 'tensorflow', 'webgpu', 'wasm'], later: [] },
  precision: { now: ['float32', 'mixed_bfloat16'], later: [] },
  transport: { now: ['ws', 'nats'], later: [] },
} as const;

export const ENGINE_WORDS = 'auto, tensorflow-gpu, tensorflow, webgpu or wasm';

/** What carries gradients between workers of one machine, best first: each stands for itself and those after it. */
export const LOCAL_TRANSPORTS = ['shm', 'unix', 'tcp'] as const;
export type LocalTransport = (typeof LOCAL_TRANSPORTS)[number];

export const MAX_WORKERS = 1024;
export const MAX_MICROBATCHES = 64;
export const DEFAULT_MICROBATCHES = 4;
export const DEFAULT_WAIT_LIMIT_SECONDS = 600;
export const DEFAULT_PROGRESS_LIMIT_SECONDS = 60;
export const DEFAULT_RESTART_LIMIT = 3;
/** Fixed: without --seed, too, a run is reproducible. */
export const DEFAULT_SEED = 1;
/** Of a token that is made from a key. */
export const DEFAULT_EXPIRY = '12h';
export const DEFAULT_PORT = 29_400;
export const DEFAULT_NATS_URL = `nats://127.0.0.1:${NATS_PORT}`;
/** As coordinator/nats/replicas.ts has it. */
const DEFAULT_NATS_REPLICAS = 3;
const MAX_NATS_REPLICAS = 5;
const MAX_BATCH = 1_048_576;
const MAX_EPOCHS = 1_000_000;

export interface FlagSpec<T> {
  /** As commander writes it: `--workers <n>`; a switch has no `<...>`. */
  readonly syntax: string;
  readonly group: 'Training' | 'Workers' | 'Data' | 'Run' | 'Network' | 'Output';
  readonly help: string;
  /** Null for a switch. */
  readonly parse: Parser<T> | null;
  readonly fallback: T;
  readonly hidden?: boolean;
}

export const FLAGS: { readonly [K in keyof TrainFlags]: FlagSpec<TrainFlags[K]> } = {
  epochs: {
    syntax: '--epochs <n>',
    group: 'Training',
    help: "passes over the training set (default: the job's)",
    parse: wholeNumber(1, MAX_EPOCHS),
    fallback: undefined,
  },
  maxSteps: {
    syntax: '--max-steps <n>',
    group: 'Training',
    help: 'end after n optimizer steps, if that is before the last epoch ends',
    parse: wholeNumber(1),
    fallback: undefined,
  },
  batchSize: {
    syntax: '--batch-size <n>',
    group: 'Training',
    help: "samples a step, over all workers; the microbatches must divide it (default: the job's)",
    parse: wholeNumber(1, MAX_BATCH),
    fallback: undefined,
  },
  microbatches: {
    syntax: '--microbatches <m>',
    group: 'Training',
    help: `equal pieces of each batch, a power of two; as many workers compute at a time, more are spares. Part of the result: other m, other bits (default: the job's, or ${DEFAULT_MICROBATCHES})`,
    parse: powerOfTwo(MAX_MICROBATCHES),
    fallback: undefined,
  },
  learningRate: {
    syntax: '--learning-rate <x>',
    group: 'Training',
    help: "in place of the job's",
    parse: positiveNumber,
    fallback: undefined,
  },
  seed: {
    syntax: '--seed <n>',
    group: 'Training',
    help: `decides initial weights, order of the samples and augmentation (default: ${DEFAULT_SEED})`,
    parse: wholeNumber(0),
    fallback: undefined,
  },
  augment: {
    syntax: '--augment <on|off>',
    group: 'Training',
    help: "the job's random changes of training samples (default: on)",
    parse: onOrOff,
    fallback: undefined,
  },
  trainSamples: {
    syntax: '--train-samples <n>',
    group: 'Data',
    help: 'use the first n training samples only',
    parse: wholeNumber(1),
    fallback: undefined,
  },
  testSamples: {
    syntax: '--test-samples <n>',
    group: 'Data',
    help: 'use the first n test samples only; 0 leaves the evaluation out',
    parse: wholeNumber(0),
    fallback: undefined,
  },
  dataThreads: {
    syntax: '--data-threads <n>',
    group: 'Data',
    help: 'threads of each worker that read and augment ahead; 0: none (default: as many as there are cores to spare). No part of the result',
    parse: wholeNumber(0),
    fallback: undefined,
  },
  workers: {
    syntax: '--workers <n>',
    group: 'Workers',
    help: 'worker processes; how many changes the speed, never the result (default: one a CPU core)',
    parse: wholeNumber(1, MAX_WORKERS),
    fallback: undefined,
  },
  minWorkers: {
    syntax: '--min-workers <n>',
    group: 'Workers',
    help: 'with fewer left, training waits for more (default: 1)',
    parse: wholeNumber(1, MAX_MICROBATCHES),
    fallback: 1,
  },
  maxWorkers: {
    syntax: '--max-workers <n>',
    group: 'Workers',
    help: 'more than these are spares, which take the place of a lost one (default: as many as there are microbatches)',
    parse: wholeNumber(1, MAX_WORKERS),
    fallback: undefined,
  },
  waitLimit: {
    syntax: '--wait-limit <seconds>',
    group: 'Workers',
    help: `how long a run with too few workers waits for more before it fails (default: ${DEFAULT_WAIT_LIMIT_SECONDS})`,
    parse: wholeNumber(1),
    fallback: DEFAULT_WAIT_LIMIT_SECONDS,
  },
  restartLimit: {
    syntax: '--restart-limit <n>',
    group: 'Workers',
    help: `how often in a row a worker that died is started anew without having done a step (default: ${DEFAULT_RESTART_LIMIT})`,
    parse: wholeNumber(0),
    fallback: DEFAULT_RESTART_LIMIT,
  },
  nnodes: {
    syntax: '--nnodes <min:max>',
    group: 'Workers',
    help: 'machines, as torchrun counts them: with --nproc-per-node, --min-workers and --max-workers in other words. N: N:N',
    parse: nodeRange,
    fallback: undefined,
  },
  nprocPerNode: {
    syntax: '--nproc-per-node <n|auto>',
    group: 'Workers',
    help: 'workers on each machine; auto: one a GPU, or else one a CPU core',
    parse: numberOrAuto(MAX_WORKERS),
    fallback: undefined,
  },
  pin: {
    syntax: '--pin <how>',
    group: 'Workers',
    help: "bind workers on the CPU to processors: on, cores of their own; auto, a memory node's where there are several; off. No part of the result (default: auto)",
    parse: oneOf(PIN),
    fallback: 'auto',
  },
  workerOutput: {
    syntax: '--worker-output <where>',
    group: 'Output',
    help: "what workers write: file, each to its own in the run's logs/, or both, to the terminal, too, after the worker's name (default: file)",
    parse: oneOf(['file', 'both']),
    fallback: 'file',
  },
  stragglerLimit: {
    syntax: '--straggler-limit <rate>',
    group: 'Workers',
    help: 'a worker that the others wait for, this share of a step or longer (0 to 1), makes room for a spare (default: 0, it is only named)',
    parse: share,
    fallback: 0,
  },
  progressLimit: {
    syntax: '--progress-limit <seconds>',
    group: 'Workers',
    help: `without a step for so long, and for 20 of the longest, a worker that the others wait for is sent away (default: ${DEFAULT_PROGRESS_LIMIT_SECONDS}; 0: never)`,
    parse: wholeNumber(0),
    fallback: DEFAULT_PROGRESS_LIMIT_SECONDS,
  },
  engine: {
    syntax: '--engine <name>',
    group: 'Workers',
    help: `${ENGINE_WORDS} (default: auto, the best that works here; which one, and why none better, is printed)`,
    parse: capability(CAPABILITIES.engine),
    fallback: 'auto',
  },
  precision: {
    syntax: '--precision <name>',
    group: 'Workers',
    help: 'float32, or mixed_bfloat16: convolutions and matrix products in bfloat16, all else in float32 (default: float32)',
    parse: capability(CAPABILITIES.precision),
    fallback: undefined,
  },
  adapter: {
    syntax: '--adapter <names>',
    group: 'Workers',
    help: 'the GPUs of --engine webgpu by (a part of) their names, separated by commas: one a worker, in turn (default: the fastest; a rasteriser on the processor must be named)',
    parse: someText,
    fallback: undefined,
  },
  engineMode: {
    syntax: '--engine-mode <mode>',
    group: 'Workers',
    help: 'graph, the model traced into one TensorFlow graph, or eager, operation by operation: slower, for models that cannot be traced (default: graph where the engine has it)',
    parse: oneOf(['graph', 'eager']),
    fallback: undefined,
  },
  allowMixedEngines: {
    syntax: '--allow-mixed-engines',
    group: 'Workers',
    help: 'admit workers whose engine computes other bits; the run is then marked as not reproducible',
    parse: null,
    fallback: false,
  },
  runDir: {
    syntax: '--run-dir <dir>',
    group: 'Run',
    help: 'where the run keeps its files (default: runs/<job>-<time>)',
    parse: someText,
    fallback: undefined,
  },
  resume: {
    syntax: '--resume',
    group: 'Run',
    help: "go on from the last checkpoint of --run-dir, or of the job's newest run; any number of workers will do",
    parse: null,
    fallback: false,
  },
  autoResume: {
    syntax: '--auto-resume',
    group: 'Run',
    help: 'for schedulers, that start the same line again: begin in --run-dir, or go on with what is there; exit 0 where nothing is left to do',
    parse: null,
    fallback: false,
  },
  allowChangedJob: {
    syntax: '--allow-changed-job',
    group: 'Run',
    help: 'with --resume: go on although the job file is not the one that the checkpoint was made by; the record and the report say so',
    parse: null,
    fallback: false,
  },
  checkpointEvery: {
    syntax: '--checkpoint-every <steps>',
    group: 'Run',
    help: 'a checkpoint each so many steps, besides those at the end of an epoch and at Ctrl-C',
    parse: wholeNumber(1),
    fallback: undefined,
  },
  keepCheckpoints: {
    syntax: '--keep-checkpoints <n>',
    group: 'Run',
    help: 'how many of the newest are kept, and besides them the best by test accuracy (default: 3)',
    parse: wholeNumber(1, 1_000_000),
    fallback: 3,
  },
  digestEvery: {
    syntax: '--digest-every <steps>',
    group: 'Run',
    help: `compare the workers' weights, to the bit, each so many steps, besides the end of an epoch; 0: only there (default: ${DEFAULT_DIGEST_EVERY_STEPS})`,
    parse: wholeNumber(0),
    fallback: DEFAULT_DIGEST_EVERY_STEPS,
  },
  audit: {
    syntax: '--audit <rate>',
    group: 'Run',
    help: 'a second worker computes this share of the microbatches again, from 0 to 1, and the bits are compared (default: 0, none)',
    parse: share,
    fallback: 0,
  },
  report: {
    syntax: '--report <file>',
    group: 'Run',
    help: "write the run's report.json there, too",
    parse: someText,
    fallback: undefined,
  },
  tensorboard: {
    syntax: '--tensorboard <dir>',
    group: 'Run',
    help: "write TensorBoard's event files there: `tensorboard --logdir DIR` shows loss, accuracy and speed",
    parse: someText,
    fallback: undefined,
  },
  timeline: {
    syntax: '--timeline <file>',
    group: 'Run',
    help: 'write there what each worker does when, as a Chrome trace: ui.perfetto.dev and chrome://tracing show it. With --resume the file is gone on with',
    parse: someText,
    fallback: undefined,
  },
  timelineSteps: {
    syntax: '--timeline-steps <from-to>',
    group: 'Run',
    help: 'the steps that --timeline shows, e.g. 100-200 (default: all, some 2 KB a step and worker)',
    parse: stepRange,
    fallback: { from: 0, to: Number.MAX_SAFE_INTEGER },
  },
  listen: {
    syntax: '--listen <host:port>',
    group: 'Network',
    help: `the coordinator's address: page, /metrics, /api/run, workers; port 0 picks a free one (default: 127.0.0.1:${DEFAULT_PORT})`,
    parse: address,
    fallback: { host: '127.0.0.1', port: DEFAULT_PORT },
  },
  tokenFile: {
    syntax: '--token-file <file>',
    group: 'Network',
    help: "the run's key, which workers show, or a token that `lockstep token` made from it; needed to listen beyond this machine (default: a new one a run)",
    parse: someText,
    fallback: undefined,
  },
  transport: {
    syntax: '--transport <name>',
    group: 'Network',
    help: 'how control messages and gradients travel: ws (gradients through shared memory or a unix socket within a machine), or nats, all over a NATS server, for workers that cannot reach each other (default: ws)',
    parse: capability(CAPABILITIES.transport),
    fallback: 'ws',
  },
  bucketSize: {
    syntax: '--bucket-size <kib>',
    group: 'Network',
    help: 'KiB of the gradient that travel on their own as soon as they are computed. No part of the result (default: a quarter of it, between 512 and 2048 for each worker)',
    parse: wholeNumber(4),
    fallback: undefined,
  },
  gradientCompression: {
    syntax: '--gradient-compression <form>',
    group: 'Network',
    help: 'none, or for slow networks bf16 or fp16: gradients travel in 16 bits, what rounding takes away comes with the next step. Part of the result, which stays the same for any number of workers (default: none)',
    parse: oneOf(gradientCompressionSchema.options),
    fallback: undefined,
  },
  natsUrl: {
    syntax: '--nats-url <url>',
    group: 'Network',
    help: `the server of --transport nats: nats://HOST:PORT, or tls://; of a cluster HOST:PORT,HOST:PORT,...; before HOST, where it asks for them, USER:PASSWORD@ or TOKEN@, better set as LOCKSTEP_NATS_URL than written on a line that others can list (default: ${DEFAULT_NATS_URL})`,
    parse: natsUrl,
    fallback: undefined,
  },
  natsCreds: {
    syntax: '--nats-creds <file>',
    group: 'Network',
    help: "a NATS credentials file (a JWT and its seed), where the server's accounts ask for one",
    parse: someText,
    fallback: undefined,
  },
  tlsClientCa: {
    syntax: '--tls-client-ca <file>',
    group: 'Network',
    help: 'whoever calls, worker, page or scraper, must show a certificate of this authority (PEM), but for /healthz',
    parse: someText,
    fallback: undefined,
  },
  natsReplicas: {
    syntax: '--nats-replicas <n>',
    group: 'Network',
    help: `on how many servers of a NATS cluster the run's record and checkpoints lie: 1, 3 or 5 (default: ${DEFAULT_NATS_REPLICAS} where the server is one of a cluster that has as many, else 1; fewer is said)`,
    parse: wholeNumber(1, MAX_NATS_REPLICAS),
    fallback: undefined,
  },
  standby: {
    syntax: '--standby',
    group: 'Network',
    help: '`coordinator` over NATS only: wait until the coordinator that leads the run of --run-dir is silent, then take it over',
    parse: null,
    fallback: false,
  },
  localTransport: {
    syntax: '--local-transport <name>',
    group: 'Network',
    help: 'the best that workers of one machine may use between them: shm, unix or tcp (default: shm). No part of the result',
    parse: oneOf(LOCAL_TRANSPORTS),
    fallback: 'shm',
  },
  tlsCert: {
    syntax: '--tls-cert <file>',
    group: 'Network',
    help: 'serve https, and encrypt links over a network, with this certificate (PEM, with what leads to its authority)',
    parse: someText,
    fallback: undefined,
  },
  tlsKey: {
    syntax: '--tls-key <file>',
    group: 'Network',
    help: 'the key of --tls-cert (PEM, not encrypted)',
    parse: someText,
    fallback: undefined,
  },
  tlsCa: {
    syntax: '--tls-ca <file>',
    group: 'Network',
    help: "certificates that workers trust: an authority's, or the coordinator's own (default: those that Node trusts, and --tls-cert)",
    parse: someText,
    fallback: undefined,
  },
  logLevel: {
    syntax: '--log-level <level>',
    group: 'Output',
    help: 'debug, info, warn or error (default: info)',
    parse: oneOf(['debug', 'info', 'warn', 'error']),
    fallback: 'info',
  },
  logFormat: {
    syntax: '--log-format <format>',
    group: 'Output',
    help: 'pretty, or json: one object a line (default: pretty)',
    parse: oneOf(['pretty', 'json']),
    fallback: 'pretty',
  },
};

/** `--max-steps` of `--max-steps <n>`. */
export function flagName(syntax: string): string {
  return syntax.split(' ', 1)[0] ?? syntax;
}

/** `LOCKSTEP_MAX_STEPS` of `--max-steps <n>`. */
export function environmentName(syntax: string): string {
  return `LOCKSTEP_${flagName(syntax).slice(2).replaceAll('-', '_').toUpperCase()}`;
}
