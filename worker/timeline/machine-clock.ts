// The clock that all processes and threads of a machine share, unlike performance.now(), which counts from each one's own beginning.

import { readFileSync } from 'node:fs';

/** Two clocks are read one after the other; of so many times, the one is believed between whose readings least time went by. */
const READINGS = 16;

/** Microseconds of the monotonic clock when this thread's performance.now() was 0. */
export function originUs(): number {
  let [shortestMs, origin] = [Infinity, 0];
  for (let i = 0; i < READINGS; i++) {
    const before = performance.now();
    const machineUs = Number(process.hrtime.bigint()) / 1000;
    const after = performance.now();
    if (after - before >= shortestMs) continue;
    shortestMs = after - before;
    origin = machineUs - 500 * (before + after);
  }
  return origin;
}

/** Names the machine's time since it was started; null where the system has no such name (not Linux): clocks are then compared. */
export function bootOf(): string | null {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return null;
  }
}
