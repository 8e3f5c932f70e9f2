// The directory that a run leaves, and who may write it: one coordinator at a time. The lock names its process; when that one
// is dead, the next takes the lock over.

import { existsSync, linkSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { LockstepError } from '../../protocol/errors.ts';
import { replaceFile } from './atomic.ts';

export interface RunDirectory {
  readonly path: string;
  readonly logDirectory: string;
  writeEndpoint(endpoint: { readonly url: string; readonly pid: number }): Promise<void>;
  release(): Promise<void>;
}

interface Holder {
  readonly pid: number;
  /** When that process started, in the kernel's ticks: a pid may be used again. Null where it can't be known. */
  readonly started: string | null;
}

/** Field 22 of /proc/<pid>/stat (proc(5)); null when there is no such process or no such file system. */
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

function isAlive(holder: Holder): boolean {
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EPERM')) return false;
  }
  return holder.started === null || startOf(holder.pid) === holder.started;
}

function readHolder(lock: string): Holder | null {
  try {
    const value: unknown = JSON.parse(readFileSync(lock, 'utf8'));
    if (typeof value !== 'object' || value === null || !('pid' in value) || typeof value.pid !== 'number') return null;
    return { pid: value.pid, started: 'started' in value && typeof value.started === 'string' ? value.started : null };
  } catch {
    return null;
  }
}

function urlIn(path: string): string {
  try {
    const endpoint: unknown = JSON.parse(readFileSync(join(path, 'endpoint.json'), 'utf8'));
    if (typeof endpoint === 'object' && endpoint !== null && 'url' in endpoint) return ` at ${String(endpoint.url)}`;
  } catch {
    // Not listening yet.
  }
  return '';
}

function takeLock(path: string): string {
  const lock = join(path, '.lock');
  const mine = join(path, `.lock-${process.pid}`);
  writeFileSync(mine, JSON.stringify({ pid: process.pid, started: startOf(process.pid) }));
  try {
    for (;;) {
      try {
        // A hard link is made whole or not at all: nobody reads a lock without a holder in it.
        linkSync(mine, lock);
        return lock;
      } catch (error) {
        if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
      }
      const holder = readHolder(lock);
      if (holder !== null && isAlive(holder)) {
        throw new LockstepError('E_RUN_DIR_IN_USE', `the run directory ${path} is in use by process ${holder.pid}${urlIn(path)}`, {
          remedy: 'Wait for that run, stop it, or give another --run-dir.',
        });
      }
      rmSync(lock, { force: true });
    }
  } finally {
    unlinkSync(mine);
  }
}

/** True when a run has left something here. */
export function holdsRun(path: string): boolean {
  return existsSync(join(path, 'journal.jsonl')) || existsSync(join(path, 'report.json')) || existsSync(join(path, 'checkpoints'));
}

/**
 * Opens a directory for a run: a new or empty one, or with `resume` one that holds a run.
 * Throws E_RUN_DIR_IN_USE, E_RUN_DIR_NOT_EMPTY, E_RUN_NOT_FOUND or E_USAGE; nothing in it is touched then.
 */
export function openRunDirectory(directory: string, resume: boolean): RunDirectory {
  const path = resolve(directory);
  if (resume && !(existsSync(path) && holdsRun(path))) {
    throw new LockstepError('E_RUN_NOT_FOUND', `there is no run to resume in ${path}`, {
      remedy: 'Give the directory of a run with --run-dir, or leave --resume out to start one.',
    });
  }
  try {
    mkdirSync(path, { recursive: true });
  } catch (cause) {
    throw new LockstepError('E_USAGE', `the run directory ${path} cannot be made: ${cause instanceof Error ? cause.message : String(cause)}`, {
      remedy: 'Give a --run-dir that you may write to.',
      cause,
    });
  }
  const lock = takeLock(path);
  if (!resume && holdsRun(path)) {
    rmSync(lock, { force: true });
    throw new LockstepError('E_RUN_DIR_NOT_EMPTY', `the run directory ${path} already holds a run`, {
      remedy: 'Give --resume to go on with it, or another --run-dir.',
    });
  }
  const logDirectory = join(path, 'logs');
  mkdirSync(logDirectory, { recursive: true });
  return {
    path,
    logDirectory,
    writeEndpoint: (endpoint) => replaceFile(join(path, 'endpoint.json'), `${JSON.stringify(endpoint)}\n`),
    release: async () => {
      rmSync(join(path, 'endpoint.json'), { force: true });
      rmSync(lock, { force: true });
    },
  };
}

/** The newest run of a job under `parent`, by the time in its name; null when there is none. */
export function latestRun(parent: string, jobName: string): string | null {
  if (!existsSync(parent)) return null;
  const names = readdirSync(parent).filter((name) => name.startsWith(`${jobName}-`) && holdsRun(join(parent, name)));
  const newest = names.toSorted((a, b) => statSync(join(parent, a)).mtimeMs - statSync(join(parent, b)).mtimeMs).at(-1);
  return newest === undefined ? null : join(parent, newest);
}
