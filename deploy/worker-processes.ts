// The worker processes of one machine: started with their ranks and thread limits in the environment, each with a log file of
// its own, watched to their end, never outliving the launcher. A shell; what an end means is the coordinator's to decide.
//
// Workers get a process group of their own, so that Ctrl-C in the terminal reaches only the launcher, which then asks for an
// orderly stop. Should the launcher itself be killed, the coordinator ends the run and the workers end with their link.

import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { isEngineNoise } from './engine-noise.ts';

/** Lines of a log shown with a failure, and the bytes of its end that they are looked for in. */
const LAST_LINES = 12;
const TAIL_BYTES = 16 * 1024;
/** Time that a worker gets to end by itself when the run is over, before SIGTERM, and again before SIGKILL. */
const GRACE_MS = 5000;

export interface WorkerEnd {
  readonly localRank: number;
  readonly pid: number;
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly lastLines: readonly string[];
  readonly logFile: string;
}

export interface WorkerLaunch {
  /** The `lockstep` entry file. */
  readonly entry: string;
  readonly coordinatorUrl: string;
  readonly tokenFile: string;
  /** Further flags of `lockstep worker`. */
  readonly flags: readonly string[];
  /** The job as the command line named it. */
  readonly job: string;
  readonly logDirectory: string;
  readonly localWorldSize: number;
  /** Extra environment by local rank: the engine's thread limits, its GPU. */
  readonly environment: (localRank: number) => Readonly<Record<string, string>>;
}

export function lastLinesOf(logFile: string): string[] {
  const { size } = statSync(logFile);
  const text = readFileSync(logFile)
    .subarray(Math.max(0, size - TAIL_BYTES))
    .toString('utf8');
  return text
    .split('\n')
    .filter((line) => line.trim() !== '' && !isEngineNoise(line))
    .slice(-LAST_LINES);
}

export class WorkerProcesses {
  private readonly running = new Map<ChildProcess, Promise<void>>();

  /** Starts worker `localRank`; `onEnd` is called once, however it ends. */
  start(launch: WorkerLaunch, localRank: number, onEnd: (end: WorkerEnd) => void): void {
    const logFile = join(launch.logDirectory, `worker-${localRank}.log`);
    const log = openSync(logFile, 'a');
    const child = spawn(
      process.execPath,
      [
        launch.entry,
        'worker',
        '--coordinator',
        launch.coordinatorUrl,
        '--token-file',
        launch.tokenFile,
        '--job',
        launch.job,
        ...launch.flags,
      ],
      {
        detached: true,
        stdio: ['ignore', log, log],
        env: {
          ...process.env,
          ...launch.environment(localRank),
          LOCAL_RANK: String(localRank),
          LOCAL_WORLD_SIZE: String(launch.localWorldSize),
        },
      },
    );
    closeSync(log);
    const ended = new Promise<void>((resolve) => {
      let told = false;
      const tell = (exitCode: number | null, signal: NodeJS.Signals | null, lastLines: readonly string[]): void => {
        if (told) return;
        told = true;
        this.running.delete(child);
        onEnd({ localRank, pid: child.pid ?? 0, exitCode, signal, lastLines, logFile });
        resolve();
      };
      child.on('error', (error) => tell(null, null, [error.message]));
      child.on('exit', (code, signal) => tell(code, signal, lastLinesOf(logFile)));
    });
    this.running.set(child, ended);
  }

  get count(): number {
    return this.running.size;
  }

  /** Kills the one of that pid, if it still runs. */
  kill(pid: number): void {
    for (const child of this.running.keys()) if (child.pid === pid) child.kill('SIGKILL');
  }

  signal(signal: NodeJS.Signals): void {
    for (const child of this.running.keys()) child.kill(signal);
  }

  /** Waits for all to end; after a grace they are asked to, after another they are made to. */
  async end(): Promise<void> {
    const all = Promise.all(this.running.values());
    const terminate = setTimeout(() => this.signal('SIGTERM'), GRACE_MS);
    const kill = setTimeout(() => this.signal('SIGKILL'), 2 * GRACE_MS);
    await all;
    clearTimeout(terminate);
    clearTimeout(kill);
  }
}
