// What the launcher and the coordinator process that it started say to each other over their IPC channel. Both are started
// from one checkout, so these are plain types with a light check; nothing of the network passes here.

import type { WorkerEnd } from './worker-processes.ts';

/** The coordinator listens: workers can be started. */
export interface Listening {
  readonly kind: 'listening';
  readonly url: string;
  readonly tokenFile: string;
  readonly logDirectory: string;
  readonly workers: number;
}

export type ToCoordinator =
  | { readonly kind: 'stop'; readonly because: string }
  | { readonly kind: 'worker-ended'; readonly end: WorkerEnd };

function kindOf(raw: unknown): unknown {
  return typeof raw === 'object' && raw !== null && 'kind' in raw ? raw.kind : undefined;
}

export function fromCoordinator(raw: unknown): Listening | null {
  return kindOf(raw) === 'listening' ? (raw as Listening) : null;
}

export function fromLauncher(raw: unknown): ToCoordinator | null {
  const kind = kindOf(raw);
  return kind === 'stop' || kind === 'worker-ended' ? (raw as ToCoordinator) : null;
}
