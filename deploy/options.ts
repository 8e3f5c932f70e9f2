// The command line as values: which command, and each flag's value with where it came from - the flag, its environment form, the
// default. Pure: line and environment come in, a command or a LockstepError that names the culprit comes out. How a job and the
// flags together make a run is in options/resolve.ts.

import { CommanderError } from 'commander';
import type { NatsServer } from '../nats/server.ts';
import { LockstepError } from '../protocol/errors.ts';
import { isLoopback } from '../protocol/loopback.ts';
import { SCOPES, type Scope } from '../protocol/token.ts';
import {
  CAPABILITIES,
  DEFAULT_EXPIRY,
  environmentName,
  FLAGS,
  flagName,
  LOCAL_TRANSPORTS,
  type FlagSpec,
  type LocalTransport,
  type TrainFlags,
} from './options/flags.ts';
import {
  DEFAULT_HOST_GRACE_SECONDS,
  DEFAULT_HOST_RETRY_LIMIT,
  sshOptionList,
  type LaunchFlags,
} from './options/launch-flags.ts';
import { nodesOfCoordinator, nodesOfLaunch, nodesOfOneMachine } from './options/nodes.ts';
import { buildProgram, type Words } from './options/program.ts';
import { parseHostList } from './launch/hosts.ts';
import type { Pin } from './pinning.ts';
import {
  address,
  addressText,
  BadValue,
  capability,
  coordinatorAddress,
  coordinatorUrl,
  duration,
  natsUrl,
  oneOf,
  switchWord,
  wholeNumber,
  type Address,
  type CoordinatorAddress,
  type Parser,
} from './options/values.ts';

export type { LaunchFlags } from './options/launch-flags.ts';
export type { TrainFlags } from './options/flags.ts';
export type { CoordinatorAddress } from './options/values.ts';
export { resolveBatch, resolveRun } from './options/resolve.ts';

export type Origin = 'flag' | 'environment' | 'default';

export interface TrainOptions {
  /** A built-in job's name or a path, as it was written. */
  readonly job: string;
  readonly flags: TrainFlags;
  readonly origins: ReadonlyMap<keyof TrainFlags, Origin>;
}

export interface WorkerFlags {
  readonly coordinator: CoordinatorAddress;
  readonly natsCreds: string | undefined;
  readonly job: string | undefined;
  readonly tokenFile: string | undefined;
  readonly engine: string;
  readonly adapter: string | undefined;
  readonly peerListen: Address | undefined;
  readonly localTransport: LocalTransport;
  readonly termGrace: number;
  readonly dataFrom: DataFrom;
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  readonly tlsCa: string | undefined;
  readonly tlsClientCa: string | undefined;
  /** Undefined: this process is the worker. */
  readonly nprocPerNode: number | 'auto' | undefined;
  readonly restartLimit: number;
  readonly pin: Pin;
}

export type ParsedCommand =
  | { readonly kind: 'train' | 'coordinator'; readonly options: TrainOptions }
  | {
      readonly kind: 'launch';
      readonly options: TrainOptions;
      readonly launch: LaunchFlags;
      /** Those of its flags that are the coordinator's, too, as they were written. */
      readonly args: readonly string[];
    }
  | { readonly kind: 'worker'; readonly flags: WorkerFlags }
  /** The supervisor of a host, started by a launcher that says all else over its standard input. */
  | { readonly kind: 'host' }
  | {
      readonly kind: 'status';
      readonly url: string | undefined;
      readonly watch: boolean;
      readonly tokenFile: string | undefined;
      readonly tlsCert: string | undefined;
      readonly tlsKey: string | undefined;
      readonly tlsCa: string | undefined;
    }
  | {
      readonly kind: 'token';
      /** What is made from the key in a file; null: a new key. */
      readonly from: {
        readonly keyFile: string;
        readonly scope: Scope;
        /** Null: it does not expire. */
        readonly expiresInSeconds: number | null;
      } | null;
      readonly out: string | undefined;
    }
  | { readonly kind: 'doctor'; readonly natsUrl: NatsServer | undefined }
  | { readonly kind: 'evaluate'; readonly run: string; readonly predictions: string | undefined }
  | { readonly kind: 'report'; readonly run: string; readonly output: string | undefined }
  | { readonly kind: 'verify'; readonly run: string; readonly replay: number | undefined }
  | { readonly kind: 'setup'; readonly engine: string; readonly job: string }
  | { readonly kind: 'test' | 'bench'; readonly args: readonly string[] }
  /** Help or the version was asked for: print it and end well. */
  | { readonly kind: 'print'; readonly text: string };

type Environment = Readonly<Record<string, string | undefined>>;

/** As deploy/setup/dataset.ts has them. */
const DATA_PLACES = ['auto', 'registry', 'coordinator'] as const;
type DataFrom = (typeof DATA_PLACES)[number];

const DEFAULT_HELP_WIDTH = 100;

/** Parses a command line. Throws LockstepError E_USAGE, E_LISTEN or E_NOT_SUPPORTED, naming the flag and its value. */
export function parseCommand(
  argv: readonly string[],
  env: Environment,
  version: string,
  helpWidth: number = DEFAULT_HELP_WIDTH,
): ParsedCommand {
  refuseSwallowed(env);
  const found: Words[] = [];
  let printed = '';
  const program = buildProgram(version, (words) => found.push(words));
  for (const command of [program, ...program.commands]) {
    command.exitOverride();
    command.configureOutput({
      writeOut: (text) => {
        printed += text;
      },
      writeErr: () => {},
      getOutHelpWidth: () => helpWidth,
      getOutHasColors: () => false,
    });
  }
  if (argv.length === 0) program.outputHelp();
  else {
    try {
      program.parse([...argv], { from: 'user' });
    } catch (error) {
      if (!(error instanceof CommanderError)) throw error;
      if (error.exitCode !== 0) throw usageError(error, argv);
    }
  }
  const words = found[0];
  return words === undefined ? { kind: 'print', text: printed } : commandOf(words, env);
}

/** `npm start --workers 2` gives the flag to npm, which drops it: better refused than trained with other numbers. */
function refuseSwallowed(env: Environment): void {
  if (env['npm_lifecycle_event'] !== 'start') return;
  for (const { syntax } of Object.values(FLAGS)) {
    const flag = flagName(syntax);
    const value = env[`npm_config_${flag.slice(2).replaceAll('-', '_')}`];
    if (value === undefined || value === '') continue;
    throw new LockstepError('E_USAGE', `npm took ${flag} for itself`, {
      remedy: `Put two dashes before Lockstep's flags: npm start -- ${flag}${value === 'true' ? '' : ` ${value}`}.`,
    });
  }
}

/** commander's refusal as ours: its sentence and its guess at what was meant. */
function usageError(error: CommanderError, argv: readonly string[]): LockstepError {
  const [sentence = '', guess] = error.message.replace(/^error: /, '').split('\n');
  const command = argv[0] ?? '';
  const meant = guess === undefined ? null : /^\(Did you mean (.*)\?\)$/.exec(guess);
  const help = `npx lockstep ${error.code === 'commander.unknownCommand' || command.startsWith('-') ? '' : `${command} `}--help`;
  const isSecondJob = error.code === 'commander.excessArguments' && (command === 'train' || command === 'coordinator');
  const remedy =
    meant !== null
      ? `Did you mean ${meant[1]}? \`${help}\` lists them all.`
      : isSecondJob
        ? 'Name one job. `npm start` names cifar10-cnn itself, and its flags go after two dashes: npm start -- --workers 2.'
        : `See \`${help}\`.`;
  return new LockstepError('E_USAGE', sentence.replaceAll("'", '"'), { remedy, cause: error });
}

function commandOf({ command, args, given }: Words, env: Environment): ParsedCommand {
  const text = (syntax: string): string | undefined => valueOf(syntax, given, env)?.text;
  const [first = ''] = args;
  switch (command) {
    case 'train':
    case 'coordinator': {
      const options = trainOptions(command, first, given, env);
      if (command === 'train' && options.flags.standby) {
        throw new LockstepError(
          'E_USAGE',
          '--standby is for `lockstep coordinator`: `train` starts workers of its own',
          {
            remedy: `Use \`lockstep coordinator ${first} --standby ...\`.`,
          },
        );
      }
      return { kind: command, options };
    }
    case 'launch':
      return {
        kind: command,
        options: trainOptions(command, first, given, env),
        launch: launchFlags(given, env),
        args: [first, ...coordinatorArgs(given)],
      };
    case 'worker': {
      if (given['launched'] === true) return { kind: 'host' };
      const url = valueOf('--coordinator <url>', given, env);
      if (url === null) {
        throw new LockstepError('E_USAGE', 'a worker needs --coordinator URL', {
          remedy: 'Give the address that the coordinator printed, e.g. --coordinator http://127.0.0.1:29400.',
        });
      }
      const secrets = valueOf('--nats-url <url>', given, env);
      const flags = {
        coordinator: withSecrets(read(url, coordinatorAddress), serverOf(secrets) ?? null),
        natsCreds: text('--nats-creds <file>'),
        job: text('--job <job>'),
        tokenFile: text('--token-file <file>'),
        engine: engineOf(given, env),
        adapter: text('--adapter <names>'),
        peerListen: optional(valueOf('--peer-listen <host:port>', given, env), address),
        dataFrom: optional(valueOf('--data-from <place>', given, env), oneOf(DATA_PLACES)) ?? 'auto',
        localTransport: optional(valueOf('--local-transport <name>', given, env), oneOf(LOCAL_TRANSPORTS)) ?? 'shm',
        termGrace: optional(valueOf('--term-grace <seconds>', given, env), wholeNumber(0)) ?? 0,
        tlsCert: text('--tls-cert <file>'),
        tlsKey: text('--tls-key <file>'),
        tlsCa: text('--tls-ca <file>'),
        tlsClientCa: text('--tls-client-ca <file>'),
        nprocPerNode: trainFlag('nprocPerNode', given, env),
        restartLimit: trainFlag('restartLimit', given, env),
        pin: trainFlag('pin', given, env),
      };
      checkPair(flags);
      refuseTlsFor(flags.coordinator, flags);
      return { kind: command, flags };
    }
    case 'status': {
      const tls = {
        tlsCert: text('--tls-cert <file>'),
        tlsKey: text('--tls-key <file>'),
        tlsCa: text('--tls-ca <file>'),
      };
      checkPair(tls);
      return {
        kind: command,
        url: args.length === 0 ? undefined : read({ text: first, name: 'status' }, coordinatorUrl),
        watch: given['watch'] === true,
        tokenFile: text('--token-file <file>'),
        ...tls,
      };
    }
    case 'token':
      return tokenCommand(given, env);
    case 'evaluate':
      return { kind: command, run: first, predictions: text('--predictions <file>') };
    case 'report':
      return { kind: command, run: first, output: text('--output <file>') };
    case 'verify':
      return { kind: command, run: first, replay: optional(valueOf('--replay <step>', given, env), wholeNumber(1)) };
    case 'doctor':
      return { kind: command, natsUrl: serverOf(valueOf('--nats-url <url>', given, env)) };
    case 'setup':
      return { kind: command, engine: engineOf(given, env), job: text('--job <job>') ?? 'cifar10-cnn' };
    case 'test':
    case 'bench':
      return { kind: command, args };
    default:
      throw new TypeError(`no such command in the program: ${command}`);
  }
}

interface Given {
  readonly text: string;
  /** As it is named in a refusal: `--seed`, `LOCKSTEP_SEED=`. */
  readonly name: string;
  readonly origin?: Origin;
}

/** A flag's text, from the line or else the environment; null when neither has it. An empty variable is none. */
function valueOf(syntax: string, given: Words['given'], env: Environment): Given | null {
  const flag = flagName(syntax);
  const key = flag.slice(2).replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
  const own = given[key];
  if (own !== undefined) return { text: own === true ? 'on' : own, name: `${flag} `, origin: 'flag' };
  const variable = environmentName(syntax);
  const set = env[variable];
  return set === undefined || set === '' ? null : { text: set, name: `${variable}=`, origin: 'environment' };
}

function optional<T>(value: Given | null, parse: Parser<T>): T | undefined {
  return value === null ? undefined : read(value, parse);
}

/** A new key, or what is made from one. */
function tokenCommand(given: Words['given'], env: Environment): ParsedCommand {
  // A key that is set for other commands is not meant here.
  const keyFile = valueOf('--token-file <file>', given, {});
  const scope = optional(valueOf('--scope <scope>', given, env), oneOf(SCOPES));
  const expires = valueOf('--expires <time>', given, env);
  const out = valueOf('--out <file>', given, {})?.text;
  if (keyFile === null) {
    if (scope === undefined && expires === null) return { kind: 'token', from: null, out };
    const wish = scope === undefined ? `--expires ${expires?.text}` : `--scope ${scope}`;
    throw new LockstepError(
      'E_USAGE',
      `${wish}: a token that may less than everything, or expires, is made from a key`,
      {
        remedy: "Give the run's with --token-file KEY; one is made by `lockstep token --out KEY`.",
      },
    );
  }
  if (scope === undefined) {
    throw new LockstepError('E_USAGE', `--token-file ${keyFile.text}: what is the token that is made from it for?`, {
      remedy: `Give --scope ${SCOPES.join(', or --scope ')}.`,
    });
  }
  const expiresInSeconds = read(expires ?? { text: DEFAULT_EXPIRY, name: '--expires ' }, duration);
  return { kind: 'token', from: { keyFile: keyFile.text, scope, expiresInSeconds }, out };
}

type TlsFlags = Pick<TrainFlags, 'tlsCert' | 'tlsKey' | 'tlsCa'> & { readonly tlsClientCa?: string | undefined };

/** The flags of TLS that are given, as they were written. */
function tlsGiven({ tlsCert, tlsKey, tlsCa, tlsClientCa }: TlsFlags): string {
  const all = { '--tls-cert': tlsCert, '--tls-key': tlsKey, '--tls-ca': tlsCa, '--tls-client-ca': tlsClientCa };
  return Object.entries(all)
    .flatMap(([flag, file]) => (file === undefined ? [] : [`${flag} ${file}`]))
    .join(' ');
}

function checkPair(flags: TlsFlags): void {
  if (flags.tlsClientCa !== undefined && flags.tlsCert === undefined) {
    throw new LockstepError('E_USAGE', `--tls-client-ca ${flags.tlsClientCa}: without TLS nobody shows a certificate`, {
      remedy: 'Give --tls-cert and --tls-key, too.',
    });
  }
  if ((flags.tlsCert === undefined) === (flags.tlsKey === undefined)) return;
  throw new LockstepError('E_USAGE', `${tlsGiven(flags)}: --tls-cert and --tls-key go together`, {
    remedy: 'Give both, or neither.',
  });
}

/** Who gives certificates wants TLS: not to be left without for an address that says http. */
function refuseTlsFor(coordinator: CoordinatorAddress, flags: TlsFlags): void {
  const given = tlsGiven(flags);
  if (given === '') return;
  if (coordinator.kind === 'nats') {
    const isForServer = coordinator.server.tls && flags.tlsCert === undefined && flags.tlsClientCa === undefined;
    if (isForServer) return;
    throw new LockstepError('E_USAGE', `${given}: over a NATS server no peer is reached directly`, {
      remedy: `Leave ${given.includes(' --') ? 'them' : 'it'} out; TLS to the server is asked for by tls:// in the server's address, and takes --tls-ca.`,
    });
  }
  const { url } = coordinator;
  if (url.startsWith('https:')) return;
  throw new LockstepError('E_USAGE', `${given}: the coordinator's address ${url} is one without TLS`, {
    remedy: `Give ${url.replace(/^http:/, 'https:')}, or leave ${given.includes(' --') ? 'them' : 'it'} out.`,
  });
}

/** Parses one value; a refusal names it: `--workers 0: it must be ...`. */
function read<T>({ text, name }: Given, parse: Parser<T>): T {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof BadValue)) throw error;
    const remedy = error.remedy ?? `Change ${name.trim().replace(/=$/, '')} or leave it out.`;
    throw new LockstepError(error.code, `${name}${error.shown ?? text}: ${error.message}`, { remedy, cause: error });
  }
}

function serverOf(value: Given | null): NatsServer | undefined {
  return value === null ? undefined : read(value, natsUrl);
}

/** What a worker shows a NATS server may stand apart from the coordinator's address, which others can list. */
function withSecrets(to: CoordinatorAddress, from: NatsServer | null): CoordinatorAddress {
  if (to.kind !== 'nats' || from === null || from.hostPort !== to.server.hostPort) return to;
  const { user, password, token } = from;
  const has = to.server.user !== null || to.server.token !== null;
  return has ? to : { ...to, server: { ...to.server, user, password, token } };
}

function engineOf(given: Words['given'], env: Environment): string {
  const value = valueOf('--engine <name>', given, env);
  return value === null ? 'auto' : read(value, capability(CAPABILITIES.engine));
}

/** One flag's value; `found` is told where it came from. */
function trainFlag<K extends keyof TrainFlags>(
  key: K,
  given: Words['given'],
  env: Environment,
  found: (origin: Origin) => void = () => {},
): TrainFlags[K] {
  const spec: FlagSpec<TrainFlags[K]> = FLAGS[key];
  const value = valueOf(spec.syntax, given, env);
  found(value?.origin ?? 'default');
  if (value === null) return spec.fallback;
  // A switch's type is boolean: the table says so.
  return read(value, spec.parse ?? (switchWord as Parser<TrainFlags[K]>));
}

function trainOptions(
  command: 'train' | 'coordinator' | 'launch',
  job: string,
  given: Words['given'],
  env: Environment,
): TrainOptions {
  const origins = new Map<keyof TrainFlags, Origin>();
  const keys = Object.keys(FLAGS) as (keyof TrainFlags)[];
  const values = keys.map((key) => [key, trainFlag(key, given, env, (origin) => origins.set(key, origin))]);
  const written = Object.fromEntries(values) as unknown as TrainFlags;
  const isGiven = (key: keyof TrainFlags): boolean => origins.get(key) !== 'default';
  const flags = NODES[command](written, isGiven);
  checkTogether(flags, origins, command);
  return { job, flags, origins };
}

const NODES = { train: nodesOfOneMachine, coordinator: nodesOfCoordinator, launch: nodesOfLaunch } as const;

/** Of the flags that `launch` was given, those that its coordinator is given, too. */
function coordinatorArgs(given: Words['given']): string[] {
  const own: ReadonlySet<keyof TrainFlags> = new Set(['nnodes', 'nprocPerNode']);
  return (Object.keys(FLAGS) as (keyof TrainFlags)[]).flatMap((key) => {
    const value = own.has(key) ? undefined : given[key];
    if (value === undefined) return [];
    return value === true ? [flagName(FLAGS[key].syntax)] : [flagName(FLAGS[key].syntax), value];
  });
}

function launchFlags(given: Words['given'], env: Environment): LaunchFlags {
  const value = (syntax: string): Given | null => valueOf(syntax, given, env);
  const sources = {
    hosts: value('--hosts <list>'),
    hostfile: value('--hostfile <file>'),
    hostDiscoveryScript: value('--host-discovery-script <file>'),
  };
  const named = Object.values(sources).flatMap((source) => (source === null ? [] : [`${source.name}${source.text}`]));
  if (named.length !== 1) {
    throw new LockstepError(
      'E_USAGE',
      named.length === 0 ? 'a launch needs hosts' : `${named.join(' and ')} each name the hosts`,
      { remedy: 'Give one of -H HOST:SLOTS,HOST:SLOTS, --hostfile FILE and --host-discovery-script FILE.' },
    );
  }
  const { hosts, hostfile, hostDiscoveryScript } = sources;
  const optionLines = value('--ssh-option <option>');
  return {
    hosts: hosts === null ? null : parseHostList(hosts.text, hosts.origin === 'flag' ? '-H' : 'LOCKSTEP_HOSTS'),
    hostfile: hostfile?.text,
    discoveryScript: hostDiscoveryScript?.text,
    discoveryIntervalSeconds: optional(value('--host-discovery-interval <seconds>'), wholeNumber(1)) ?? 5,
    sshPort: optional(value('--ssh-port <port>'), wholeNumber(1, 65_535)) ?? null,
    sshIdentityFile: value('--ssh-identity-file <file>')?.text ?? null,
    sshOptions: optionLines === null ? [] : read(optionLines, sshOptionList),
    remoteDir: value('--remote-dir <dir>')?.text ?? null,
    remoteNode: value('--remote-node <path>')?.text ?? 'node',
    graceSeconds: optional(value('--host-grace <seconds>'), wholeNumber(3, 3600)) ?? DEFAULT_HOST_GRACE_SECONDS,
    retryLimit: optional(value('--host-retry-limit <n>'), wholeNumber(0)) ?? DEFAULT_HOST_RETRY_LIMIT,
  };
}

/** What is wrong with flags only when they meet. */
function checkTogether(
  flags: TrainFlags,
  origins: ReadonlyMap<keyof TrainFlags, Origin>,
  command: 'train' | 'coordinator' | 'launch',
): void {
  checkPair(flags);
  const isForNats = flags.transport === 'nats' && flags.natsUrl?.tls === true;
  if (flags.tlsCa !== undefined && flags.tlsCert === undefined && !isForNats) {
    throw new LockstepError('E_USAGE', `--tls-ca ${flags.tlsCa}: there is no certificate for it to vouch for`, {
      remedy: 'Give the coordinator its --tls-cert and --tls-key, too.',
    });
  }
  if (origins.get('timelineSteps') === 'flag' && flags.timeline === undefined) {
    throw new LockstepError('E_USAGE', '--timeline-steps is for --timeline FILE, and there is none', {
      remedy: 'Give --timeline FILE, too, or leave it out.',
    });
  }
  // A variable says where the server is, for when it is wanted; a flag wants it.
  const nats = (['natsUrl', 'natsCreds', 'natsReplicas'] as const).filter((key) => origins.get(key) === 'flag');
  const [first] = nats;
  if (first !== undefined && flags.transport !== 'nats') {
    throw new LockstepError('E_USAGE', `${flagName(FLAGS[first].syntax)} is for --transport nats, and this is ws`, {
      remedy: 'Give --transport nats, too, or leave it out.',
    });
  }
  if (flags.autoResume && flags.runDir === undefined) {
    throw new LockstepError('E_USAGE', '--auto-resume is for a --run-dir, and none is given', {
      remedy: 'Give --run-dir DIR, the same each time; or --resume, for the newest run of the job.',
    });
  }
  if (flags.standby && flags.transport !== 'nats') {
    throw new LockstepError('E_USAGE', '--standby is for --transport nats, and this is ws', {
      remedy: 'Give --transport nats, too, or leave it out.',
    });
  }
  if (flags.standby && (flags.runDir === undefined || flags.tokenFile === undefined)) {
    throw new LockstepError('E_USAGE', '--standby: it must be known which run is stood by, and what its workers show', {
      remedy: "Give --run-dir, whose last part is the run's name, and --token-file, a copy of the leader's.",
    });
  }
  // A launch makes a token of its own.
  if (!isLoopback(flags.listen.host) && flags.tokenFile === undefined && command !== 'launch') {
    throw new LockstepError(
      'E_LISTEN',
      `--listen ${addressText(flags.listen)}: other machines can reach it, and no token is asked of them`,
      {
        remedy: 'Give --token-file FILE with a key in it (npx lockstep token --out FILE), or listen on 127.0.0.1.',
      },
    );
  }
}
