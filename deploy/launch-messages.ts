// What the launcher and the coordinator process that it started say to each other over their IPC channel. Both are started
// from one checkout, so these are plain types with a light check; nothing of the network passes here.

import type { ChildProcess } from 'node:child_process';
import type { WorkerEnd } from './worker-processes.ts';

/** By how a run ended: a coordinator's, and its workers'. */
export const EXIT_CODES = { done: 0, failed: 1, stopped: 130 } as const;

/** Exit code of a coordinator that lost its NATS server (EX_TEMPFAIL): its workers wait for another. Only the launcher sees it. */
export const NATS_LOST_EXIT = 75;

/** Exit code of a coordinator that another one has replaced. Only the launcher sees it: the run goes on. */
export const FENCED_EXIT = 76;

/**
 * Set for a coordinator that takes the place of another, to that one's pid: it has died, or does not answer and is to be fenced off. Its
 * workers are there.
 */
export const TAKEOVER = 'LOCKSTEP_TAKEOVER';

/** The coordinator listens: workers can be started. */
export interface Listening {
  readonly kind: 'listening';
  /** Where workers join. */
  readonly url: string;
  /** Its own address, whatever workers join by. */
  readonly address: string;
  readonly tokenFile: string;
  readonly runDirectory: string;
  readonly logDirectory: string;
  readonly workers: number;
}

/** A worker process is to be started anew. */
export interface StartWorker {
  readonly kind: 'start-worker';
  readonly localRank: number;
  /** Which one since its last step, from 1: the launcher waits the longer. */
  readonly attempt: number;
}

/** A worker process is to be killed: it does not hear any more. */
export interface EndWorker {
  readonly kind: 'end-worker';
  readonly host: string;
  readonly localRank: number;
  readonly pid: number;
}

/** Said at every beat (protocol/heartbeat.ts). */
export interface Alive {
  readonly kind: 'alive';
}

export type FromCoordinator = Listening | StartWorker | EndWorker | Alive;

/** The first message to one that takes over; with it comes the socket that the first one listened on, where there is one. */
export interface Door {
  readonly kind: 'door';
}

/**
 * Set for a coordinator whose launcher does not watch each worker process: others do, on other hosts. It waits for as many as it is told
 * to expect, and takes whoever comes.
 */
export const WORKERS_ELSEWHERE = 'LOCKSTEP_WORKERS_ELSEWHERE';

export type ToCoordinator =
  | { readonly kind: 'stop'; readonly because: string }
  | { readonly kind: 'worker-ended'; readonly end: WorkerEnd }
  /** So many workers are to be waited for before training starts. */
  | { readonly kind: 'expect'; readonly workers: number }
  /** To be shown: of the launch itself. */
  | { readonly kind: 'notice'; readonly level: 'info' | 'warn'; readonly label: string; readonly message: string }
  /** To be shown: what a worker wrote; `worker`: its local rank, after its host's name where there are several. */
  | { readonly kind: 'worker-line'; readonly worker: string; readonly text: string };

function kindOf(raw: unknown): unknown {
  return typeof raw === 'object' && raw !== null && 'kind' in raw ? raw.kind : undefined;
}

const FROM_COORDINATOR: ReadonlySet<string> = new Set<FromCoordinator['kind']>([
  'listening',
  'start-worker',
  'end-worker',
  'alive',
]);

export function fromCoordinator(raw: unknown): FromCoordinator | null {
  const kind = kindOf(raw);
  return typeof kind === 'string' && FROM_COORDINATOR.has(kind) ? (raw as FromCoordinator) : null;
}

const FROM_LAUNCHER: ReadonlySet<string> = new Set<ToCoordinator['kind']>([
  'stop',
  'worker-ended',
  'expect',
  'notice',
  'worker-line',
]);

export function fromLauncher(raw: unknown): ToCoordinator | null {
  const kind = kindOf(raw);
  return typeof kind === 'string' && FROM_LAUNCHER.has(kind) ? (raw as ToCoordinator) : null;
}

/**
 * Sends to the coordinator what it may no longer be there to hear. A coordinator that is ending closes its end of the channel
 * before this process learns of it; what is lost then is lost on nobody, and must not become an 'error' of the launcher.
 */
export function tellCoordinator(coordinator: ChildProcess, message: ToCoordinator): void {
  if (coordinator.connected) coordinator.send(message, () => undefined);
}
