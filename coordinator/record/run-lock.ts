// Who may write a run directory: one coordinator at a time, for as long as its process lives, and answers.
//
// Every contender puts down a file of its own (.lock-<pid>-<start>) and then looks for others. Whoever sees a living other
// withdraws. Of two that start in the same instant at most one goes on, and a dead holder's file can be removed without ever
// removing a living one's, which a single lock file taken over by "delete and create again" does not give.
//
// A process is known by its pid, its start time and the boot, because pids are used again. On another host (a shared file system,
// another container) none of that can be looked up: such a lock counts as held until somebody removes it. Advisory: it keeps
// Lockstep from itself, not other programs from the files.

import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';

const holderSchema = z.object({
  pid: z.int().min(1),
  /** When that process started, in the kernel's ticks; null where it can't be known. */
  started: z.string().nullable(),
  boot: z.string().nullable(),
  host: z.string(),
});
export type Holder = z.infer<typeof holderSchema>;

export type LockResult =
  | {
      readonly kind: 'held';
      readonly file: string;
      readonly broken: readonly Holder[];
      readonly hung: readonly Holder[];
      release(): void;
    }
  | { readonly kind: 'refused'; readonly holder: Holder; readonly file: string };

const LOCK_FILE = /^\.lock-\d+-\w+$/;

function readOrNull(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

/** Fields 3 and 22 of /proc/<pid>/stat, counted after the command's closing parenthesis (proc(5)); null where there is none. */
function statOf(pid: number): { readonly state: string | null; readonly started: string | null } {
  const stat = readOrNull(`/proc/${pid}/stat`);
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ') ?? [];
  return { state: fields[0] ?? null, started: fields[19] ?? null };
}

/** Names the machine's time since it was started; null where the system has no such name (not Linux). */
export const bootOf = (): string | null => readOrNull('/proc/sys/kernel/random/boot_id')?.trim() ?? null;

/** Whether that process lives; true when it is on another host and can't be asked. */
function mayLive(holder: Holder): boolean {
  if (holder.host !== hostname()) return true;
  const boot = bootOf();
  if (holder.boot !== null && boot !== null && holder.boot !== boot) return false;
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EPERM')) return false;
  }
  const { state, started } = statOf(holder.pid);
  // Killed, and nobody has asked yet how it ended: it can't write any more.
  if (state === 'Z' || state === 'X') return false;
  return holder.started === null || started === null || started === holder.started;
}

/** The holder in a lock file; null when the file is gone or its writer died before it was whole. */
function holderIn(file: string): Holder | null {
  try {
    return holderSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    const pid = Number(/\.lock-(\d+)-/.exec(file)?.[1]);
    return readOrNull(file) === null ? null : { pid, started: null, boot: null, host: hostname() };
  }
}

function othersIn(directory: string, mine: string): { file: string; holder: Holder }[] {
  const found = [];
  for (const name of readdirSync(directory)) {
    const file = join(directory, name);
    if (!LOCK_FILE.test(name) || file === mine) continue;
    const holder = holderIn(file);
    if (holder !== null) found.push({ file, holder });
  }
  return found;
}

/** The living holder of a directory, if any; touches nothing. */
export function holderOf(directory: string): { readonly holder: Holder; readonly file: string } | null {
  return othersIn(directory, '').find(({ holder }) => mayLive(holder)) ?? null;
}

/**
 * Takes the lock of an existing directory, or says who has it. `isHung`: a living holder that does not answer any more, and is fenced off
 * (core/fence.ts) by whoever gets the lock. Throws the file system's error when it can't be written.
 */
export function takeLock(directory: string, isHung: (holder: Holder) => boolean): LockResult {
  const started = statOf(process.pid).started;
  const file = join(directory, `.lock-${process.pid}-${started ?? 'x'}`);
  const me: Holder = { pid: process.pid, started, boot: bootOf(), host: hostname() };
  // A file of this name is this process's own: the directory is already open here.
  try {
    writeFileSync(file, JSON.stringify(me), { flag: 'wx' });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST')
      return { kind: 'refused', holder: me, file };
    throw error;
  }
  const others = othersIn(directory, file);
  const living = others.find(({ holder }) => mayLive(holder) && !isHung(holder));
  if (living !== undefined) {
    rmSync(file, { force: true });
    return { kind: 'refused', ...living };
  }
  const hung = others.filter(({ holder }) => mayLive(holder)).map(({ holder }) => holder);
  for (const dead of others) rmSync(dead.file, { force: true });
  return {
    kind: 'held',
    file,
    broken: others.map(({ holder }) => holder).filter((holder) => !hung.includes(holder)),
    hung,
    release: () => rmSync(file, { force: true }),
  };
}
