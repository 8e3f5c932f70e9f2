// `lockstep train JOB`: all of it on this machine. Checks the wish, sets up what is missing, starts one coordinator and N
// workers as processes of their own, watches them, and ends with the coordinator's exit code. It decides nothing about the
// training: it tells the coordinator when a worker process ends or somebody wants to stop, and sees that no process is left.

import { spawn, type ChildProcess, type SendHandle } from 'node:child_process';
import type { NatsServer } from '../nats/server.ts';
import { BEAT_EVERY_MS, BUSY_SILENCE } from '../protocol/heartbeat.ts';
import { Silence } from '../protocol/silence.ts';
import { ENTRY, gpusFor, localCrew, type Crew } from './crew.ts';
import { chooseEngineHere } from './engines.ts';
import { loadJob } from './job-file.ts';
import { ENGINE_CHOICE, type EngineChoice } from './ladder.ts';
import {
  FENCED_EXIT,
  fromCoordinator,
  NATS_LOST_EXIT,
  TAKEOVER,
  tellCoordinator,
  type Door,
  type Listening,
  type ToCoordinator,
} from './launch-messages.ts';
import { isNatsBack, natsEnvironment, natsServerOf, tryNats } from './nats.ts';
import { resolveBatch, type TrainOptions } from './options.ts';
import { argumentsOf } from './options/values.ts';
import { setUp } from './setup/steps.ts';
import { readTls } from './tls-files.ts';
import { readKey } from './token.ts';

/**
 * A signal this long after the first gives up on an orderly stop. One Ctrl-C may come twice at once: from the terminal to the
 * whole process group, and passed on by npm.
 */
const IMPATIENT_AFTER_MS = 1000;
/** A coordinator that lived for so long did not die of how it begins. */
const STEADY_MS = 10_000;

/** Checks the wish, sets up what is missing, runs it; `args` are those of the command line, without `train`. */
export async function train(options: TrainOptions, args: readonly string[]): Promise<number> {
  const { definition } = await loadJob(options.job);
  // Before anything is fetched; a run that is resumed has its own batch.
  if (!options.flags.resume) resolveBatch(options.flags, definition);
  const nats = natsServerOf(options.flags);
  if (nats !== null) await tryNats(nats);
  const { engine, adapter, logFormat } = options.flags;
  readTls(options.flags, Date.now());
  if (options.flags.tokenFile !== undefined) readKey(options.flags.tokenFile);
  const choice = await chooseEngineHere(engine, adapter ?? null);
  await setUp({ dataSet: definition.data, engine: choice.engine, json: logFormat === 'json' });
  const gpus = await gpusFor(choice.engine);
  // Over NATS the certificate is the page's alone: nor is a worker to find it in the environment.
  const noTls = { LOCKSTEP_TLS_CERT: '', LOCKSTEP_TLS_KEY: '', LOCKSTEP_TLS_CA: '', LOCKSTEP_TLS_CLIENT_CA: '' };
  const secrets = nats === null ? {} : { ...natsEnvironment(options.flags), ...noTls };
  const { restartLimit, waitLimit, pin, workerOutput } = options.flags;
  const crew = localCrew({
    job: options.job,
    flags: workerFlags(options),
    environment: { gpus, adapter: adapter ?? null, pin, secrets },
    isShown: workerOutput === 'both',
  });
  return supervise({ args, environment: {}, restartLimit, nats: natsBack(nats, waitLimit), choice, crew });
}

type NatsBack = { isBack(isInterrupted: () => boolean): Promise<boolean> } | null;

/** Over NATS: waits for a server that was lost. */
export function natsBack(nats: NatsServer | null, waitLimit: number): NatsBack {
  return nats === null ? null : { isBack: async (isOver) => isNatsBack(nats, waitLimit, isOver) };
}

/** Then --tls-ca says whom to trust there. */
function isNatsOverTls({ transport, natsUrl }: TrainOptions['flags']): boolean {
  return transport === 'nats' && natsUrl?.tls === true;
}

/** What its workers are told as the coordinator is. */
function workerFlags({ flags }: TrainOptions): string[] {
  const { localTransport, transport, tlsCert, tlsKey, tlsCa, tlsClientCa } = flags;
  const given = { '--tls-cert': tlsCert, '--tls-key': tlsKey, '--tls-ca': tlsCa, '--tls-client-ca': tlsClientCa };
  const tls = transport === 'nats' ? { '--tls-ca': isNatsOverTls(flags) ? tlsCa : undefined } : given;
  return argumentsOf({ '--local-transport': localTransport, ...tls });
}

/** Starts and supervises the processes of a run; resolves to the exit code of the contract: 0, 1, 2 or 130. */
export async function supervise(launch: {
  /** Arguments of `lockstep coordinator`: the same as those of `lockstep train`. */
  readonly args: readonly string[];
  /** The coordinator's, besides this process's own. */
  readonly environment: Readonly<Record<string, string>>;
  readonly choice: EngineChoice;
  /** Over NATS: waits for a server that was lost; false when it does not come back in time, or nobody wants it to. */
  readonly nats: NatsBack;
  /** How often in a row a coordinator is replaced that did not live for long. */
  readonly restartLimit: number;
  readonly crew: Crew;
}): Promise<number> {
  const { crew } = launch;
  /** The first one's, which later ones take over. */
  let listening: Listening | null = null;
  /** The socket that the first one listens on: it stays open, so that others have the same address, whatever became of it. */
  let door: SendHandle | null = null;
  /** Those that did not answer and were replaced: they may wake, and find themselves fenced off. */
  const older: ChildProcess[] = [];
  /** How one of them ended the run, that woke before it was replaced. */
  let endedByOlder: number | null = null;
  const leaveBehind = (hung: ChildProcess): void => {
    older.push(hung);
    hung.once('exit', (code) => {
      if (code === null || code === FENCED_EXIT) return;
      endedByOlder = code;
      coordinator.kill('SIGKILL');
    });
  };
  const startCoordinator = (before: ChildProcess | null): ChildProcess => {
    const { args, choice } = launch;
    const takeover =
      listening === null
        ? []
        : ['--resume', '--run-dir', listening.runDirectory, '--listen', new URL(listening.address).host];
    const started = spawn(process.execPath, [ENTRY, 'coordinator', ...args, ...takeover], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env: {
        ...process.env,
        ...launch.environment,
        [ENGINE_CHOICE]: JSON.stringify(choice),
        ...(before !== null && { [TAKEOVER]: String(before.pid) }),
      },
    });
    if (before !== null) started.send({ kind: 'door' } satisfies Door, door ?? undefined, () => undefined);
    return started;
  };
  let coordinator = startCoordinator(null);
  /** What no coordinator has been told of yet, because none listened. */
  const untold: ToCoordinator[] = [];
  let isHeard = false;
  const tell = (message: ToCoordinator): void => {
    if (isHeard) tellCoordinator(coordinator, message);
    else untold.push(message);
  };

  let firstSignalMs: number | null = null;
  const onSignal = (signal: NodeJS.Signals): void => {
    const now = performance.now();
    firstSignalMs ??= now;
    tell({ kind: 'stop', because: signal === 'SIGINT' ? 'Ctrl-C' : signal });
    if (now - firstSignalMs > IMPATIENT_AFTER_MS) {
      crew.kill();
      coordinator.kill('SIGKILL');
    }
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  process.on('SIGHUP', onSignal);

  const onMessage = (raw: unknown, handle?: SendHandle): void => {
    const message = fromCoordinator(raw);
    if (message === null || message.kind === 'alive') return;
    if (message.kind === 'start-worker') {
      crew.startWorker(message.localRank, message.attempt);
      return;
    }
    if (message.kind === 'end-worker') {
      crew.endWorker(message);
      return;
    }
    isHeard = true;
    for (const one of untold.splice(0)) tell(one);
    // Another has taken over: its workers are there.
    if (listening !== null) {
      closeDoor(handle);
      return;
    }
    listening = message;
    door = handle ?? null;
    crew.begin(message, tell);
  };

  try {
    for (let restarts = 0; ; restarts++) {
      const startedAt = performance.now();
      coordinator.on('message', onMessage);
      const { code, signal, hung } = await endOrSilenceOf(coordinator);
      coordinator.off('message', onMessage);
      if (endedByOlder !== null) return endedByOlder;
      isHeard = false;
      untold.splice(0, untold.length, ...crew.untold());
      if (code === NATS_LOST_EXIT && launch.nats !== null && firstSignalMs === null) {
        if (!(await launch.nats.isBack(() => firstSignalMs !== null))) return firstSignalMs === null ? 1 : 130;
        coordinator = startCoordinator(coordinator);
        continue;
      }
      if (code !== null) return code;
      if (firstSignalMs !== null) return 130;
      if (performance.now() - startedAt > STEADY_MS) restarts = 0;
      const isToEnd = listening === null || restarts >= launch.restartLimit;
      const said =
        hung === null
          ? `lockstep: the coordinator was killed by ${String(signal)}`
          : `lockstep: the coordinator (process ${coordinator.pid}) does not answer: ${hung}`;
      if (hung !== null) leaveBehind(coordinator);
      process.stderr.write(
        isToEnd ? `${said}; \`--resume\` goes on from its last checkpoint\n` : `${said}; another takes over\n`,
      );
      if (isToEnd) return 1;
      coordinator = startCoordinator(coordinator);
    }
  } finally {
    for (const process of older) process.kill('SIGKILL');
    closeDoor(door);
    await crew.end();
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
    process.off('SIGHUP', onSignal);
  }
}

interface CoordinatorEnd {
  readonly code: number | null;
  readonly signal: string | null;
  /** Why it is taken for hung, where it has not ended. */
  readonly hung: string | null;
}

/** Its end; or, once it listens, that it says nothing for longer than its past explains (protocol/silence.ts). */
async function endOrSilenceOf(process: ChildProcess): Promise<CoordinatorEnd> {
  return new Promise((resolve) => {
    let silence: Silence | null = null;
    const onMessage = (raw: unknown): void => {
      if (fromCoordinator(raw)?.kind === 'listening') silence ??= new Silence(BUSY_SILENCE, performance.now());
      silence?.heard(performance.now());
    };
    const end = (how: CoordinatorEnd): void => {
      clearInterval(timer);
      process.off('message', onMessage);
      resolve(how);
    };
    const timer = setInterval(() => {
      const nowMs = performance.now();
      if (silence?.isSilent(nowMs) === true) end({ code: null, signal: null, hung: silence.complaint(nowMs) });
    }, BEAT_EVERY_MS);
    process.on('message', onMessage);
    process.once('exit', (code, signal) => end({ code, signal, hung: null }));
  });
}

/** A socket that came from another process, of a kind that Node does not document. */
function closeDoor(handle: SendHandle | null | undefined): void {
  if (handle !== null && typeof handle === 'object' && 'close' in handle) handle.close();
}
