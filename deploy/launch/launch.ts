// `lockstep launch -H HOSTS JOB`: the coordinator here, workers on other hosts over ssh. Finds the hosts, waits for those that answer,
// agrees with them on an engine, and then supervises the coordinator as `train` does, with the hosts as its crew (fleet.ts).
//
// Nobody numbers machines: ranks are the coordinator's, and come and go with generations. The coordinator listens at the address by which
// the hosts reach this machine, with a token made for this launch.

import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative, sep } from 'node:path';
import { LockstepError } from '../../protocol/errors.ts';
import { ENTRY } from '../crew.ts';
import { loadJob, type LoadedJob } from '../job-file.ts';
import type { NatsServer } from '../../nats/server.ts';
import { WORKERS_ELSEWHERE, type Listening } from '../launch-messages.ts';
import { natsEnvironment, natsServerOf, tryNats } from '../nats.ts';
import { resolveBatch, type LaunchFlags, type TrainFlags, type TrainOptions } from '../options.ts';
import { rangeText } from '../options/nodes.ts';
import { isLoopback } from '../../protocol/loopback.ts';
import { addressText, type Address } from '../options/values.ts';
import { setUp } from '../setup/steps.ts';
import { natsBack, supervise } from '../train.ts';
import { readTls } from '../tls-files.ts';
import { makeKey, readKey, workToken } from '../token.ts';
import type { Start } from './channel.ts';
import { Fleet, type Meeting } from './fleet.ts';
import { parseHostfile, type Host } from './hosts.ts';
import type { SshOptions } from './remote-command.ts';
import { addressTowards, isHere } from './route.ts';

const CHECKOUT = dirname(dirname(ENTRY));
const EVERYWHERE: ReadonlySet<string> = new Set(['0.0.0.0', '::']);

/** Runs a job on the hosts; `args` are those of the flags that the coordinator has, too. Resolves to the exit code. */
export async function launch(options: TrainOptions, wish: LaunchFlags, args: readonly string[]): Promise<number> {
  const { flags } = options;
  const job = await loadJob(options.job);
  const microbatches = flags.resume ? null : resolveBatch(flags, job.definition).microbatches;
  const nats = natsServerOf(flags);
  readTls(flags, Date.now());
  if (flags.tokenFile !== undefined) readKey(flags.tokenFile);
  const hosts = hostsOf(wish);
  checkNodes(flags, hosts);
  checkListen(options, hosts, nats);
  if (nats !== null) await tryNats(nats);
  const ssh: SshOptions = {
    port: wish.sshPort,
    identityFile: wish.sshIdentityFile,
    options: wish.sshOptions,
    graceSeconds: wish.graceSeconds,
  };
  const routes = new Routes(ssh);
  // First: what is wrong with the hosts' names and this machine's addresses shows before anything is started.
  await Promise.all((hosts ?? []).map((host) => routes.towards(host)));
  // Of the engines the hosts have one; the coordinator reads the data's sizes.
  await setUp({ dataSet: job.definition.data, engine: 'none', json: flags.logFormat === 'json' });

  const fleet = new Fleet({
    hosts,
    discovery:
      wish.discoveryScript === undefined
        ? null
        : { script: wish.discoveryScript, intervalSeconds: wish.discoveryIntervalSeconds },
    nprocPerNode: flags.nprocPerNode,
    hostsMax: flags.nnodes?.max ?? null,
    retryLimit: wish.retryLimit,
    ssh,
    place: { directory: wish.remoteDir ?? CHECKOUT, node: wish.remoteNode },
    engine: flags.engine,
    adapter: flags.adapter ?? null,
    launch: randomBytes(24).toString('base64url'),
    start: {
      tls: nats === null ? pemOf(flags) : { cert: null, key: null, ca: null, 'client-ca': null },
      flags: ['--local-transport', flags.localTransport],
      environment: nats === null ? {} : natsEnvironment(flags),
      restartLimit: flags.restartLimit,
      pin: flags.pin,
    },
    jobOn: (host) => jobOn(host, job),
    isShown: flags.workerOutput === 'both',
    say: (level, host, message) => say(flags, level, `${host}: ${message}`),
  });

  let isInterrupted = false;
  const interrupt = (): void => {
    isInterrupted = true;
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  const secrets = mkdtempSync(join(tmpdir(), 'lockstep-'));
  try {
    await fleet.connect();
    if ((await fleet.gathered(flags.nnodes?.min ?? 1, () => isInterrupted)) === 'interrupted') return 130;
    const choice = fleet.engineChoice();
    const tokenFile = flags.tokenFile ?? join(secrets, 'token');
    if (flags.tokenFile === undefined) {
      writeFileSync(tokenFile, `${makeKey()}\n`, { mode: 0o600 });
    }
    const listen = await listenFor(options, hosts, routes);
    fleet.meet({
      token: workToken(readKey(tokenFile)),
      engine: choice.engine,
      urlFor: urlsOf(listen, nats !== null, routes),
    });
    const code = await supervise({
      args: [
        ...args,
        '--workers',
        String(fleet.slots),
        '--listen',
        addressText(listen),
        '--token-file',
        tokenFile,
        ...(flags.nnodes === undefined
          ? []
          : ['--min-workers', String(Math.min(fleet.slotsOfFewest(flags.nnodes.min), microbatches ?? Infinity))]),
      ],
      environment: { [WORKERS_ELSEWHERE]: '1', LOCKSTEP_NNODES: '', LOCKSTEP_NPROC_PER_NODE: '' },
      restartLimit: flags.restartLimit,
      nats: natsBack(nats, flags.waitLimit),
      choice,
      crew: fleet,
    });
    if (fleet.failure !== null) throw fleet.failure;
    return code;
  } finally {
    await fleet.end();
    rmSync(secrets, { recursive: true, force: true });
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, interrupt);
  }
}

/** Null: a script will name them. */
function hostsOf({ hosts, hostfile }: LaunchFlags): readonly Host[] | null {
  if (hostfile === undefined) return hosts;
  let text: string;
  try {
    text = readFileSync(hostfile, 'utf8');
  } catch (cause) {
    throw new LockstepError('E_HOSTS', `--hostfile ${hostfile}: it cannot be read`, {
      remedy: 'Give a readable file with lines HOST slots=N.',
      cause,
    });
  }
  return parseHostfile(text, hostfile);
}

function checkNodes({ nnodes }: TrainFlags, hosts: readonly Host[] | null): void {
  if (nnodes === undefined || hosts === null || hosts.length >= nnodes.min) return;
  throw new LockstepError('E_USAGE', `--nnodes ${rangeText(nnodes)}: ${hosts.length} hosts are named`, {
    remedy: `Name ${nnodes.min} at least, or give another --nnodes.`,
  });
}

/** The job as a host finds it: in Lockstep's checkout, which is where its supervisor starts, or at the same path as here. */
function jobOn(host: Host, { reference, path }: LoadedJob): string {
  if (reference.kind === 'built-in') return reference.name;
  const inside = relative(CHECKOUT, path);
  return isHere(host) || inside.startsWith('..') ? path : `.${sep}${inside}`;
}

function pemOf({ tlsCert, tlsKey, tlsCa, tlsClientCa }: TrainFlags): Start['tls'] {
  const read = (file: string | undefined): string | null => (file === undefined ? null : readFileSync(file, 'utf8'));
  return { cert: read(tlsCert), key: read(tlsKey), ca: read(tlsCa), 'client-ca': read(tlsClientCa) };
}

function say({ logFormat, logLevel }: TrainFlags, level: 'info' | 'warn', message: string): void {
  if (level === 'info' && logLevel !== 'info' && logLevel !== 'debug') return;
  const line = { level, time: new Date().toISOString(), kind: 'launch', label: 'host', msg: message };
  process.stdout.write(logFormat === 'json' ? `${JSON.stringify(line)}\n` : `host       ${message}\n`);
}

/** By which addresses of this machine hosts reach it; each is looked for once. */
class Routes {
  private readonly ssh: SshOptions;
  private readonly found = new Map<string, Promise<string | null>>();

  constructor(ssh: SshOptions) {
    this.ssh = ssh;
  }

  /** Null for this machine itself, and where it can't be told. */
  async towards(host: Host): Promise<string | null> {
    const known = this.found.get(host.name);
    if (known !== undefined) return known;
    const address = isHere(host) ? Promise.resolve(null) : addressTowards(host, this.ssh);
    this.found.set(host.name, address);
    // One that could not be told may be another time.
    const told = await address;
    if (told === null) this.found.delete(host.name);
    return told;
  }

  async all(): Promise<string[]> {
    const addresses = await Promise.all(this.found.values());
    return [...new Set(addresses.flatMap((address) => address ?? []))];
  }
}

function isElsewhere(hosts: readonly Host[] | null): boolean {
  return hosts === null || hosts.some((host) => !isHere(host));
}

/** Throws E_LISTEN or E_USAGE where hosts would call this machine's loopback, which is their own. */
function checkListen({ flags, origins }: TrainOptions, hosts: readonly Host[] | null, nats: NatsServer | null): void {
  if (nats !== null && isElsewhere(hosts) && isLoopback(new URL(`nats://${nats.hostPort}`).hostname)) {
    throw new LockstepError('E_USAGE', `--nats-url ${nats.url}: no other host reaches it`, {
      remedy: 'Give the address that the hosts have for the NATS server.',
    });
  }
  const isReachable = !isLoopback(flags.listen.host) || flags.transport === 'nats' || !isElsewhere(hosts);
  if (isReachable || origins.get('listen') === 'default') return;
  throw new LockstepError('E_LISTEN', `--listen ${addressText(flags.listen)}: no other host reaches it`, {
    remedy: 'Give an address of this machine that the hosts reach, or leave it out.',
  });
}

/** Where the coordinator listens: as --listen says; else at the address that the hosts reach, or everywhere where there are several. */
async function listenFor(
  { flags, origins }: TrainOptions,
  hosts: readonly Host[] | null,
  routes: Routes,
): Promise<Address> {
  // Over NATS no host reaches it.
  if (origins.get('listen') !== 'default' || !isElsewhere(hosts) || flags.transport === 'nats') return flags.listen;
  const addresses = await routes.all();
  const [only = '0.0.0.0'] = addresses;
  const everywhere = addresses.some((address) => address.includes(':')) ? '::' : '0.0.0.0';
  // A script may name hosts that are reached otherwise.
  return { host: hosts === null || addresses.length > 1 ? everywhere : only, port: flags.listen.port };
}

function urlsOf(listen: Address, isOverNats: boolean, routes: Routes): Meeting['urlFor'] {
  return async (host, { url, address }: Listening) => {
    if (isOverNats) return url;
    const { protocol, port } = new URL(address);
    const at = async (): Promise<string> => {
      if (!EVERYWHERE.has(listen.host)) return listen.host;
      // Peers on other hosts reach this machine's workers at the address from which those call.
      const towards = (await routes.towards(host)) ?? (await routes.all())[0];
      return towards ?? '127.0.0.1';
    };
    return `${protocol}//${addressText({ host: await at(), port: Number(port) })}`;
  };
}
