// The worker processes of one machine: started with their ranks and thread limits in the environment, bound to processors where that is
// asked for, each with a log file or a reader of its lines, watched to their end, never outliving the launcher. A shell; what an end
// means is the coordinator's to decide, or the supervisor's of a host.
//
// Workers get a process group of their own, so that Ctrl-C in the terminal reaches only the launcher, which then asks for an
// orderly stop. Should the launcher itself be killed, the coordinator ends the run and the workers end with their link.

import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { appendFileSync, closeSync, openSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { startedOn } from './affinity.ts';
import { Lines } from './launch/channel.ts';
import { isEngineNoise } from './engine-noise.ts';
import type { Place } from './pinning.ts';

/** Lines of a log shown with a failure, and the bytes of its end that they are looked for in. */
const LAST_LINES = 12;
const TAIL_BYTES = 16 * 1024;
/** Time that a worker gets to end by itself when the run is over, before SIGTERM, and again before SIGKILL. */
const GRACE_MS = 5000;

/** Set for a worker that shares its processors with fewer workers than there are on its machine, to how many. */
export const SHARERS = 'LOCKSTEP_PROCESSOR_SHARERS';
/** Set for a worker that has to end with the process that started it, to that one's pid. */
export const SUPERVISOR = 'LOCKSTEP_SUPERVISOR';

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
  /** Null: the coordinator asks for none. */
  readonly tokenFile: string | null;
  /** Further flags of `lockstep worker`. */
  readonly flags: readonly string[];
  /** The job as the command line named it; null: as the coordinator does. */
  readonly job: string | null;
  /** Null: what they write goes to `onLine` alone. */
  readonly logDirectory: string | null;
  /** Told of each line that a worker writes, besides its log file; null: the file is all, and costs the launcher nothing. */
  readonly onLine: ((localRank: number, line: string) => void) | null;
  readonly localWorldSize: number;
  /** Extra environment by local rank: the engine's thread limits, its GPU. */
  readonly environment: (localRank: number) => Readonly<Record<string, string>>;
  /** Null: where the system likes. */
  readonly placeOf: (localRank: number) => Place | null;
}

function withoutNoise(lines: readonly string[]): string[] {
  return lines.filter((line) => line.trim() !== '' && !isEngineNoise(line)).slice(-LAST_LINES);
}

export function lastLinesOf(logFile: string): string[] {
  const { size } = statSync(logFile);
  const text = readFileSync(logFile)
    .subarray(Math.max(0, size - TAIL_BYTES))
    .toString('utf8');
  return withoutNoise(text.split('\n'));
}

/** A log on a disk without room is no reason to stop training. */
function append(logFile: string, line: string): void {
  try {
    appendFileSync(logFile, `${line}\n`);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error)) throw error;
  }
}

/** Gives the lines of both streams to `onLine`; resolves when both have ended. */
async function read(child: ChildProcess, onLine: (line: string) => void): Promise<void> {
  const streams = [child.stdout, child.stderr].flatMap((stream) => stream ?? []);
  await Promise.all(
    streams.map(async (stream) => {
      const lines = new Lines();
      stream.on('data', (chunk: Buffer) => {
        for (const line of lines.take(chunk)) onLine(line);
      });
      await new Promise<void>((resolve) => {
        stream.once('close', resolve);
      });
      for (const line of lines.end()) onLine(line);
    }),
  );
}

export class WorkerProcesses {
  private readonly running = new Map<ChildProcess, Promise<void>>();
  private readonly delayed = new Set<NodeJS.Timeout>();

  /** Starts worker `localRank`, `waitMs` from now; `onEnd` is called once, however it ends. */
  start(launch: WorkerLaunch, localRank: number, onEnd: (end: WorkerEnd) => void, waitMs = 0): void {
    if (waitMs === 0) {
      this.startNow(launch, localRank, onEnd);
      return;
    }
    const timer = setTimeout(() => {
      this.delayed.delete(timer);
      this.startNow(launch, localRank, onEnd);
    }, waitMs);
    this.delayed.add(timer);
  }

  private startNow(launch: WorkerLaunch, localRank: number, onEnd: (end: WorkerEnd) => void): void {
    const { entry, coordinatorUrl, tokenFile, job, flags, onLine, logDirectory } = launch;
    const logFile = logDirectory === null ? '' : join(logDirectory, `worker-${localRank}.log`);
    const log = onLine === null && logFile !== '' ? openSync(logFile, 'a') : null;
    const place = launch.placeOf(localRank);
    const args = [
      entry,
      'worker',
      '--coordinator',
      coordinatorUrl,
      ...(tokenFile === null ? [] : ['--token-file', tokenFile]),
      ...(job === null ? [] : ['--job', job]),
      ...flags,
    ];
    const stdio: StdioOptions = log === null ? ['ignore', 'pipe', 'pipe'] : ['ignore', log, log];
    const start = (): ChildProcess =>
      spawn(process.execPath, args, {
        detached: true,
        stdio,
        env: {
          ...process.env,
          ...launch.environment(localRank),
          ...(place !== null && { [SHARERS]: String(place.sharers) }),
          LOCAL_RANK: String(localRank),
          LOCAL_WORLD_SIZE: String(launch.localWorldSize),
        },
      });
    const child = place === null ? start() : startedOn(place.processors, start);
    if (log !== null) closeSync(log);
    const tail: string[] = [];
    const hasRead =
      log === null
        ? read(child, (line) => {
            tail.push(line);
            if (tail.length > 2 * LAST_LINES) tail.shift();
            // One line after another, in order, whatever reads them besides.
            if (logFile !== '') append(logFile, line);
            onLine?.(localRank, line);
          })
        : Promise.resolve();
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
      child.on('exit', (code, signal) => {
        if (log !== null) tell(code, signal, lastLinesOf(logFile));
        else void hasRead.then(() => tell(code, signal, withoutNoise(tail)));
      });
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

  /** Waits for all to end; after a grace they are asked to, after another they are made to. Nobody is started any more. */
  async end(): Promise<void> {
    for (const timer of this.delayed) clearTimeout(timer);
    this.delayed.clear();
    const all = Promise.all(this.running.values());
    const terminate = setTimeout(() => this.signal('SIGTERM'), GRACE_MS);
    const kill = setTimeout(() => this.signal('SIGKILL'), 2 * GRACE_MS);
    await all;
    clearTimeout(terminate);
    clearTimeout(kill);
  }
}
