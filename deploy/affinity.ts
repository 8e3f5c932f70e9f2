// This machine's processors, those of them that this process may use (its own affinity and its cgroup's cpuset leave no others), and
// starting a child on some of them. A child has the affinity of the thread that starts it, with all its threads from the first on, so
// the launcher's thread changes its own for that moment; no other program is needed. Linux only.

import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { LockstepError } from '../protocol/errors.ts';
import { maskOf, parseList, type Processor } from './pinning.ts';

const CPUS = '/sys/devices/system/cpu';

function text(file: string): string | null {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return null;
  }
}

function nodeOf(id: number): number {
  try {
    const name = readdirSync(`${CPUS}/cpu${id}`).find((entry) => /^node\d+$/.test(entry));
    return name === undefined ? 0 : Number(name.slice('node'.length));
  } catch {
    return 0;
  }
}

/** Null where the system does not tell. */
export function processorsHere(): readonly Processor[] | null {
  const allowed = /^Cpus_allowed_list:\s*(\S+)$/m.exec(text('/proc/self/status') ?? '')?.[1];
  if (allowed === undefined) return null;
  return parseList(allowed).map((id) => ({
    id,
    core: text(`${CPUS}/cpu${id}/topology/thread_siblings_list`) ?? String(id),
    node: nodeOf(id),
  }));
}

interface Koffi {
  load(path: string | null): { func(prototype: string): (pid: number, size: number, mask: Uint8Array) => number };
}

let setAffinity: ((processors: readonly number[]) => void) | null = null;

function bind(processors: readonly number[]): void {
  if (setAffinity === null) {
    const koffi = createRequire(import.meta.url)('koffi') as Koffi;
    const call = koffi.load(null).func('int sched_setaffinity(int pid, size_t size, uint8_t *mask)');
    setAffinity = (ids) => {
      const mask = maskOf(ids);
      if (call(0, mask.byteLength, mask) !== 0) {
        throw new LockstepError('E_NOT_SUPPORTED', `--pin: the system refuses processors ${ids.join(',')}`, {
          remedy: 'Give --pin off.',
        });
      }
    };
  }
  setAffinity(processors);
}

/** Calls `start`, which starts a child, bound to these processors. Throws E_NOT_SUPPORTED. */
export function startedOn<T>(processors: readonly number[], start: () => T): T {
  const own = processorsHere();
  if (own === null) {
    throw new LockstepError('E_NOT_SUPPORTED', '--pin: this system does not bind processes to processors', {
      remedy: 'Give --pin off.',
    });
  }
  bind(processors);
  try {
    return start();
  } finally {
    bind(own.map(({ id }) => id));
  }
}
