// The terms of a run's coordinators (core/fence.ts), as files of the run directory: `.term-N` is claimed by making it, which only one can.
// The last claim stays for as long as the directory does; those below it go.

import { closeSync, existsSync, fsyncSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Successor } from '../core/fence.ts';

const TERM_FILE = /^\.term-(\d+)$/;

const termsIn = (directory: string): number[] =>
  readdirSync(directory).flatMap((name) => Number(TERM_FILE.exec(name)?.[1] ?? []));

/** The highest term that was claimed in a directory; 0: none, or there is no such directory. */
export function highestTermIn(directory: string): number {
  return existsSync(directory) ? Math.max(0, ...termsIn(directory)) : 0;
}

/** Claims the next term; `above`: a term that is known of elsewhere. Throws the file system's error when it can't be written. */
export function claimTerm(directory: string, me: Omit<Successor, 'term'>, above = 0): number {
  for (;;) {
    const before = termsIn(directory);
    const term = 1 + Math.max(above, ...before);
    let file: number;
    try {
      file = openSync(join(directory, `.term-${term}`), 'wx');
    } catch (error) {
      // Somebody else was quicker.
      if (error instanceof Error && 'code' in error && error.code === 'EEXIST') continue;
      throw error;
    }
    try {
      writeSync(file, JSON.stringify({ host: me.host, pid: me.pid }));
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    for (const older of before) rmSync(join(directory, `.term-${older}`), { force: true });
    return term;
  }
}

/** Who has claimed a term above `own`; null: nobody. A directory that can't be read says of nobody. */
export function successorIn(directory: string, own: number): Successor | null {
  try {
    const term = Math.max(...termsIn(directory));
    return term > own ? { term, ...holderOfTerm(join(directory, `.term-${term}`)) } : null;
  } catch {
    return null;
  }
}

function holderOfTerm(file: string): Omit<Successor, 'term'> {
  try {
    const value: unknown = JSON.parse(readFileSync(file, 'utf8'));
    if (typeof value === 'object' && value !== null && 'host' in value && 'pid' in value)
      return { host: String(value.host), pid: Number(value.pid) };
  } catch {
    // It has just been made, or its writer died over it: whoever it is.
  }
  return { host: 'unknown', pid: 0 };
}
