// The workers of one host of a launch: `lockstep worker --launched`, started over ssh. All that it is told comes over its standard input
// (channel.ts): the coordinator, the token, the job. It starts the host's workers, keeps them alive, and sends on what they write.
//
// It ends, and its workers with it, when it is told to; at once when the connection ends, since whoever started it is gone or will start
// it anew; and when it has heard nothing for the grace period. A cut network ends no connection: within the grace the workers are kept,
// and join again by themselves when it is back. On the other end ssh gives up after the same time, so both sides know.
//
// Should a second supervisor of the same launch come while the first one still has its workers - the network is back and this side has
// not noticed that it was gone - it says so to the first one, and begins when that one's workers have ended: never two sets at once.

import { createHash, timingSafeEqual } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { LockstepError } from '../../protocol/errors.ts';
import { environmentOf, ENTRY, gpusFor, placesFor, workersHere } from '../crew.ts';
import { chooseEngineHere } from '../engines.ts';
import { loadJob } from '../job-file.ts';
import { setUp } from '../setup/steps.ts';
import { LOCKSTEP_VERSION } from '../version.ts';
import { watchWorkers, type WatchedWorkers } from '../watched-workers.ts';
import { SUPERVISOR } from '../worker-processes.ts';
import {
  CHANNEL_VERSION,
  fromHostLine,
  Lines,
  MAX_WORKER_LINE,
  readToHost,
  type FromHost,
  type Prepare,
  type Start,
} from './channel.ts';

/** Until the supervisor before this one has ended its workers: longer than they get. */
const LEAVE_LIMIT_MS = 20_000;
const LOOK_EVERY_MS = 100;
/** Bytes that wait for the network; what workers write beyond is left out. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;

/** Writes to the launcher. A connection that is gone takes nothing, which its end tells. */
function tell(message: FromHost): void {
  if (message.kind === 'line' && process.stdout.writableLength > MAX_WAITING_BYTES) return;
  process.stdout.write(fromHostLine(message));
}

/** A name in the kernel: it ends with the process that has it. It shows nothing of the launch. */
function nameOf(launch: string): string {
  return `\0lockstep-host-${createHash('sha256').update(launch).digest('hex').slice(0, 32)}`;
}

/** Null: another process has it. */
async function listenAs(name: string, server: Server): Promise<Server | null> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(null);
      else reject(error);
    });
    server.listen(name, () => resolve(server));
  });
}

async function sleep(ms: number): Promise<void> {
  await new Promise<void>((resolve) => {
    setTimeout(resolve, ms);
  });
}

/** Makes this process the supervisor of its launch here; `onLeave` is called when another one is to be. Throws E_HOST_LOST. */
async function takePlace(launch: string, onLeave: () => void): Promise<Server> {
  const secret = Buffer.from(launch);
  const until = performance.now() + LEAVE_LIMIT_MS;
  for (;;) {
    const server = createServer((socket) => {
      socket.on('error', () => socket.destroy());
      socket.once('data', (said: Buffer) => {
        if (said.length === secret.length && timingSafeEqual(said, secret)) onLeave();
        socket.destroy();
      });
    });
    const place = await listenAs(nameOf(launch), server);
    if (place !== null) return place;
    if (performance.now() > until) {
      throw new LockstepError('E_HOST_LOST', `the workers of an earlier connection do not end on ${hostname()}`, {
        remedy: 'End them by hand: see `ps` for lockstep.mjs worker.',
      });
    }
    const before = connect({ path: nameOf(launch) });
    before.on('error', () => before.destroy());
    before.end(launch);
    await sleep(LOOK_EVERY_MS);
  }
}

class Supervisor {
  private heardAt = performance.now();
  private graceMs = Number.POSITIVE_INFINITY;
  private place: Server | null = null;
  private workers: WatchedWorkers | null = null;
  private directory: string | null = null;
  private slots = 0;
  private adapter: string | null = null;
  private isEnding = false;
  private resolveEnded: (code: number) => void = () => {};
  /** The exit code. */
  readonly ended = new Promise<number>((resolve) => {
    this.resolveEnded = resolve;
  });

  heard(): void {
    this.heardAt = performance.now();
  }

  async hear(line: string): Promise<void> {
    const message = readToHost(line);
    if (message === null) throw new LockstepError('E_MESSAGE', 'the launcher sent what is not understood');
    switch (message.kind) {
      case 'beat':
        return undefined;
      case 'prepare':
        return this.prepare(message);
      case 'start':
        return this.start(message);
      case 'kill':
        return this.workers?.kill(message.pid);
      case 'end':
        return this.end(message.isUrgent);
    }
  }

  look(): void {
    if (performance.now() - this.heardAt > this.graceMs) void this.end(false);
  }

  private async prepare(wish: Prepare): Promise<void> {
    if (wish.version !== CHANNEL_VERSION || wish.lockstep !== LOCKSTEP_VERSION) {
      throw new LockstepError(
        'E_PROTOCOL_VERSION',
        `this host has Lockstep ${LOCKSTEP_VERSION}, the launcher ${wish.lockstep}`,
        {
          remedy: 'Install the same Lockstep on both.',
        },
      );
    }
    if (process.platform !== 'linux') {
      throw new LockstepError('E_NOT_SUPPORTED', `a launch has no hosts with ${process.platform}`, {
        remedy: 'Use Linux, or start `lockstep worker` there by hand.',
      });
    }
    this.graceMs = wish.graceMs;
    this.adapter = wish.adapter;
    this.place = await takePlace(wish.launch, () => void this.end(true));
    const engine = await chooseEngineHere(wish.engine, wish.adapter);
    this.slots = wish.slots ?? (await workersHere(engine.engine, wish.adapter));
    tell({
      kind: 'prepared',
      host: hostname(),
      pid: process.pid,
      slots: this.slots,
      engine: { ...engine, said: [...engine.said] },
    });
  }

  private async start(order: Start): Promise<void> {
    const { definition } = await loadJob(order.job);
    await setUp({ dataSet: definition.data, engine: order.engine });
    if (this.isEnding) return;
    const { tokenFile, tls } = this.keep(order);
    const environment = {
      gpus: await gpusFor(order.engine),
      adapter: this.adapter,
      pin: order.pin,
      // What is for the supervisor alone is not to make supervisors of its workers.
      secrets: { ...order.environment, [SUPERVISOR]: String(process.pid), LOCKSTEP_NPROC_PER_NODE: '' },
    };
    const workers = watchWorkers({
      launch: {
        entry: ENTRY,
        coordinatorUrl: order.coordinatorUrl,
        tokenFile,
        flags: [...order.flags, ...tls],
        job: order.job,
        logDirectory: null,
        onLine: (localRank, text) => tell({ kind: 'line', localRank, text: text.slice(0, MAX_WORKER_LINE) }),
        localWorldSize: this.slots,
        environment: (localRank) => environmentOf(environment, localRank),
        placeOf: placesFor(environment, this.slots),
      },
      count: this.slots,
      restartLimit: order.restartLimit,
      say: (message) => tell({ kind: 'said', message }),
      onFewer: (slots) => tell({ kind: 'fewer', slots }),
    });
    this.workers = workers;
    void workers.ended.then(({ code, isThrough }) => {
      if (isThrough) tell({ kind: 'through' });
      if (!this.isEnding) this.finish(code);
    });
  }

  /** The secrets as files that nobody else can read. */
  private keep({ token, tls }: Start): { readonly tokenFile: string; readonly tls: string[] } {
    const directory = mkdtempSync(join(tmpdir(), 'lockstep-'));
    this.directory = directory;
    const write = (name: string, text: string): string => {
      const file = join(directory, name);
      writeFileSync(file, text, { mode: 0o600 });
      return file;
    };
    const flags = Object.entries(tls).flatMap(([what, pem]) =>
      pem === null ? [] : [`--tls-${what}`, write(`${what}.pem`, pem)],
    );
    return { tokenFile: write('token', `${token}\n`), tls: flags };
  }

  /** Ends the workers, then this. `isUrgent`: they get no time for what they are at. */
  async end(isUrgent: boolean, code = 0): Promise<void> {
    if (isUrgent) this.workers?.signal('SIGKILL');
    if (this.isEnding) return;
    this.isEnding = true;
    await this.workers?.end();
    this.finish(code);
  }

  private finish(code: number): void {
    this.isEnding = true;
    if (this.directory !== null) rmSync(this.directory, { recursive: true, force: true });
    this.place?.close();
    this.resolveEnded(code);
  }
}

/** Runs to the end of the host's part; resolves to the exit code. */
export async function superviseHost(): Promise<number> {
  const supervisor = new Supervisor();
  const lines = new Lines();
  const fail = async (error: unknown): Promise<void> => {
    const told = error instanceof LockstepError ? error : new LockstepError('E_HOST_LOST', String(error));
    tell({ kind: 'refused', code: told.code, message: told.message, remedy: told.remedy ?? '' });
    await supervisor.end(true, 1);
  };
  /** One after another: a start waits for what was prepared. */
  let orders = Promise.resolve();
  process.stdin.on('data', (chunk: Buffer) => {
    supervisor.heard();
    for (const line of lines.take(chunk)) {
      const isEnd = readToHost(line)?.kind === 'end';
      if (isEnd) void supervisor.hear(line).catch(fail);
      else orders = orders.then(() => supervisor.hear(line)).catch(fail);
    }
  });
  process.stdin.on('end', () => void supervisor.end(false));
  process.stdin.on('error', () => void supervisor.end(false));
  const look = setInterval(() => supervisor.look(), LOOK_EVERY_MS);
  const code = await supervisor.ended;
  clearInterval(look);
  process.stdin.destroy();
  return code;
}
