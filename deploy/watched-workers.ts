// Workers of one host that are kept alive without the coordinator's word: one that fails is started anew after a wait that doubles, one
// that fails too often in a row, or by bad input, is given up. One that was dismissed has ended well, whatever the run came to. (Where the
// launcher and the coordinator are on one machine, the coordinator decides: core/run.ts.)

import { FailuresInARow, waitAfter } from './backoff.ts';
import { WORKER_BACKOFF } from './crew.ts';
import { WorkerProcesses, type WorkerEnd, type WorkerLaunch } from './worker-processes.ts';

/** Exit code for what another attempt would meet again. */
const BAD_INPUT = 2;
/** What a worker writes last whose coordinator has sent it home. */
const DISMISSED = 'dismissed: ';

export interface WatchedOptions {
  readonly launch: WorkerLaunch;
  readonly count: number;
  readonly restartLimit: number;
  /** What happens to them, in sentences. */
  readonly say: (message: string) => void;
  /** So many are left, after one was given up. */
  readonly onFewer: (left: number) => void;
}

export interface WatchedEnd {
  /** What the last of them ended with; 1 where one was given up. */
  readonly code: number;
  /** Each was dismissed. */
  readonly isThrough: boolean;
}

export interface WatchedWorkers {
  /** All have ended. */
  readonly ended: Promise<WatchedEnd>;
  /** Lets them end by themselves for a moment, then ends them; nobody is started any more. */
  end(): Promise<void>;
  signal(signal: NodeJS.Signals): void;
  /** Kills the one of that pid, if it is one of them. */
  kill(pid: number): void;
}

export function watchWorkers({ launch, count, restartLimit, say, onFewer }: WatchedOptions): WatchedWorkers {
  const processes = new WorkerProcesses();
  const failures = new FailuresInARow<number>();
  /** Neither dismissed nor given up. */
  let left = count;
  let kept = count;
  let isEnding = false;
  let lastCode = 0;
  let resolveEnded: (end: WatchedEnd) => void = () => {};
  const ended = new Promise<WatchedEnd>((resolve) => {
    resolveEnded = resolve;
  });

  const start = (localRank: number, waitMs: number): void => {
    const startedAt = performance.now() + waitMs;
    processes.start(launch, localRank, (end) => onEnd(end, performance.now() - startedAt), waitMs);
  };
  const onEnd = (end: WorkerEnd, livedMs: number): void => {
    const { localRank, exitCode } = end;
    const isDismissed = exitCode === 0 || end.lastLines.some((line) => line.startsWith(DISMISSED));
    if (isDismissed) lastCode = exitCode ?? 0;
    const often = isDismissed || isEnding ? 0 : failures.failed(localRank, livedMs);
    if (often > 0 && often <= restartLimit && exitCode !== BAD_INPUT) {
      const waitMs = waitAfter(often, WORKER_BACKOFF);
      say(`worker ${localRank} ${howOf(end)}; it is started anew${waitMs === 0 ? '' : ` in ${waitMs / 1000} s`}`);
      start(localRank, waitMs);
      return;
    }
    left--;
    if (often > 0) {
      kept--;
      say(`worker ${localRank} ${howOf(end)}; it is given up`);
      if (left > 0) onFewer(kept);
    }
    if (left === 0) resolveEnded({ code: kept === count ? lastCode : 1, isThrough: kept === count });
  };
  for (let localRank = 0; localRank < count; localRank++) start(localRank, 0);

  return {
    ended,
    end: async () => {
      isEnding = true;
      await processes.end();
    },
    signal: (signal) => processes.signal(signal),
    kill: (pid) => processes.kill(pid),
  };
}

function howOf({ exitCode, signal, lastLines }: WorkerEnd): string {
  const how = signal === null ? `ended with code ${exitCode}` : `was killed by ${signal}`;
  const reason = lastLines.find((line) => line.startsWith('lockstep:')) ?? lastLines.at(-1);
  return reason === undefined ? how : `${how}: ${reason}`;
}
