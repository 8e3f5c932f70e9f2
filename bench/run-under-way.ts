// A run that a bench has started, from outside: what its coordinator says, and what its processes take.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RunView } from '../protocol/run-view.ts';

/** Of /proc/PID/stat, Linux. */
const TICKS_A_SECOND = 100;

/** Processor seconds of a process, all its threads. */
export function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
}

/** Throws while there is no coordinator. */
export function urlIn(runDirectory: string): string {
  return (JSON.parse(readFileSync(join(runDirectory, 'endpoint.json'), 'utf8')) as { url: string }).url;
}

/** Null: there is no coordinator yet, or it does not answer. */
export async function viewIn(runDirectory: string): Promise<RunView | null> {
  try {
    return (await (await fetch(`${urlIn(runDirectory)}/api/run`)).json()) as RunView;
  } catch {
    return null;
  }
}
