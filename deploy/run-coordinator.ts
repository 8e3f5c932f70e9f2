// `lockstep coordinator JOB`: the coordinator alone, for workers that are started elsewhere; `lockstep train` starts it too, and
// then stands behind its IPC channel. Turns a parsed command into a run - from the job, its data set and, with --resume, the
// checkpoint - and shows on the terminal what happens.

import { randomBytes } from 'node:crypto';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import type { SendHandle } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism, hostname, networkInterfaces } from 'node:os';
import { basename, join, resolve } from 'node:path';
import {
  holdsRun,
  configOf,
  lastStepOf,
  latestCheckpoint,
  latestRun,
  keptRunOf,
  openRunDirectory,
  restoreRunDirectory,
  samplesOf,
  startCoordinator,
  type Checkpoint,
  type KeptRun,
  type RunDirectory,
} from '../coordinator/main.ts';
import type { JobDefinition } from '../jobs/contract.ts';
import { LockstepError } from '../protocol/errors.ts';
import { BEAT_EVERY_MS } from '../protocol/heartbeat.ts';
import type { JobReference, RunConfig } from '../protocol/run-config.ts';
import { chooseEngineHere } from './engines.ts';
import { loadJob } from './job-file.ts';
import { ENGINE_CHOICE, type EngineChoice } from './ladder.ts';
import { joinLine } from './join-line.ts';
import { hungHolderOf } from './endpoint.ts';
import {
  FENCED_EXIT,
  fromLauncher,
  NATS_LOST_EXIT,
  TAKEOVER,
  type Alive,
  type EndWorker,
  type Listening,
  type StartWorker,
} from './launch-messages.ts';
import { joinUrl, natsServerOf } from './nats.ts';
import { resolveRun, type Origin, type TrainFlags, type TrainOptions } from './options.ts';
import { isLoopback } from './options/values.ts';
import { dataSetDirectory } from './setup/dataset.ts';
import { findGpus } from './setup/nvidia.ts';
import { compressionText, type Setting } from './terminal/account.ts';
import { createDisplay } from './terminal/display.ts';
import { startTelemetry } from './telemetry.ts';
import { openTensorBoard } from './tensorboard/writer.ts';
import { readTls } from './tls-files.ts';
import { isOpenToOthers, readToken } from './token.ts';
import { LOCKSTEP_VERSION } from './version.ts';

/** Where runs go when nobody says. */
const RUNS = 'runs';

/** By the cause of a failure that is none of the run's. */
const LAUNCHER_EXITS: ReadonlyMap<string, number> = new Map([
  ['E_NATS_LOST', NATS_LOST_EXIT],
  ['E_FENCED', FENCED_EXIT],
]);
const EXIT_CODES = { done: 0, failed: 1, stopped: 130 } as const;

interface Resume {
  /** The run's configuration until now. */
  readonly config: RunConfig;
  /** Null where the run ended before its first one: it begins anew, or with the state of workers that are still there. */
  readonly checkpoint: Checkpoint | null;
  readonly directory: string;
  readonly stepsLost: number;
  /** The job's SHA-256 in the checkpoint, where it is another one now and that is allowed. */
  readonly jobChangedFrom: string | null;
  readonly damaged: readonly string[];
}

/** Runs a coordinator to the end of its run; returns the exit code. */
export async function runCoordinatorCommand(options: TrainOptions): Promise<number> {
  const { flags } = options;
  const job = await loadJob(options.job);
  const path = runDirectoryOf(flags, job.definition);
  const isNew = !existsSync(path);
  const restored = flags.resume && !holdsRun(path) ? await restore(flags, path) : null;
  const isTakeover = process.env[TAKEOVER] !== undefined;
  const hung = flags.resume && !isTakeover ? await hungHolderOf(path) : null;
  const runDirectory = openRunDirectory(
    path,
    flags.resume,
    ({ pid, host }) =>
      host === hostname() ? pid === (isTakeover ? Number(process.env[TAKEOVER]) : hung?.pid) : host === hung?.host,
    restored?.term,
  );
  if (!isTakeover) endHung(runDirectory);
  try {
    return await coordinate(options, job, runDirectory, restored);
  } finally {
    await runDirectory.release();
    // A run that could not even begin leaves nothing behind.
    if (isNew && !holdsRun(runDirectory.path)) rmSync(runDirectory.path, { recursive: true, force: true });
  }
}

/** The beginning of a run directory in the place of one that is lost; null: no server keeps anything of it. */
async function restore(flags: TrainFlags, path: string): Promise<KeptRun | null> {
  const server = natsServerOf(flags);
  const run = basename(resolve(path));
  const kept = server === null ? null : await keptRunOf(server, run);
  if (kept === null) return null;
  // Workers give up at a coordinator that does not know it.
  if (flags.tokenFile === undefined) {
    throw new LockstepError('E_USAGE', `the run ${run} is kept at the NATS server, but not the token of its workers`, {
      remedy: 'Give --token-file a copy of the one that they have.',
    });
  }
  await restoreRunDirectory(path, kept);
  return kept;
}

/** It is fenced off; here it can also be made to leave its port to this one. Where that is not allowed, the fence is what there is. */
function endHung({ hung }: RunDirectory): void {
  for (const { pid, host } of hung) {
    if (host !== hostname()) continue;
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if (!(error instanceof Error && 'code' in error)) throw error;
    }
  }
}

/** What a coordinator that takes over listens on: its launcher kept it. */
async function doorFromLauncher(): Promise<unknown> {
  const [, door] = (await once(process, 'message')) as [unknown, unknown];
  return door ?? null;
}

function runDirectoryOf(flags: TrainFlags, job: JobDefinition): string {
  if (flags.runDir !== undefined) return flags.runDir;
  if (!flags.resume) {
    const time = new Date().toISOString().replaceAll(/[-:]/g, '').replace('T', '-').slice(0, 15);
    return join(RUNS, `${job.name}-${time}`);
  }
  const newest = latestRun(RUNS, job.name);
  if (newest === null) {
    throw new LockstepError('E_RUN_NOT_FOUND', `there is no run of ${job.name} in ${RUNS}/ to resume`, {
      remedy: 'Start one without --resume, or name its directory with --run-dir.',
    });
  }
  return newest;
}

async function coordinate(
  options: TrainOptions,
  job: { readonly definition: JobDefinition; readonly reference: JobReference },
  runDirectory: RunDirectory,
  restored: KeptRun | null,
): Promise<number> {
  const { flags } = options;
  const { definition } = job;
  const resume = flags.resume ? await openResume(runDirectory.path, job.reference, flags.allowChangedJob) : null;
  const data = definition.data.open(dataSetDirectory(definition.data));
  const choice = await engineChoice(flags, resume?.config ?? null);
  const place = {
    engine: choice.engine,
    run: basename(runDirectory.path),
    reference: job.reference,
    trainSize: data.train.size,
    testSize: data.test.size,
  };
  data.train.close?.();
  data.test.close?.();
  const config = resolveRun(withCheckpoint(flags, resume?.config ?? null), definition, place);
  if (resume !== null) checkResume(config, resume, runDirectory.path, flags.allowMixedEngines);
  const workers = flags.workers ?? (await workersHere(config.engine, flags.adapter));
  const tls = readTls(flags, Date.now());
  const tokenFile = flags.tokenFile ?? join(runDirectory.path, 'token');
  // A run keeps its token: workers that have lost a coordinator show it to the next.
  if (flags.tokenFile === undefined && !(flags.resume && existsSync(tokenFile)))
    writeFileSync(tokenFile, `${randomBytes(24).toString('base64url')}\n`, { mode: 0o600 });
  const token = readToken(tokenFile);

  const display = createDisplay({
    format: flags.logFormat,
    level: flags.logLevel,
    stdout: process.stdout,
    env: process.env,
  });
  display.configuration(
    titleOf(definition),
    settingsOf(options, config, definition, workers, runDirectory.path, choice),
  );
  const warnings = [
    ...(restored === null
      ? []
      : [`there is no run in ${runDirectory.path}: its record is taken from ${restored.bucket} of the NATS server`]),
    ...(resume?.damaged ?? []).map((message) => `${message}; the one before it is used`),
    ...exposures(flags, tokenFile),
  ];
  for (const message of warnings) display.event({ kind: 'warning', message });

  const board =
    flags.tensorboard === undefined
      ? null
      : await openTensorBoard({
          directory: flags.tensorboard,
          learningRate: config.learningRate,
          resumedFromStep: resume === null ? null : (resume.checkpoint?.step ?? 0),
          now: () => Date.now() / 1000,
          warn: (message) => display.event({ kind: 'warning', message }),
        });
  const telemetry = startTelemetry(config, LOCKSTEP_VERSION, Date.now);
  const supervised = process.send !== undefined;
  const nats = natsServerOf(flags);
  const door = process.env[TAKEOVER] === undefined ? null : await doorFromLauncher();
  const coordinator = await startCoordinator({
    config,
    workers,
    allowMixedEngines: flags.allowMixedEngines,
    minWorkers: flags.minWorkers,
    maxWorkers: flags.maxWorkers ?? config.microbatches,
    waitLimitMs: 1000 * flags.waitLimit,
    restartLimit: flags.restartLimit,
    stragglerLimit: flags.stragglerLimit,
    progressLimitMs: 1000 * flags.progressLimit,
    listen: flags.listen,
    door,
    identity: tls?.identity ?? null,
    token,
    nats,
    runDirectory,
    resume,
    keepCheckpoints: flags.keepCheckpoints,
    reportFile: flags.report ?? null,
    timeline: flags.timeline === undefined ? null : { file: flags.timeline, ...flags.timelineSteps },
    supervised,
    lockstepVersion: LOCKSTEP_VERSION,
    dataSet: definition.data.name,
    augment: config.augment ? (definition.augment?.name ?? 'on') : 'off',
    samples: () => {
      const opened = definition.data.open(dataSetDirectory(definition.data));
      try {
        return samplesOf(opened, config.testSamples);
      } finally {
        opened.train.close?.();
        opened.test.close?.();
      }
    },
    startWorker: (localRank) => process.send?.({ kind: 'start-worker', localRank } satisfies StartWorker),
    endWorker: ({ localRank, pid }) => process.send?.({ kind: 'end-worker', localRank, pid } satisfies EndWorker),
    onEvent: (event) => {
      display.event(event);
      board?.event(event);
      telemetry.event(event);
    },
    onView: (view) => display.view(view),
  });
  if (!supervised && flags.logFormat === 'pretty') {
    // The exact line to paste on a worker's terminal: whole, however narrow this one is.
    const joining = { url: coordinator.url, addresses: addressesHere(), job: options.job };
    const over = nats === null ? {} : { natsAddress: joinUrl(nats, config.run) };
    process.stdout.write(`workers join with:\n${joinLine({ ...flags, ...joining, ...over, tokenFile })}\n`);
  }

  const stop = (signal: NodeJS.Signals): void => coordinator.stop(signal === 'SIGINT' ? 'Ctrl-C' : signal);
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  if (supervised) {
    process.on('message', (raw) => {
      const message = fromLauncher(raw);
      if (message?.kind === 'stop') coordinator.stop(message.because);
      if (message?.kind === 'worker-ended') {
        const { pid, localRank, ...end } = message.end;
        coordinator.processEnded({ kind: 'process-ended', pid, localRank, end });
      }
    });
    // The launcher is gone: nobody would watch the workers or see the end.
    process.on('disconnect', () => coordinator.stop('the launcher is gone'));
    const listening: Listening = {
      kind: 'listening',
      url: nats === null ? coordinator.url : joinUrl(nats, config.run),
      tokenFile,
      logDirectory: runDirectory.logDirectory,
      runDirectory: runDirectory.path,
      address: coordinator.url,
      workers,
    };
    process.send?.(listening, coordinator.door as SendHandle);
  }
  const beats = setInterval(() => {
    if (supervised && process.connected) process.send?.({ kind: 'alive' } satisfies Alive);
  }, BEAT_EVERY_MS);
  try {
    const { outcome, cause } = await coordinator.ended;
    if (cause?.code === 'E_FENCED' && !supervised) {
      throw new LockstepError('E_FENCED', cause.message, { remedy: 'Nothing is to be done: the run goes on there.' });
    }
    const forLauncher = supervised ? LAUNCHER_EXITS.get(cause?.code ?? '') : undefined;
    return forLauncher ?? EXIT_CODES[outcome];
  } finally {
    await board?.close();
    telemetry.close();
    display.close();
    clearInterval(beats);
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
    if (process.connected) process.disconnect();
  }
}

/** One worker a GPU; on the CPU, where a worker takes one thread, one a core. */
async function workersHere(engine: string, adapters: string | undefined): Promise<number> {
  if (engine === 'webgpu') return adapters === undefined ? 1 : adapters.split(',').length;
  const list = engine === 'tensorflow-gpu' ? await findGpus() : null;
  return list?.found === true ? list.gpus.length : availableParallelism();
}

/** The launcher's choice, or our own; a run that is resumed keeps its engine unless another is asked for by name. */
async function engineChoice(
  flags: TrainFlags,
  before: RunConfig | null,
): Promise<Pick<EngineChoice, 'said'> & { engine: string }> {
  if (flags.engine === 'auto' && before !== null)
    return { engine: before.engine, said: [`${before.engine}: as before`] };
  const chosen = process.env[ENGINE_CHOICE];
  return chosen === undefined
    ? chooseEngineHere(flags.engine, flags.adapter ?? null)
    : (JSON.parse(chosen) as EngineChoice);
}

/** What was not said on the command line is as it was in the run that is resumed. */
function withCheckpoint(flags: TrainFlags, config: RunConfig | null): TrainFlags {
  if (config === null) return flags;
  return {
    ...flags,
    epochs: flags.epochs ?? config.epochs,
    // An end that was set and not reached still holds, unless another one is given.
    maxSteps: flags.maxSteps ?? (flags.epochs === undefined ? config.steps : undefined),
    batchSize: flags.batchSize ?? config.globalBatch,
    microbatches: flags.microbatches ?? config.microbatches,
    learningRate: flags.learningRate ?? config.learningRate,
    seed: flags.seed ?? config.seed,
    augment: flags.augment ?? config.augment,
    trainSamples: flags.trainSamples ?? config.trainSamples,
    testSamples: flags.testSamples ?? config.testSamples,
    precision: flags.precision ?? config.precision,
    gradientCompression: flags.gradientCompression ?? config.gradientCompression,
    engineMode: flags.engineMode ?? config.engineMode,
    checkpointEvery:
      flags.checkpointEvery ?? (config.checkpointEverySteps > 0 ? config.checkpointEverySteps : undefined),
  };
}

/** What `withCheckpoint` takes from the checkpoint where no flag says otherwise. */
const RESUMED = [
  'epochs',
  'maxSteps',
  'batchSize',
  'microbatches',
  'learningRate',
  'seed',
  'augment',
  'engine',
  'engineMode',
  'precision',
  'gradientCompression',
] as const;

/** The last checkpoint; where there is none yet, what the journal says of the run. */
async function lastStateOf(
  directory: string,
): Promise<Pick<Resume, 'config' | 'checkpoint' | 'directory' | 'damaged'>> {
  try {
    const found = await latestCheckpoint(directory, { setAside: true });
    return { ...found, config: found.checkpoint.config };
  } catch (error) {
    const isThereNone = error instanceof LockstepError && error.code === 'E_NO_CHECKPOINT';
    const config = isThereNone ? await configOf(directory) : null;
    if (config === null) throw error;
    return { config, checkpoint: null, directory, damaged: [] };
  }
}

async function openResume(directory: string, reference: JobReference, allowChangedJob: boolean): Promise<Resume> {
  const found = await lastStateOf(directory);
  const before = found.config.job.sha256;
  const isChanged = before !== reference.sha256;
  if (isChanged && !allowChangedJob) {
    throw new LockstepError(
      'E_JOB_CHANGED',
      `the job is not the one that the run in ${directory} was started with: its source differs`,
      {
        remedy: 'Restore the job file, start a new run, or go on with the changed job by --allow-changed-job.',
      },
    );
  }
  const stepsLost = Math.max(0, (await lastStepOf(directory)) - (found.checkpoint?.step ?? 0));
  return { ...found, stepsLost, jobChangedFrom: isChanged ? before : null };
}

/** What decides a run's bits. */
type Resumable =
  | 'globalBatch'
  | 'microbatches'
  | 'seed'
  | 'augment'
  | 'trainSamples'
  | 'learningRate'
  | 'engine'
  | 'engineMode'
  | 'precision'
  | 'gradientCompression';

/** A resumed run must go on to the bits that it would have reached: what decides them may not change. */
function checkResume(config: RunConfig, resume: Resume, directory: string, allowMixedEngines: boolean): void {
  const before = resume.config;
  const flagsOf = {
    globalBatch: '--batch-size',
    microbatches: '--microbatches',
    seed: '--seed',
    augment: '--augment',
    trainSamples: '--train-samples',
    learningRate: '--learning-rate',
    gradientCompression: '--gradient-compression',
    ...(!allowMixedEngines && { engine: '--engine', engineMode: '--engine-mode', precision: '--precision' }),
  } as const;
  for (const [field, flag] of Object.entries(flagsOf) as [Resumable, string][]) {
    if (config[field] !== before[field]) {
      throw new LockstepError(
        'E_USAGE',
        `${flag} ${String(config[field])} differs from the run's ${String(before[field])} in ${directory}`,
        {
          remedy: `Leave ${flag} out to go on as before, or start a new run.`,
        },
      );
    }
  }
  const done = resume.checkpoint?.step ?? 0;
  // Workers that are still there have yet to hear that it is done.
  if (done >= config.steps && process.env[TAKEOVER] === undefined) {
    throw new LockstepError('E_USAGE', `the run in ${directory} has done its ${done} steps already`, {
      remedy: 'Give more --epochs (or --max-steps) to train it further.',
    });
  }
}

function titleOf(job: JobDefinition): string {
  return `Lockstep ${LOCKSTEP_VERSION} · ${job.title ?? job.name}`;
}

function transportOf(
  { flags }: TrainOptions,
  setting: (name: string, value: string, key: keyof TrainFlags) => Setting,
): Setting {
  const nats = natsServerOf(flags);
  return setting('transport', nats === null ? flags.transport : `nats, the server at ${nats.url}`, 'transport');
}

function settingsOf(
  options: TrainOptions,
  config: RunConfig,
  job: JobDefinition,
  workers: number,
  directory: string,
  choice: Pick<EngineChoice, 'said'>,
): Setting[] {
  const origin = (key: keyof TrainFlags): Origin => options.origins.get(key) ?? 'default';
  // What a resumed run does not say anew is as it was, which is not the same as the default.
  const kept: ReadonlySet<keyof TrainFlags> = new Set(options.flags.resume ? RESUMED : []);
  const setting = (name: string, value: string, key: keyof TrainFlags): Setting => ({
    name,
    value,
    isDefault: origin(key) === 'default' && !kept.has(key),
  });
  const optimizer = Object.entries(job.optimizer.settings).filter(([k]) => k !== 'learningRate');
  const active = Math.min(workers, config.microbatches);
  const spare = workers > active ? ` (${active} compute, ${workers - active} spare)` : '';
  return [
    {
      name: 'job',
      value: `${job.name}: ${job.data.name}, ${config.trainSamples} training and ${config.testSamples} test samples`,
      isDefault: false,
    },
    setting('workers', `${workers}${spare}`, 'workers'),
    setting('epochs', `${config.epochs}`, 'epochs'),
    { name: 'steps', value: `${config.steps}`, isDefault: origin('maxSteps') === 'default' },
    setting('batch size', `${config.globalBatch}`, 'batchSize'),
    setting('microbatches', `${config.microbatches}`, 'microbatches'),
    {
      name: 'optimizer',
      value: `${job.optimizer.name} (${optimizer.map(([k, v]) => `${k} ${v}`).join(', ')})`,
      isDefault: false,
    },
    setting('learning rate', `${config.learningRate}`, 'learningRate'),
    setting('augmentation', config.augment ? (job.augment?.name ?? 'on') : 'off', 'augment'),
    setting('seed', `${config.seed}`, 'seed'),
    setting('engine', choice.said[0] ?? config.engine, 'engine'),
    ...choice.said.slice(1).map((value) => ({ name: '', value, isDefault: false })),
    setting('engine mode', config.engineMode, 'engineMode'),
    setting('precision', config.precision, 'precision'),
    transportOf(options, setting),
    ...(options.flags.tlsCert === undefined ? [] : [setting('certificate', options.flags.tlsCert, 'tlsCert')]),
    setting('compression', compressionText(config.gradientCompression), 'gradientCompression'),
    setting('run directory', directory, 'runDir'),
  ];
}

/** Addresses of this machine that others may reach, IPv4 first. */
function addressesHere(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((found) => found ?? []);
  const own = all.filter((one) => !one.internal && !one.address.startsWith('fe80'));
  return own.toSorted((a, b) => a.family.localeCompare(b.family)).map((one) => one.address);
}

/** What others could see or hear of this run that they should not. */
function exposures(flags: TrainFlags, tokenFile: string): string[] {
  const found: string[] = [];
  if (!isLoopback(flags.listen.host) && flags.tlsCert === undefined) {
    found.push(
      `without --tls-cert and --tls-key, the token, gradients and weights cross the network where others can read them`,
    );
  }
  for (const file of [tokenFile, flags.tlsKey]) {
    if (file !== undefined && isOpenToOthers(file)) {
      found.push(`other users of this machine can read ${file}: chmod 600 ${file}`);
    }
  }
  return found;
}
