// Runs the real `lockstep` command as a real process, and waits for what it writes or for its end; never for a time.

import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach } from 'vitest';
import type { RunReport } from '../../protocol/report.ts';

export const ENTRY = fileURLToPath(new URL('../../deploy/lockstep.mjs', import.meta.url));

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class LockstepProcess {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stdout = '';
  stderr = '';
  private watchers: { pattern: RegExp; resolve: (match: RegExpExecArray) => void; reject: (error: Error) => void }[] =
    [];

  constructor(args: readonly string[], options: { env?: Record<string, string>; cwd?: string; node?: string } = {}) {
    this.child = spawn(options.node ?? process.execPath, [ENTRY, ...args], {
      cwd: options.cwd,
      env: { ...process.env, NO_COLOR: '1', ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.child.stdout?.on('data', (chunk: Buffer) => {
      this.stdout += chunk.toString('utf8');
      this.look();
    });
    this.child.stderr?.on('data', (chunk: Buffer) => {
      this.stderr += chunk.toString('utf8');
    });
    this.ended = new Promise((resolve, reject) => {
      this.child.on('error', reject);
      this.child.on('close', (code, signal) => {
        const { stdout, stderr } = this;
        for (const { pattern, reject: fail } of this.watchers) {
          fail(new Error(`ended (${code ?? signal}) before it wrote ${String(pattern)}:\n${stdout}\n${stderr}`));
        }
        resolve({ code, signal, stdout, stderr });
      });
    });
  }

  private look(): void {
    this.watchers = this.watchers.filter(({ pattern, resolve }) => {
      const match = pattern.exec(this.stdout);
      if (match !== null) resolve(match);
      return match === null;
    });
  }

  /** Resolves when its standard output matches; rejects when it ends without. */
  wrote(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      this.watchers.push({ pattern, resolve, reject });
      this.look();
    });
  }
}

const started: LockstepProcess[] = [];
afterEach(async () => {
  // A test that failed in the middle leaves nothing running.
  for (const { child, ended } of started.splice(0)) {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    await ended;
  }
});

export function lockstep(
  args: readonly string[],
  options?: ConstructorParameters<typeof LockstepProcess>[1],
): LockstepProcess {
  const process = new LockstepProcess(args, options);
  started.push(process);
  return process;
}

/** Their results in order, two of them at a time: while one's launcher looks around the other's workers compute. For what does not depend on time. */
export async function twoAtATime<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const left = [...items.entries()];
  const lane = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) results[next[0]] = await work(next[1]);
  };
  await Promise.all([lane(), lane()]);
  return results;
}

/** A directory that is removed when the test is over. */
export class Scratch {
  readonly path = mkdtempSync(join(tmpdir(), 'lockstep-test-'));
  dir(name: string): string {
    return join(this.path, name);
  }
  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

export function reportIn(runDirectory: string): RunReport {
  return JSON.parse(readFileSync(join(runDirectory, 'report.json'), 'utf8')) as RunReport;
}

/** Pids of living processes whose command line names `text`. Linux. */
export function processesNaming(text: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== process.pid)
    .filter((pid) => {
      const file = `/proc/${pid}/cmdline`;
      try {
        return existsSync(file) && readFileSync(file, 'utf8').includes(text);
      } catch {
        return false;
      }
    });
}
