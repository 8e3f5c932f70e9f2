// The directory that a run leaves: opened by one coordinator at a time (run-lock.ts), never a second run in one that has a run.
// What is refused is refused before anything in it is touched.

import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { LockstepError } from '../../protocol/errors.ts';
import type { Successor } from '../core/fence.ts';
import { replaceFile } from './atomic.ts';
import { tidyCheckpoints } from './checkpoint-directory.ts';
import { holderOf, takeLock, type Holder, type LockResult } from './run-lock.ts';
import { claimTerm, successorIn } from './term.ts';

export interface RunDirectory {
  readonly path: string;
  readonly logDirectory: string;
  /** What was found and mended on opening, for a person to read. */
  readonly notices: readonly string[];
  /** Which of the run's coordinators this is (core/fence.ts). */
  readonly term: number;
  /** Makes it a higher one, that was claimed elsewhere. */
  raiseTerm(to: number): void;
  /** Coordinators that this one has taken the run from, and that may wake: they may have its files open. */
  readonly hung: readonly Holder[];
  /** Who has taken the run from this one; null: nobody. */
  successor(): Successor | null;
  writeEndpoint(endpoint: {
    readonly url: string;
    readonly pid: number;
    /** The certificate that the url is served with, in PEM; none without TLS. */
    readonly certificate?: string;
    /** Where the run's token lies. */
    readonly tokenFile: string;
  }): Promise<void>;
  /** Removes the endpoint and the lock. May be called again; then it does nothing. */
  release(): Promise<void>;
}

/** True when a run has left something here. */
export function holdsRun(path: string): boolean {
  return ['journal.jsonl', 'report.json', 'checkpoints'].some((name) => existsSync(join(path, name)));
}

function urlIn(path: string): string {
  try {
    const endpoint: unknown = JSON.parse(readFileSync(join(path, 'endpoint.json'), 'utf8'));
    if (typeof endpoint === 'object' && endpoint !== null && 'url' in endpoint)
      return `, which listens at ${String(endpoint.url)}`;
  } catch {
    // Not listening yet.
  }
  return '';
}

function inUse(path: string, holder: Holder, file: string): LockstepError {
  const where = holder.host === hostname() ? '' : ` on host ${holder.host}`;
  return new LockstepError(
    'E_RUN_DIR_IN_USE',
    `the run directory ${path} is in use by process ${holder.pid}${where}${urlIn(path)}`,
    {
      remedy:
        where === ''
          ? 'Wait for that run, stop it, or give another --run-dir. One that does not answer any more is replaced by --resume.'
          : `Give another --run-dir; or, if you know that it is dead, remove ${file}.`,
    },
  );
}

function cannotWrite(path: string, cause: unknown): LockstepError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new LockstepError('E_USAGE', `the run directory ${path} cannot be used: ${why}`, {
    remedy: 'Give a --run-dir that you may write to.',
    cause,
  });
}

/**
 * Opens a directory for a run: a new one or one without a run, or with `resume` one that holds a run.
 * `isHung` says that a holder which lives does not answer: it is fenced off. `termBefore`: of a coordinator that had another directory. Throws E_RUN_DIR_IN_USE, E_RUN_DIR_NOT_EMPTY, E_RUN_NOT_FOUND or E_USAGE (it can't be written); nothing in it is touched then.
 */
export function openRunDirectory(
  directory: string,
  resume: boolean,
  isHung: (holder: Holder) => boolean = () => false,
  termBefore = 0,
): RunDirectory {
  const path = resolve(directory);
  const refuseUnfit = (): void => {
    const exists = existsSync(path) && holdsRun(path);
    if (resume && !exists) {
      throw new LockstepError('E_RUN_NOT_FOUND', `there is no run to resume in ${path}`, {
        remedy: 'Give the directory of a run with --run-dir, or leave --resume out to start one.',
      });
    }
    if (!resume && exists) {
      throw new LockstepError('E_RUN_DIR_NOT_EMPTY', `the run directory ${path} already holds a run`, {
        remedy: 'Give --resume to go on with it, or another --run-dir.',
      });
    }
  };
  let lock: LockResult;
  try {
    const living = existsSync(path) ? holderOf(path) : null;
    if (living !== null && !isHung(living.holder)) lock = { kind: 'refused', ...living };
    else {
      refuseUnfit();
      mkdirSync(path, { recursive: true });
      lock = takeLock(path, isHung);
    }
  } catch (error) {
    throw error instanceof LockstepError ? error : cannotWrite(path, error);
  }
  if (lock.kind === 'refused') throw inUse(path, lock.holder, lock.file);
  const held = lock;
  const logDirectory = join(path, 'logs');
  const notices = [
    ...held.broken.map(
      ({ pid }) =>
        `the coordinator that had this run directory (process ${pid}) ended without releasing it; its lock is broken`,
    ),
    ...held.hung.map(
      ({ pid, host }) =>
        `the coordinator that had this run directory (process ${pid} on ${host}) does not answer; it is fenced off`,
    ),
  ];
  let term: number;
  try {
    // Another coordinator may have come and gone between the first look and the lock.
    refuseUnfit();
    // Before anything is read: what an older coordinator writes after this it acts upon no more.
    term = claimTerm(path, { pid: process.pid, host: hostname() }, termBefore);
    rmSync(join(path, 'endpoint.json'), { force: true });
    mkdirSync(logDirectory, { recursive: true });
    notices.push(...tidyCheckpoints(path));
  } catch (error) {
    held.release();
    throw error instanceof LockstepError ? error : cannotWrite(path, error);
  }
  let released = false;
  return {
    path,
    logDirectory,
    notices,
    get term() {
      return term;
    },
    raiseTerm: (to) => {
      if (to > term) term = claimTerm(path, { pid: process.pid, host: hostname() }, to - 1);
    },
    hung: held.hung,
    successor: () => successorIn(path, term),
    writeEndpoint: (endpoint) => replaceFile(join(path, 'endpoint.json'), `${JSON.stringify(endpoint)}\n`),
    release: () => {
      if (!released) {
        if (successorIn(path, term) === null) rmSync(join(path, 'endpoint.json'), { force: true });
        held.release();
      }
      released = true;
      return Promise.resolve();
    },
  };
}

/** `<job>-<date>-<time>`, the name that a run gets when nobody gives one; a longer job name that begins alike does not match. */
const TIME_IN_NAME = /^\d{8}-\d{6}/;

/** The newest run of a job under `parent`, by the time in its name; null when there is none. */
export function latestRun(parent: string, jobName: string): string | null {
  if (!existsSync(parent)) return null;
  const prefix = `${jobName}-`;
  const times = readdirSync(parent)
    .filter(
      (name) => name.startsWith(prefix) && TIME_IN_NAME.test(name.slice(prefix.length)) && holdsRun(join(parent, name)),
    )
    .map((name) => name.slice(prefix.length))
    .toSorted();
  const newest = times.at(-1);
  return newest === undefined ? null : join(parent, `${prefix}${newest}`);
}
