// `lockstep coordinator JOB`: the coordinator alone, for workers that are started elsewhere; `lockstep train` starts it too, and
// then stands behind its IPC channel. Turns a parsed command into a run - from the job, its data set and, with --resume, the
// checkpoint - and shows on the terminal what happens.

import { existsSync, rmSync, writeFileSync } from 'node:fs';
import type { SendHandle } from 'node:child_process';
import { once } from 'node:events';
import { hostname, networkInterfaces } from 'node:os';
import { basename, join, resolve } from 'node:path';
import {
  holdsRun,
  configOf,
  lastStepOf,
  latestCheckpoint,
  latestRun,
  isOutdated,
  openNatsSession,
  openRunDirectory,
  restoreRun,
  samplesOf,
  startCoordinator,
  type Checkpoint,
  type NatsSession,
  type RestoredRun,
  type RunDirectory,
} from '../coordinator/main.ts';
import type { JobDefinition } from '../jobs/contract.ts';
import { LockstepError } from '../protocol/errors.ts';
import { BEAT_EVERY_MS } from '../protocol/heartbeat.ts';
import { isLoopback } from '../protocol/loopback.ts';
import type { NatsServer } from '../nats/server.ts';
import type { JobReference, RunConfig } from '../protocol/run-config.ts';
import { attend, type Beginning } from './attend.ts';
import { workersHere } from './crew.ts';
import { chooseEngineHere } from './engines.ts';
import { loadJob, type LoadedJob } from './job-file.ts';
import { ENGINE_CHOICE, type EngineChoice } from './ladder.ts';
import { joinLine } from './join-line.ts';
import { hungHolderOf } from './endpoint.ts';
import {
  EXIT_CODES,
  FENCED_EXIT,
  fromLauncher,
  NATS_LOST_EXIT,
  TAKEOVER,
  WORKERS_ELSEWHERE,
  type Alive,
  type EndWorker,
  type Listening,
  type StartWorker,
} from './launch-messages.ts';
import { joinUrl, natsServerOf } from './nats.ts';
import { resolveRun, type Origin, type TrainFlags, type TrainOptions } from './options.ts';
import { dataSetDirectory } from './setup/dataset.ts';
import { compressionText, type Setting } from './terminal/account.ts';
import { createDisplay } from './terminal/display.ts';
import { startTelemetry } from './telemetry.ts';
import { openTensorBoard } from './tensorboard/writer.ts';
import { readTls } from './tls-files.ts';
import { isOpenToOthers, isWeak, makeKey, readKey } from './token.ts';
import { LOCKSTEP_VERSION } from './version.ts';

/** Where runs go when nobody says. */
const RUNS = 'runs';

/** By the cause of a failure that is none of the run's: for the launcher, or the loop of attend.ts. */
const LAUNCHER_EXITS: ReadonlyMap<string, number> = new Map([
  ['E_NATS_LOST', NATS_LOST_EXIT],
  ['E_FENCED', FENCED_EXIT],
]);

interface Resume {
  /** The run's configuration until now. */
  readonly config: RunConfig;
  /** Null where the run ended before its first one: it begins anew, or with the state of workers that are still there. */
  readonly checkpoint: Checkpoint | null;
  readonly directory: string;
  readonly stepsLost: number;
  /** The job's SHA-256 in the checkpoint, where it is another one now and that is allowed. */
  readonly jobChangedFrom: string | null;
  /** The bucket of a NATS server that the run directory was made from; null: it was there. */
  readonly restoredFrom: string | null;
  readonly damaged: readonly string[];
}

/** Runs a coordinator to the end of its run; returns the exit code. */
export async function runCoordinatorCommand(options: TrainOptions): Promise<number> {
  const server = natsServerOf(options.flags);
  const isTakeover = process.env[TAKEOVER] !== undefined;
  // The launcher sees to it that another one begins when this one's server is lost.
  const job = await loadJob(options.job);
  if (server === null || process.send !== undefined) return begin({ options, isTakeover }, job, server);
  const runDir = runDirectoryOf(options.flags, job.definition);
  return attend({ ...options, flags: { ...options.flags, runDir } }, server, async (beginning) =>
    begin(beginning, job, server),
  );
}

async function begin(beginning: Beginning, job: LoadedJob, server: NatsServer | null): Promise<number> {
  const given = beginning.options.flags;
  const path = runDirectoryOf(given, job.definition);
  const isNew = !existsSync(path);
  const run = basename(resolve(path));
  const self = { host: hostname(), pid: process.pid };
  // First: where it can't be had, nothing has been begun.
  const session = server === null ? null : await openNatsSession(server, run, self, given.natsReplicas ?? null);
  try {
    const isToResume = given.resume || given.autoResume;
    const restored = session !== null && isToResume ? await restore(given, path, session) : null;
    // --auto-resume stands for --resume where there is something to go on with.
    const flags = { ...given, resume: given.resume || (given.autoResume && holdsRun(path)) };
    const successorOf = process.env[TAKEOVER];
    const hung = flags.resume && successorOf === undefined ? await hungHolderOf(path) : null;
    const runDirectory = openRunDirectory(
      path,
      flags.resume,
      ({ pid, host }) =>
        host === hostname()
          ? pid === (successorOf === undefined ? hung?.pid : Number(successorOf))
          : host === hung?.host,
      restored === null ? 0 : restored.term - 1,
    );
    if (successorOf === undefined) endHung(runDirectory);
    try {
      // Both places say the same number, and it is nobody else's in either.
      if (session !== null && restored?.term !== runDirectory.term)
        runDirectory.raiseTerm(await session.claim(runDirectory.term - 1));
      return await coordinate(
        { ...beginning, options: { ...beginning.options, flags } },
        job,
        runDirectory,
        session,
        restored,
      );
    } finally {
      await runDirectory.release();
      // A run that could not even begin leaves nothing behind.
      if (isNew && !holdsRun(runDirectory.path)) rmSync(runDirectory.path, { recursive: true, force: true });
    }
  } finally {
    await session?.nats.close();
  }
}

/** A run directory in the place of one that is lost, or that is older than what the server keeps; null: it is there, or nothing is kept. */
async function restore(flags: TrainFlags, path: string, session: NatsSession): Promise<RestoredRun | null> {
  if (holdsRun(path) && !(await isOutdated(session, path))) return null;
  const restored = await restoreRun(session, path);
  // Workers give up at a coordinator that does not know it.
  if (restored !== null && flags.tokenFile === undefined && !existsSync(join(path, 'token'))) {
    throw new LockstepError(
      'E_USAGE',
      `the run ${session.run} is kept at the NATS server, but not the token of its workers`,
      { remedy: 'Give --token-file a copy of the one that they have.' },
    );
  }
  return restored;
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
  { options, isTakeover, onListening }: Beginning,
  job: LoadedJob,
  runDirectory: RunDirectory,
  session: NatsSession | null,
  restored: RestoredRun | null,
): Promise<number> {
  const { flags } = options;
  const { definition } = job;
  const found = flags.resume ? await openResume(runDirectory.path, job.reference, flags.allowChangedJob) : null;
  const resume = found === null ? null : { ...found, restoredFrom: restored?.bucket ?? null };
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
  if (resume !== null) checkResume(config, resume, runDirectory.path, { ...flags, isTakeover });
  const workers = flags.workers ?? (await workersHere(config.engine, flags.adapter ?? null));
  const tls = readTls(flags, Date.now());
  const tokenFile = flags.tokenFile ?? join(runDirectory.path, 'token');
  // A run keeps its token: workers that have lost a coordinator show it to the next.
  if (flags.tokenFile === undefined && !(flags.resume && existsSync(tokenFile)))
    writeFileSync(tokenFile, `${makeKey()}\n`, { mode: 0o600 });
  const token = readKey(tokenFile);

  const display = createDisplay({
    format: flags.logFormat,
    level: flags.logLevel,
    stdout: process.stdout,
    env: process.env,
  });
  display.configuration(titleOf(definition), [
    ...settingsOf(options, config, definition, workers, runDirectory.path, choice),
    ...keptText(session),
  ]);
  const warnings = [
    ...(restored === null
      ? []
      : [
          `the record in ${runDirectory.path} is taken from ${restored.bucket} of the NATS server`,
          ...restored.notices,
        ]),
    ...(resume?.damaged ?? []).map((message) => `${message}; the one before it is used`),
    ...exposures(flags, tokenFile, token),
  ];
  for (const message of warnings) display.event({ kind: 'warning', message });
  if (flags.autoResume && !isTakeover && resume !== null && isDone(config, resume)) {
    const message = `the run in ${runDirectory.path} has done its ${config.steps} steps: nothing is left to do`;
    display.event({ kind: 'warning', message });
    display.close();
    return EXIT_CODES.done;
  }

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
  const launched = process.send !== undefined;
  const supervised = launched && process.env[WORKERS_ELSEWHERE] === undefined;
  const nats = session?.nats.server ?? null;
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
    clientCa: tls?.clientCa ?? null,
    token,
    tokenFile: resolve(tokenFile),
    nats: session,
    runDirectory,
    resume,
    keepCheckpoints: flags.keepCheckpoints,
    reportFile: flags.report ?? null,
    timeline: flags.timeline === undefined ? null : { file: flags.timeline, ...flags.timelineSteps },
    supervised,
    lockstepVersion: LOCKSTEP_VERSION,
    dataSet: definition.data.name,
    data:
      definition.data.source === undefined
        ? null
        : { ...definition.data.source, directory: dataSetDirectory(definition.data) },
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
    startWorker: (localRank, attempt) =>
      process.send?.({ kind: 'start-worker', localRank, attempt } satisfies StartWorker),
    endWorker: ({ host, localRank, pid }) =>
      process.send?.({ kind: 'end-worker', host, localRank, pid } satisfies EndWorker),
    onEvent: (event) => {
      display.event(event);
      board?.event(event);
      telemetry.event(event);
    },
    onView: (view) => display.view(view),
  });
  // Before anything is said that somebody may answer with a signal.
  const stop = (signal: NodeJS.Signals): void => coordinator.stop(signal === 'SIGINT' ? 'Ctrl-C' : signal);
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  onListening?.(coordinator.url);
  if (!launched && flags.logFormat === 'pretty') {
    // The exact line to paste on a worker's terminal: whole, however narrow this one is.
    const joining = { url: coordinator.url, addresses: addressesHere(), job: options.job };
    const over = nats === null ? {} : { natsAddress: joinUrl(nats, config.run) };
    process.stdout.write(`workers join with:\n${joinLine({ ...flags, ...joining, ...over, tokenFile })}\n`);
  }

  if (launched) {
    process.on('message', (raw) => {
      const message = fromLauncher(raw);
      if (message?.kind === 'stop') coordinator.stop(message.because);
      if (message?.kind === 'worker-ended') {
        const { pid, localRank, ...end } = message.end;
        coordinator.processEnded({ kind: 'process-ended', pid, localRank, end });
      }
      if (message?.kind === 'expect') coordinator.expect(message.workers);
      if (message?.kind === 'notice') display.notice(message);
      if (message?.kind === 'worker-line') display.workerLine(message.worker, message.text);
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
    if (launched && process.connected) process.send?.({ kind: 'alive' } satisfies Alive);
  }, BEAT_EVERY_MS);
  try {
    const { outcome, cause } = await coordinator.ended;
    if (cause?.code === 'E_FENCED' && !launched) {
      throw new LockstepError('E_FENCED', cause.message, { remedy: 'Nothing is to be done: the run goes on there.' });
    }
    return LAUNCHER_EXITS.get(cause?.code ?? '') ?? EXIT_CODES[outcome];
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

/** The launcher's choice, or our own; a run that is resumed keeps its engine unless another is asked for by name. */
async function engineChoice(
  flags: TrainFlags,
  before: RunConfig | null,
): Promise<Pick<EngineChoice, 'said'> & { engine: string }> {
  if (flags.engine === 'auto' && before !== null)
    return { engine: before.engine, said: [`${before.engine}: as before`] };
  // Alone it has no engine: its workers may be on other machines, and each says so that can't run the one that is named.
  if (flags.engine !== 'auto' && process.send === undefined)
    return { engine: flags.engine, said: [`${flags.engine}: as named, for workers that have it`] };
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

async function openResume(
  directory: string,
  reference: JobReference,
  allowChangedJob: boolean,
): Promise<Omit<Resume, 'restoredFrom'>> {
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
function checkResume(
  config: RunConfig,
  resume: Resume,
  directory: string,
  {
    allowMixedEngines,
    autoResume,
    isTakeover,
  }: Pick<TrainFlags, 'allowMixedEngines' | 'autoResume'> & { readonly isTakeover: boolean },
): void {
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
  // Where another is taken over, workers that are still there have yet to hear that it is done.
  if (isDone(config, resume) && !autoResume && !isTakeover) {
    throw new LockstepError(
      'E_USAGE',
      `the run in ${directory} has done its ${resume.checkpoint?.step} steps already`,
      {
        remedy: 'Give more --epochs (or --max-steps) to train it further.',
      },
    );
  }
}

function isDone(config: RunConfig, { checkpoint }: Resume): boolean {
  return checkpoint !== null && checkpoint.step >= config.steps;
}

function titleOf(job: JobDefinition): string {
  return `Lockstep ${LOCKSTEP_VERSION} · ${job.title ?? job.name}`;
}

/** Where a copy of the record lies. */
function keptText(session: NatsSession | null): Setting[] {
  if (session === null || session.bucket === null) return [];
  const { name, replicas } = session.bucket;
  const value = `bucket ${name} on ${replicas} ${replicas === 1 ? 'server' : 'servers'}`;
  return [{ name: 'kept in NATS', value, isDefault: session.replicas === null }];
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
function exposures(flags: TrainFlags, tokenFile: string, key: string): string[] {
  const found: string[] = [];
  if (isWeak(key)) {
    found.push(
      `the key in ${tokenFile} is so short that it can be found by trying: npx lockstep token makes a better one`,
    );
  }
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
