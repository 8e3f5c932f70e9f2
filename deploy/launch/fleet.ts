// The hosts of a launch at work: carries out what the roster decides. It connects to hosts, tells those that answer what to start once
// there is a coordinator, keeps what they write, and runs the discovery script. To who supervises the coordinator it is the run's crew.

import { execFile } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { LockstepError } from '../../protocol/errors.ts';
import { STEADY_MS, type Backoff } from '../backoff.ts';
import type { Crew } from '../crew.ts';
import { isEngineNoise } from '../engine-noise.ts';
import type { Listening, ToCoordinator } from '../launch-messages.ts';
import { LOCKSTEP_VERSION } from '../version.ts';
import type { EngineChoice } from '../ladder.ts';
import { CHANNEL_VERSION, type FromHost, type Start } from './channel.ts';
import { parseDiscovered, withSlots, type Host } from './hosts.ts';
import { unreachableBecause, type RemotePlace, type SshOptions } from './remote-command.ts';
import { connectHost, type RemoteHost } from './remote-host.ts';
import { Roster, type Effect, type HostEnd } from './roster.ts';

const BEAT_MS = 1000;
const TICK_MS = 200;
/** Between two connections to a host in a row that failed. */
const HOST_BACKOFF: Backoff = { firstMs: 1000, mostMs: 15_000 };
/** What a run's end may take on a host: longer than its workers get there. A host that is cut off ends by itself. */
const END_LIMIT_MS = 15_000;
const SCRIPT_LIMIT_MS = 30_000;
const MAX_SCRIPT_BYTES = 1024 * 1024;
/** Lines kept for the log files until the coordinator has made their directory. */
const MAX_EARLY_LINES = 1000;

const run = promisify(execFile);

export interface FleetOptions {
  readonly hosts: readonly Host[] | null;
  /** In the place of hosts. */
  readonly discovery: { readonly script: string; readonly intervalSeconds: number } | null;
  readonly nprocPerNode: number | 'auto' | undefined;
  readonly hostsMax: number | null;
  readonly retryLimit: number;
  readonly ssh: SshOptions;
  readonly place: RemotePlace;
  readonly engine: string;
  readonly adapter: string | null;
  /** Known to this launch alone. */
  readonly launch: string;
  /** What is the same for all hosts of what they are told to start. */
  readonly start: Omit<Start, 'kind' | 'coordinatorUrl' | 'engine' | 'job' | 'token'>;
  /** As a host's `--job` takes it. */
  readonly jobOn: (host: Host) => string;
  readonly isShown: boolean;
  /** Before there is a coordinator that shows things. */
  readonly say: (level: 'info' | 'warn', host: string, message: string) => void;
}

interface Connection {
  readonly host: Host;
  readonly remote: RemoteHost;
  prepared: Extract<FromHost, { kind: 'prepared' }> | null;
  isStarted: boolean;
  isThrough: boolean;
  /** Why it would not. */
  refused: Extract<FromHost, { kind: 'refused' }> | null;
}

/** What each host is told of the coordinator. */
export interface Meeting {
  readonly token: string;
  readonly engine: string;
  /** Where this host reaches it. */
  readonly urlFor: (host: Host, listening: Listening) => Promise<string>;
}

/** A program's output, or why there is none. Throws E_HOSTS. */
export async function discover(script: string): Promise<readonly Host[]> {
  let output: string;
  try {
    output = (await run(script, [], { timeout: SCRIPT_LIMIT_MS, maxBuffer: MAX_SCRIPT_BYTES })).stdout;
  } catch (cause) {
    const { code, stderr, killed } = cause as { code?: unknown; stderr?: string; killed?: boolean };
    const how =
      killed === true
        ? `it has not ended after ${SCRIPT_LIMIT_MS / 1000} s`
        : typeof code === 'number'
          ? `it ended with code ${code}`
          : `it cannot be run (${String(code)})`;
    const said = (stderr ?? '').trim().split('\n').at(-1) ?? '';
    throw new LockstepError('E_HOSTS', `--host-discovery-script ${script}: ${how}${said === '' ? '' : `: ${said}`}`, {
      remedy: 'It must be an executable file that prints HOST:SLOTS lines and ends with code 0.',
      cause,
    });
  }
  return parseDiscovered(output, script);
}

export class Fleet implements Crew {
  private readonly options: FleetOptions;
  private readonly roster: Roster;
  private readonly connections = new Map<string, Connection>();
  private readonly early: { readonly file: string; readonly line: string }[] = [];
  private logDirectory: string | null = null;
  private meeting: Meeting | null = null;
  private listening: Listening | null = null;
  private tellCoordinator: ((message: ToCoordinator) => void) | null = null;
  private isEnding = false;
  private timers: NodeJS.Timeout[] = [];
  private isDiscovering = false;
  private complaint = '';
  private onChange: () => void = () => {};
  /** Why the run had to end for want of hosts. */
  failure: LockstepError | null = null;

  constructor(options: FleetOptions) {
    this.options = options;
    const { hostsMax, retryLimit } = options;
    this.roster = new Roster({ hostsMax, retryLimit, backoff: HOST_BACKOFF, steadyMs: STEADY_MS });
  }

  /** Connects to the hosts. Throws E_HOSTS where the first list of them can't be had. */
  async connect(): Promise<void> {
    const { hosts, discovery, nprocPerNode } = this.options;
    const listed = discovery === null ? (hosts ?? []) : await discover(discovery.script);
    this.perform(this.roster.named(withSlots(listed, nprocPerNode)));
    this.timers.push(
      setInterval(() => this.beat(), BEAT_MS),
      setInterval(() => this.perform(this.roster.tick(performance.now())), TICK_MS),
    );
    if (discovery !== null) {
      this.timers.push(setInterval(() => void this.look(discovery.script), 1000 * discovery.intervalSeconds));
    }
  }

  private beat(): void {
    for (const { remote } of this.connections.values()) remote.send({ kind: 'beat' });
  }

  /** Runs the discovery script again; while that fails, the hosts are those of before. */
  private async look(script: string): Promise<void> {
    if (this.isDiscovering || this.isEnding) return;
    this.isDiscovering = true;
    try {
      this.perform(this.roster.named(withSlots(await discover(script), this.options.nprocPerNode)));
      this.complaint = '';
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      // Once for each reason.
      if (error.message !== this.complaint)
        this.tell('warn', 'discovery', `${error.message}; the hosts stay as they are`);
      this.complaint = error.message;
    } finally {
      this.isDiscovering = false;
    }
  }

  /** Resolves when the first hosts are there, or why there are not enough: those who answer are started without the others. */
  async gathered(hostsMin: number, isInterrupted: () => boolean): Promise<'gathered' | 'interrupted'> {
    for (;;) {
      if (isInterrupted()) return 'interrupted';
      const wrong = this.roster.leftOut.find(({ isFinal }) => isFinal);
      // A host that is named by hand and can never be reached is a mistake; one that a script names is the script's business.
      if (wrong !== undefined && this.options.discovery === null) {
        throw new LockstepError('E_HOSTS', `${wrong.host.where}: ${wrong.host.name}: ${wrong.because}`, {
          remedy: wrong.remedy,
        });
      }
      if (this.roster.isSettled && this.roster.present >= hostsMin) return 'gathered';
      if (this.roster.isHopeless && this.options.discovery === null) throw this.noHostsLeft();
      await new Promise<void>((resolve) => {
        this.onChange = resolve;
        setTimeout(resolve, TICK_MS);
      });
    }
  }

  private noHostsLeft(): LockstepError {
    const reasons = this.roster.leftOut.map(({ host, because }) => `${host.name}: ${because}`).join('; ');
    return new LockstepError('E_HOST_LOST', `no host is left: ${reasons}`, {
      remedy: "See the hosts' logs in the run's logs/; `--resume` goes on from the last checkpoint.",
    });
  }

  /** The engine that all hosts have chosen. Throws E_ENGINE_UNAVAILABLE where they have not chosen the same. */
  engineChoice(): EngineChoice {
    const found = [...this.connections.values()].flatMap(({ host, prepared }) =>
      prepared === null ? [] : [{ host, engine: prepared.engine as EngineChoice }],
    );
    const [first] = found;
    if (first === undefined) throw new TypeError('a host is there');
    const other = found.find(({ engine }) => engine.engine !== first.engine.engine);
    if (other !== undefined) {
      throw new LockstepError(
        'E_ENGINE_UNAVAILABLE',
        `the hosts have different engines: ${first.host.name} ${first.engine.engine}, ${other.host.name} ${other.engine.engine}`,
        { remedy: 'Name one that all have: --engine NAME.' },
      );
    }
    return first.engine;
  }

  /** Workers of the hosts that are there. */
  get slots(): number {
    return this.roster.slotsPresent;
  }

  /** Those that `count` hosts have at least; of hosts that come later it is not known. */
  slotsOfFewest(count: number): number {
    const each = [...this.connections.values()].flatMap(({ prepared }) => prepared?.slots ?? []);
    return each
      .toSorted((a, b) => a - b)
      .slice(0, count)
      .reduce((sum, slots) => sum + slots, 0);
  }

  meet(meeting: Meeting): void {
    this.meeting = meeting;
  }

  // ---- the crew

  begin(listening: Listening, tell: (message: ToCoordinator) => void): void {
    this.tellCoordinator = tell;
    this.listening = listening;
    this.logDirectory = listening.logDirectory;
    for (const { file, line } of this.early.splice(0)) this.keep(file, line);
    for (const connection of this.connections.values()) void this.start(connection);
    this.expect();
  }

  startWorker(): void {
    // Each host's supervisor does.
  }

  endWorker({ host, pid }: { readonly host: string; readonly pid: number }): void {
    for (const { prepared, remote } of this.connections.values()) {
      if (prepared?.host === host) remote.send({ kind: 'kill', pid });
    }
  }

  untold(): readonly ToCoordinator[] {
    return [];
  }

  kill(): void {
    for (const { remote } of this.connections.values()) remote.send({ kind: 'end', isUrgent: true });
  }

  async end(): Promise<void> {
    this.isEnding = true;
    for (const timer of this.timers.splice(1)) clearInterval(timer);
    for (const { remote, prepared } of this.connections.values()) {
      // One that does not answer yet has no workers.
      if (prepared === null) remote.kill();
      else remote.send({ kind: 'end', isUrgent: false });
    }
    const until = performance.now() + END_LIMIT_MS;
    while (this.connections.size > 0 && performance.now() < until) {
      await new Promise<void>((resolve) => {
        this.onChange = resolve;
        setTimeout(resolve, TICK_MS);
      });
    }
    // Beats until here: a host whose workers take their time is not to think that it is cut off.
    for (const timer of this.timers.splice(0)) clearInterval(timer);
    for (const { remote } of this.connections.values()) remote.kill();
    this.connections.clear();
  }

  // ---- hosts

  private perform(effects: readonly Effect[]): void {
    if (this.isEnding) return;
    for (const effect of effects) {
      switch (effect.kind) {
        case 'start':
          this.open(effect.host);
          break;
        case 'stop':
          this.tell('info', effect.host.name, effect.because);
          this.connections.get(effect.host.name)?.remote.send({ kind: 'end', isUrgent: false });
          break;
        case 'tell':
          this.tell(effect.level, effect.host, effect.message);
          break;
      }
    }
    if (effects.length > 0) this.changed();
  }

  private changed(): void {
    this.expect();
    const isOver = this.roster.isHopeless && this.options.discovery === null;
    if (isOver && this.roster.leftOut.length > 0 && this.tellCoordinator !== null && this.failure === null) {
      this.failure = this.noHostsLeft();
      this.tellCoordinator({ kind: 'stop', because: this.failure.message });
    }
    this.onChange();
  }

  /** The coordinator waits for those who may still come, and for no others. */
  private expect(): void {
    this.tellCoordinator?.({ kind: 'expect', workers: Math.max(1, this.roster.slotsExpected) });
  }

  private open(host: Host): void {
    const { ssh, place, engine, adapter, launch } = this.options;
    const remote = connectHost(host, ssh, place, {
      message: (message) => this.hear(connection, message),
      line: (line) => this.keep(`host-${fileName(host.name)}.log`, line),
      end: (code, lastLines) => this.ended(connection, code, lastLines),
    });
    const connection: Connection = { host, remote, prepared: null, isStarted: false, isThrough: false, refused: null };
    this.connections.set(host.name, connection);
    remote.send({
      kind: 'prepare',
      version: CHANNEL_VERSION,
      lockstep: LOCKSTEP_VERSION,
      launch,
      engine,
      adapter,
      slots: host.slots,
      graceMs: 1000 * ssh.graceSeconds,
    });
  }

  private hear(connection: Connection, message: FromHost): void {
    const { name } = connection.host;
    switch (message.kind) {
      case 'prepared': {
        connection.prepared = message;
        this.roster.up(name, message.slots, performance.now());
        const workers = `${message.slots} worker${message.slots === 1 ? '' : 's'}`;
        this.tell('info', name, `${workers}, ${message.engine.said[0] ?? message.engine.engine}`);
        void this.start(connection);
        this.changed();
        return;
      }
      case 'refused':
        connection.refused = message;
        return;
      case 'said':
        this.tell('warn', name, message.message);
        return;
      case 'fewer':
        this.roster.fewer(name, message.slots);
        this.changed();
        return;
      case 'through':
        connection.isThrough = true;
        return;
      case 'line': {
        const { localRank, text } = message;
        this.keep(`worker-${fileName(name)}-${localRank}.log`, text);
        if (this.options.isShown && !isEngineNoise(text))
          this.tellCoordinator?.({ kind: 'worker-line', worker: `${name}:${localRank}`, text });
      }
    }
  }

  /** Tells a host that is prepared what to start, when there is a coordinator to join. */
  private async start(connection: Connection): Promise<void> {
    const { host, remote, prepared } = connection;
    const { meeting, listening } = this;
    if (prepared === null || meeting === null || listening === null || connection.isStarted) return;
    connection.isStarted = true;
    try {
      const coordinatorUrl = await meeting.urlFor(host, listening);
      const { token, engine } = meeting;
      const job = this.options.jobOn(host);
      remote.send({ kind: 'start', ...this.options.start, coordinatorUrl, token, engine, job });
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      this.tell('warn', host.name, `${error.code}: ${error.message}`);
      remote.send({ kind: 'end', isUrgent: true });
    }
  }

  private ended(connection: Connection, code: number | null, lastLines: readonly string[]): void {
    const { host, refused, isThrough } = connection;
    if (this.connections.get(host.name) === connection) this.connections.delete(host.name);
    this.onChange();
    this.perform(
      this.roster.ended(
        host.name,
        isThrough ? { kind: 'well' } : this.endOf(host, code, refused, lastLines),
        performance.now(),
      ),
    );
  }

  private endOf(
    host: Host,
    code: number | null,
    refused: Connection['refused'],
    lastLines: readonly string[],
  ): HostEnd {
    if (refused !== null) {
      const remedy = refused.remedy === '' ? `Look at ${host.name}.` : refused.remedy;
      return {
        kind: 'failed',
        because: `${refused.code}: ${refused.message}`,
        remedy,
        isFinal: refused.code !== 'E_HOST_LOST',
      };
    }
    return { kind: 'failed', ...unreachableBecause(host.name, code, lastLines, this.options.place) };
  }

  private tell(level: 'info' | 'warn', host: string, message: string): void {
    if (this.tellCoordinator === null) this.options.say(level, host, message);
    else this.tellCoordinator({ kind: 'notice', level, label: 'host', message: `${host}: ${message}` });
    this.keep('launch.log', `${new Date().toISOString()} ${host}: ${message}`);
  }

  /** Into a file of the run's logs. */
  private keep(file: string, line: string): void {
    if (this.logDirectory === null) {
      if (this.early.length < MAX_EARLY_LINES) this.early.push({ file, line });
      return;
    }
    try {
      appendFileSync(join(this.logDirectory, file), `${line}\n`);
    } catch (error) {
      // A log on a disk without room is no reason to stop training.
      if (!(error instanceof Error && 'code' in error)) throw error;
    }
  }
}

/** A host's name in a file's. */
function fileName(host: string): string {
  return host.replaceAll(/[^\w.-]/g, '_');
}
