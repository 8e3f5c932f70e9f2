// The per-user cache: what set-up fetches and builds, shared by checkouts. A directory in it is either whole or not there: it
// is made aside and renamed. Two processes that want the same one take turns by a lock that names its holder, and what a
// killed one left behind is cleared by the next.

import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  renameSync,
  unlinkSync,
  writeFileSync,
  accessSync,
  constants,
} from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { LockstepError } from '../../protocol/errors.ts';

/** How often a waiting process looks whether the lock is free. */
const LOCK_POLL_MS = 200;

/** `LOCKSTEP_CACHE`, else `$XDG_CACHE_HOME/lockstep`, else `~/.cache/lockstep`. Throws E_USAGE when it isn't there and can't be made. */
export function cacheDirectory(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const directory = env['LOCKSTEP_CACHE'] ?? join(env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'lockstep');
  // One that is there may be read-only, as in a container: what set-up is asked for may be in it.
  if (!existsSync(directory)) openForWriting(directory);
  return directory;
}

/** Makes a directory of the cache where it isn't there. Throws E_USAGE when nothing can be put into it. */
export function openForWriting(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true });
    accessSync(directory, constants.W_OK);
  } catch (cause) {
    throw new LockstepError('E_USAGE', `the cache directory ${directory} cannot be written`, {
      remedy: 'Set LOCKSTEP_CACHE to a directory that you may write to.',
      cause,
    });
  }
}

/** Whether a file's times, in milliseconds, are the same to the second: an archive or a container's layer keeps no more of them. */
export function isSameSecond(a: number, b: number): boolean {
  return Math.floor(a / 1000) === Math.floor(b / 1000);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** The pid in a lock file; null when there is none to be read. */
function holderOf(lock: string): number | null {
  try {
    const pid = Number.parseInt(readFileSync(lock, 'utf8'), 10);
    return Number.isInteger(pid) && pid > 0 ? pid : null;
  } catch {
    return null;
  }
}

function tryLock(lock: string): boolean {
  try {
    writeFileSync(lock, `${process.pid}\n`, { flag: 'wx' });
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  }
}

/** Runs `work` while no other process holds the lock file `lock`; `onWait` is told once who holds it. */
export async function withLock<T>(
  lock: string,
  work: () => Promise<T>,
  onWait: (pid: number) => void = () => {},
): Promise<T> {
  let isTold = false;
  while (!tryLock(lock)) {
    const pid = holderOf(lock);
    if (pid === null || !isAlive(pid)) {
      // Taken away by renaming, so that of two that find it stale only one does.
      const aside = `${lock}.stale-${process.pid}`;
      try {
        renameSync(lock, aside);
        // A new holder may have come in between: it gets its lock back.
        if (holderOf(aside) === pid) unlinkSync(aside);
        else renameSync(aside, lock);
      } catch {
        // Somebody else was quicker.
      }
      continue;
    }
    if (!isTold) onWait(pid);
    isTold = true;
    await new Promise((resolve) => {
      setTimeout(resolve, LOCK_POLL_MS);
    });
  }
  try {
    return await work();
  } finally {
    unlinkSync(lock);
  }
}

/** Clears what killed processes left beside `directory`: staging directories of `installDirectory`. */
function clearLeftovers(directory: string): void {
  const prefix = `.${basename(directory)}.partial-`;
  for (const name of readdirSync(dirname(directory))) {
    const pid = name.startsWith(prefix) ? Number(name.slice(prefix.length)) : Number.NaN;
    if (!Number.isNaN(pid) && (pid === process.pid || !isAlive(pid)))
      rmSync(join(dirname(directory), name), { recursive: true });
  }
}

/**
 * Makes `directory` whole or not at all: `make` fills a staging directory beside it, which then takes its place.
 * Call under a lock. What was there before is replaced.
 */
export async function installDirectory(directory: string, make: (staging: string) => Promise<void>): Promise<void> {
  mkdirSync(dirname(directory), { recursive: true });
  clearLeftovers(directory);
  const staging = join(dirname(directory), `.${basename(directory)}.partial-${process.pid}`);
  mkdirSync(staging);
  try {
    await make(staging);
    rmSync(directory, { recursive: true, force: true });
    renameSync(staging, directory);
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}
