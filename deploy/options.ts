// The command line as values: each flag of `train` with its environment form, its default, where its value came from, and what
// is wrong with it. Pure: argv and environment come in, options or a LockstepError come out. Help texts are the documentation.

import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { JobDefinition } from '../jobs/contract.ts';
import { stepsPerEpoch } from '../protocol/batch-plan.ts';
import { LockstepError } from '../protocol/errors.ts';
import type { JobReference, RunConfig } from '../protocol/run-config.ts';

export type Origin = 'flag' | 'environment' | 'default' | 'checkpoint';

/** Options of `train` and `coordinator`. Undefined: not given, so that the job's or the machine's value holds. */
export interface TrainFlags {
  readonly workers: number | undefined;
  readonly epochs: number | undefined;
  readonly maxSteps: number | undefined;
  readonly batchSize: number | undefined;
  readonly microbatches: number | undefined;
  readonly learningRate: number | undefined;
  readonly seed: number | undefined;
  readonly engine: string;
  readonly precision: string;
  readonly transport: string;
  readonly natsUrl: string | undefined;
  readonly listen: { readonly host: string; readonly port: number };
  readonly runDir: string | undefined;
  readonly resume: boolean;
  readonly checkpointEvery: number | undefined;
  readonly keepCheckpoints: number;
  readonly trainSamples: number | undefined;
  readonly testSamples: number | undefined;
  readonly augment: boolean | undefined;
  readonly tokenFile: string | undefined;
  readonly report: string | undefined;
  readonly logLevel: string;
  readonly logFormat: 'pretty' | 'json';
  readonly allowMixedEngines: boolean;
}

export interface TrainOptions {
  readonly job: string;
  readonly flags: TrainFlags;
  readonly origins: ReadonlyMap<keyof TrainFlags, Origin>;
}

export interface WorkerFlags {
  readonly coordinator: string;
  readonly job: string | undefined;
  readonly tokenFile: string | undefined;
  readonly engine: string;
}

export type ParsedCommand =
  | { readonly kind: 'train' | 'coordinator'; readonly options: TrainOptions }
  | { readonly kind: 'worker'; readonly flags: WorkerFlags }
  | { readonly kind: 'status'; readonly url: string | undefined }
  | { readonly kind: 'doctor'; readonly natsUrl: string | undefined }
  | { readonly kind: 'evaluate'; readonly run: string }
  | { readonly kind: 'verify'; readonly run: string }
  | { readonly kind: 'setup'; readonly engine: string; readonly job: string }
  | { readonly kind: 'test'; readonly args: readonly string[] }
  | { readonly kind: 'bench'; readonly args: readonly string[] }
  /** Help or the version was asked for: print and end well. */
  | { readonly kind: 'print'; readonly text: string };

/** What this version of the contract's values can do; the others are refused by name. */
const AVAILABLE = {
  '--engine': { values: ['auto', 'tensorflow'], known: ['tensorflow-gpu', 'webgpu', 'wasm'] },
  '--precision': { values: ['float32'], known: ['mixed_bfloat16'] },
  '--transport': { values: ['ws'], known: ['nats'] },
} as const;

const LARGEST = Number.MAX_SAFE_INTEGER;
export const MAX_WORKERS = 1024;
export const DEFAULT_SEED = 1;
export const DEFAULT_MICROBATCHES = 4;
export const MAX_MICROBATCHES = 64;
export const DEFAULT_PORT = 29_400;

function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(value) || value < least || value > most) {
      const range = most === LARGEST ? `of at least ${least}` : `from ${least} to ${most}`;
      throw new InvalidArgumentError(`It must be a whole number ${range}.`);
    }
    return value;
  };
}

function positiveNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value <= 0) throw new InvalidArgumentError('It must be a number above 0.');
  return value;
}

function powerOfTwo(text: string): number {
  const value = wholeNumber(1, MAX_MICROBATCHES)(text);
  if ((value & (value - 1)) !== 0) throw new InvalidArgumentError(`It must be a power of two from 1 to ${MAX_MICROBATCHES}.`);
  return value;
}

function onOrOff(text: string): boolean {
  if (text !== 'on' && text !== 'off') throw new InvalidArgumentError('It must be on or off.');
  return text === 'on';
}

function oneOf(flag: keyof typeof AVAILABLE): (text: string) => string {
  return (text) => {
    const { values, known } = AVAILABLE[flag];
    const can: readonly string[] = values;
    const later: readonly string[] = known;
    if (can.includes(text)) return text;
    if (later.includes(text)) {
      throw new LockstepError('E_NOT_SUPPORTED', `${flag} ${text} is not in this version of Lockstep`, {
        remedy: `Use ${can.map((v) => `${flag} ${v}`).join(' or ')}.`,
      });
    }
    throw new InvalidArgumentError(`It must be one of ${[...can, ...later].join(', ')}.`);
  };
}

/** `HOST:PORT`, `[v6]:PORT`, or `:PORT` / `PORT` for loopback. */
export function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]+)\]:|([^:[\]]+):|:)?(\d{1,5})$/.exec(text.trim());
  const port = Number(match?.[3] ?? Number.NaN);
  if (match === null || !(port <= 65_535)) throw new InvalidArgumentError('It must be HOST:PORT, e.g. 127.0.0.1:29400; port 0 picks a free one.');
  return { host: match[1] ?? match[2] ?? '127.0.0.1', port };
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
}

function environmentName(flag: string): string {
  return `LOCKSTEP_${flag.replace(/^--/, '').replaceAll('-', '_').toUpperCase()}`;
}

/** A flag with its environment form. */
function flag(flags: string, description: string, group: string): Option {
  const option = new Option(flags, description).helpGroup(group);
  const long = option.long ?? flags;
  return option.env(environmentName(long));
}

function trainingOptions(command: Command): Command {
  const TRAINING = 'Training:';
  const CLUSTER = 'Workers:';
  const RECORD = 'Record:';
  const DATA = 'Data:';
  const OUTPUT = 'Output:';
  return command
    .addOption(flag('--epochs <n>', "passes over the training set (default: the job's)", TRAINING).argParser(wholeNumber(1, 1_000_000)))
    .addOption(flag('--max-steps <n>', 'end after so many optimizer steps', TRAINING).argParser(wholeNumber(1, LARGEST)))
    .addOption(flag('--batch-size <n>', "samples per step, over all workers (default: the job's)", TRAINING).argParser(wholeNumber(1, 1_000_000)))
    .addOption(flag('--microbatches <m>', `pieces of a batch, a power of two; part of the result (default: the job's, or ${DEFAULT_MICROBATCHES})`, TRAINING).argParser(powerOfTwo))
    .addOption(flag('--learning-rate <x>', "(default: the job's)", TRAINING).argParser(positiveNumber))
    .addOption(flag('--seed <n>', `decides shuffle, augmentation and initial weights (default: ${DEFAULT_SEED})`, TRAINING).argParser(wholeNumber(0, LARGEST)))
    .addOption(flag('--augment <on|off>', "the job's augmentation of training samples (default: on, where the job has one)", TRAINING).argParser(onOrOff))
    .addOption(flag('--workers <n>', 'worker processes (default: one a CPU core)', CLUSTER).argParser(wholeNumber(1, MAX_WORKERS)))
    .addOption(flag('--engine <name>', 'auto or tensorflow', CLUSTER).default('auto').argParser(oneOf('--engine')))
    .addOption(flag('--precision <name>', 'float32', CLUSTER).default('float32').argParser(oneOf('--precision')))
    .addOption(flag('--allow-mixed-engines', 'admit workers whose engine computes other bits; the run is then not reproducible', CLUSTER))
    .addOption(flag('--transport <name>', 'ws', CLUSTER).default('ws').argParser(oneOf('--transport')))
    .addOption(flag('--nats-url <url>', 'server for --transport nats', CLUSTER))
    .addOption(flag('--listen <host:port>', 'where the coordinator listens', CLUSTER).default({ host: '127.0.0.1', port: DEFAULT_PORT }, `127.0.0.1:${DEFAULT_PORT}`).argParser(parseListen))
    .addOption(flag('--token-file <file>', 'workers must show the token in this file (default: a new one a run)', CLUSTER))
    .addOption(flag('--tls-cert <file>', 'not in this version', CLUSTER).hideHelp())
    .addOption(flag('--tls-key <file>', 'not in this version', CLUSTER).hideHelp())
    .addOption(flag('--tls-ca <file>', 'not in this version', CLUSTER).hideHelp())
    .addOption(flag('--run-dir <dir>', 'directory of the run (default: runs/<job>-<time>)', RECORD))
    .addOption(flag('--resume', "go on from the last checkpoint of --run-dir, or of the job's newest run", RECORD))
    .addOption(flag('--checkpoint-every <steps>', 'a checkpoint after each so many steps, besides one an epoch', RECORD).argParser(wholeNumber(1, LARGEST)))
    .addOption(flag('--keep-checkpoints <n>', 'newest checkpoints that are kept', RECORD).default(3).argParser(wholeNumber(1, 1_000_000)))
    .addOption(flag('--report <file>', 'write the report there, too', RECORD))
    .addOption(flag('--train-samples <n>', 'use the first n training samples only', DATA).argParser(wholeNumber(1, LARGEST)))
    .addOption(flag('--test-samples <n>', 'use the first n test samples only; 0 for none', DATA).argParser(wholeNumber(0, LARGEST)))
    .addOption(flag('--log-level <level>', 'debug, info, warn or error', OUTPUT).default('info').choices(['debug', 'info', 'warn', 'error']))
    .addOption(flag('--log-format <format>', 'pretty or json (one object a line)', OUTPUT).default('pretty').choices(['pretty', 'json']));
}

const EXAMPLES = `
Examples:
  lockstep train cifar10-cnn --workers 4 --epochs 3
  lockstep train ./my-job.ts --batch-size 128 --report report.json
  lockstep train cifar10-cnn --resume

Every flag can be set in the environment, e.g. LOCKSTEP_WORKERS=4; a flag wins.`;

function buildProgram(version: string, found: (command: ParsedCommand) => void): Command {
  const program = new Command('lockstep')
    .description('Data-parallel training for TensorFlow.js: the same bits whatever the number of workers.')
    .version(version)
    .showSuggestionAfterError(true)
    .enablePositionalOptions();
  const origins = (command: Command): Map<keyof TrainFlags, Origin> => {
    const map = new Map<keyof TrainFlags, Origin>();
    for (const key of Object.keys(command.opts())) {
      const source = command.getOptionValueSource(key);
      map.set(key as keyof TrainFlags, source === 'cli' ? 'flag' : source === 'env' ? 'environment' : 'default');
    }
    return map;
  };
  for (const kind of ['train', 'coordinator'] as const) {
    const command = program
      .command(kind)
      .argument('<job>', 'a built-in job, or a .ts or .js file that exports one')
      .description(
        kind === 'train'
          ? 'train on this machine: a coordinator and its workers, started and supervised'
          : 'the coordinator alone; workers join by `lockstep worker`',
      )
      .addHelpText('after', EXAMPLES);
    trainingOptions(command).action((job: string) => {
      const raw = command.opts<Record<string, unknown>>();
      const flags = { ...raw, resume: raw['resume'] === true, allowMixedEngines: raw['allowMixedEngines'] === true };
      found({ kind, options: { job, flags: flags as unknown as TrainFlags, origins: origins(command) } });
    });
  }
  const worker = program
    .command('worker')
    .description('one worker; joins the coordinator at a URL')
    .requiredOption('--coordinator <url>', 'the address that the coordinator printed')
    .addOption(flag('--job <job>', "this machine's copy of the job (default: where the coordinator says)", 'Worker:'))
    .addOption(flag('--token-file <file>', "the run's token", 'Worker:'))
    .addOption(flag('--engine <name>', 'auto or tensorflow', 'Worker:').default('auto').argParser(oneOf('--engine')))
    .action(() => found({ kind: 'worker', flags: worker.opts<WorkerFlags>() }));
  program
    .command('status')
    .description('what a run that is under way is doing')
    .argument('[url]', "the coordinator's address (default: that of the newest run here)")
    .action((url: string | undefined) => found({ kind: 'status', url }));
  program
    .command('evaluate')
    .description('test loss, accuracy and confusion matrix of a run')
    .argument('<run>', 'a run directory')
    .action((run: string) => found({ kind: 'evaluate', run }));
  program
    .command('verify')
    .description('replay the record of a run')
    .argument('<run>', 'a run directory')
    .action((run: string) => found({ kind: 'verify', run }));
  program
    .command('doctor')
    .description('what this machine has, and what is missing')
    .option('--nats-url <url>', 'also try to reach this NATS server')
    .action((options: { natsUrl?: string }) => found({ kind: 'doctor', natsUrl: options.natsUrl }));
  program
    .command('setup')
    .description('install what training needs, without training')
    .addOption(flag('--engine <name>', 'auto or tensorflow', 'Set-up:').default('auto').argParser(oneOf('--engine')))
    .option('--job <job>', 'the job whose data set is fetched', 'cifar10-cnn')
    .action((options: { engine: string; job: string }) => found({ kind: 'setup', ...options }));
  for (const kind of ['test', 'bench'] as const) {
    program
      .command(kind, { hidden: true })
      .argument('[args...]')
      .allowUnknownOption()
      .passThroughOptions()
      .action((args: string[]) => found({ kind, args }));
  }
  return program;
}

/** Parses a command line. Throws LockstepError E_USAGE, E_LISTEN or E_NOT_SUPPORTED, naming the flag and its value. */
export function parseCommand(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  version: string,
): ParsedCommand {
  let found: ParsedCommand | null = null;
  let printed = '';
  const program = buildProgram(version, (command) => {
    found = command;
  });
  for (const command of [program, ...program.commands]) {
    command.exitOverride();
    command.configureOutput({ writeOut: (text) => (printed += text), writeErr: () => {}, getOutHelpWidth: () => 100 });
  }
  // commander reads process.env: point it at the environment given, for the time of the parse.
  const own = process.env;
  process.env = { ...env };
  try {
    program.parse([...argv], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { kind: 'print', text: printed };
    if (argv.length === 0) return { kind: 'print', text: program.helpInformation() };
    throw new LockstepError('E_USAGE', error.message.replace(/^error: /, ''), {
      remedy: 'See `npx lockstep --help`, or `npx lockstep train --help`.',
      cause: error,
    });
  } finally {
    process.env = own;
  }
  if (found === null) return { kind: 'print', text: printed === '' ? program.helpInformation() : printed };
  return checkTogether(found);
}

/** What is wrong with flags only when they meet. */
function checkTogether(command: ParsedCommand): ParsedCommand {
  if (command.kind !== 'train' && command.kind !== 'coordinator') return command;
  const { flags } = command.options;
  const raw = flags as TrainFlags & { tlsCert?: string; tlsKey?: string; tlsCa?: string };
  if (raw.tlsCert !== undefined || raw.tlsKey !== undefined || raw.tlsCa !== undefined) {
    throw new LockstepError('E_NOT_SUPPORTED', '--tls-cert, --tls-key and --tls-ca are not in this version of Lockstep', {
      remedy: 'Listen on loopback, or put a TLS proxy in front.',
    });
  }
  if (!isLoopback(flags.listen.host) && flags.tokenFile === undefined) {
    throw new LockstepError('E_LISTEN', `--listen ${flags.listen.host}:${flags.listen.port} can be reached from other machines, and no token is asked for`, {
      remedy: 'Give --token-file, or listen on 127.0.0.1.',
    });
  }
  return command;
}

/**
 * Makes the run's configuration from the flags, the job and the sizes of its data set.
 * Throws LockstepError E_BATCH_SIZE or E_USAGE.
 */
export function resolveRun(
  flags: TrainFlags,
  job: JobDefinition,
  place: { readonly run: string; readonly reference: JobReference; readonly trainSize: number; readonly testSize: number },
): RunConfig {
  const globalBatch = flags.batchSize ?? job.batchSize;
  const microbatches = flags.microbatches ?? job.microbatches ?? DEFAULT_MICROBATCHES;
  if (globalBatch % microbatches !== 0) {
    const near = Math.max(microbatches, Math.round(globalBatch / microbatches) * microbatches);
    throw new LockstepError('E_BATCH_SIZE', `--batch-size ${globalBatch} cannot be cut into ${microbatches} equal microbatches`, {
      remedy: `Use a multiple of ${microbatches}, e.g. --batch-size ${near}, or other --microbatches.`,
    });
  }
  const limit = (name: string, wish: number | undefined, size: number): number => {
    if (wish !== undefined && wish > size) {
      throw new LockstepError('E_USAGE', `${name} ${wish}: ${job.data.name} has only ${size}`, { remedy: `Use at most ${size}.` });
    }
    return wish ?? size;
  };
  const trainSamples = limit('--train-samples', flags.trainSamples, place.trainSize);
  const epochs = flags.epochs ?? job.epochs;
  const plan = { samples: trainSamples, globalBatch, microbatches, seed: flags.seed ?? DEFAULT_SEED };
  const whole = epochs * stepsPerEpoch(plan);
  return {
    run: place.run,
    job: place.reference,
    jobName: job.name,
    seed: plan.seed,
    globalBatch,
    microbatches,
    epochs,
    steps: Math.min(whole, flags.maxSteps ?? whole),
    learningRate: flags.learningRate ?? job.optimizer.learningRate,
    augment: job.augment !== undefined && (flags.augment ?? true),
    trainSamples,
    testSamples: limit('--test-samples', flags.testSamples, place.testSize),
    engine: 'tensorflow',
    precision: 'float32',
    transport: 'ws',
    checkpointEverySteps: flags.checkpointEvery ?? 0,
  };
}
