// Starts the heart of a control link in a thread of its own, and tells the link when it stops. What it is for: protocol/heartbeat.ts.

import { Worker } from 'node:worker_threads';
import type { FromHeart, HeartTarget } from './thread.ts';

/** After the heart's connection has ended, how long the link may take to hear what was said before it ends, too. */
const GRACE_MS = 2000;

export interface Heart {
  close(): Promise<void>;
}

/** `onStop` is told once, why, unless the heart was closed here. */
export type StartHeart = (target: HeartTarget, onStop: (because: string) => void) => Heart;

export const startHeart: StartHeart = (target, onStop) => {
  const thread = new Worker(new URL('thread.mjs', import.meta.url), { workerData: target, execArgv: [] });
  thread.unref();
  let isOver = false;
  const stop = (because: string): void => {
    if (isOver) return;
    isOver = true;
    onStop(because);
  };
  thread.on('message', ({ kind, because }: FromHeart) => {
    if (kind === 'silent') stop(because);
    else setTimeout(() => stop(`the heartbeat ended (${because})`), GRACE_MS).unref();
  });
  thread.on('error', (error) => stop(`the heart failed: ${String(error)}`));
  return {
    close: async () => {
      isOver = true;
      await thread.terminate();
    },
  };
};
