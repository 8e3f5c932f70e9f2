// metrics.jsonl: one line a step, for plots and scripts. Written in batches, not fsynced line by line. Before a checkpoint it is
// flushed, so that a run that resumes from there has every step before it; the lines after it go then: each step has exactly one.

import { once } from 'node:events';
import { createReadStream, createWriteStream, existsSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { finished } from 'node:stream/promises';
import { syncDirectory } from './atomic.ts';
import { RetriedLines, type WriteObserver } from './retried-lines.ts';

export interface MetricsLog {
  append(line: Record<string, unknown>): void;
  /** The lines of the steps after `step` go: those steps are done again, and what follows is of them. */
  rewind(step: number): void;
  /** Resolves when everything so far is on disk, or could not be written yet: then it waits for the next try. */
  flush(): Promise<void>;
  /** A last try with what waits; rejects when that could not be written. */
  close(): Promise<void>;
  /** Ends it as it is: another coordinator has the run. */
  abandon(): Promise<void>;
}

const FLUSH_MS = 1000;
const pathIn = (directory: string): string => join(directory, 'metrics.jsonl');

/** The step of a whole line; null for a torn or foreign one. */
function stepOf(line: string): number | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null && 'step' in value && typeof value.step === 'number'
      ? value.step
      : null;
  } catch {
    return null;
  }
}

/** The last step that was logged; 0 when none was. */
export async function lastStepOf(directory: string): Promise<number> {
  let last = 0;
  if (!existsSync(pathIn(directory))) return last;
  for await (const line of createInterface({ input: createReadStream(pathIn(directory)) }))
    last = Math.max(last, stepOf(line) ?? 0);
  return last;
}

/** Keeps the lines of the steps 1 .. `keepSteps`, each step's first one. */
async function keepFirst(directory: string, keepSteps: number): Promise<void> {
  const path = pathIn(directory);
  if (!existsSync(path)) return;
  const aside = `${path}.new-${process.pid}`;
  try {
    await copyFirst(path, aside, keepSteps);
  } catch (error) {
    // Half a copy would only take the room that is wanted.
    await rm(aside, { force: true }).catch(() => {});
    throw error;
  }
  await rename(aside, path);
  await syncDirectory(directory);
}

async function copyFirst(path: string, aside: string, keepSteps: number): Promise<void> {
  const out = createWriteStream(aside, { flush: true });
  // Listened to from the start: a disk without room may fail before the end is written.
  const done = finished(out);
  done.catch(() => {});
  let kept = 0;
  for await (const line of createInterface({ input: createReadStream(path) })) {
    const step = stepOf(line);
    if (step === null || step <= kept || step > keepSteps) continue;
    kept = step;
    if (!out.write(`${line}\n`)) await Promise.race([once(out, 'drain'), done]);
  }
  out.end();
  await done;
}

/** Opens it with the lines of the first `keepSteps` steps kept; `observe` is told of every write. */
export async function openMetricsLog(
  directory: string,
  options: { readonly keepSteps: number; readonly observe?: WriteObserver },
): Promise<MetricsLog> {
  await keepFirst(directory, options.keepSteps);
  const observe = options.observe ?? (() => {});
  const openLines = async (): Promise<RetriedLines> => {
    const file = await open(pathIn(directory), 'a');
    return new RetriedLines(file, (await file.stat()).size, observe);
  };
  let lines = await openLines();
  /** What comes while lines are taken away. */
  let held: string[] | null = null;
  let writing: Promise<void> = Promise.resolve();

  const flush = (sync: boolean): Promise<void> => {
    // The observer knows of a failure.
    writing = writing.then(() => lines.write(sync)).catch(() => {});
    return writing;
  };
  const timer = setInterval(() => {
    if (lines.hasWaiting) void flush(false);
  }, FLUSH_MS);
  timer.unref();

  const rewind = async (step: number): Promise<void> => {
    try {
      await lines.write(false);
      await keepFirst(directory, step);
      const before = lines;
      lines = await openLines();
      await before.abandon();
    } catch (error) {
      // They stay, and the same steps follow them.
      observe(error instanceof Error ? error : new Error(String(error)));
    }
    for (const line of held ?? []) lines.add(line);
    held = null;
  };

  return {
    append: (line) => {
      const text = `${JSON.stringify(line)}\n`;
      if (held === null) lines.add(text);
      else held.push(text);
    },
    rewind: (step) => {
      // Of a second one before the first is done nothing that came between is wanted.
      held = [];
      writing = writing.then(() => rewind(step));
    },
    flush: () => flush(true),
    close: async () => {
      clearInterval(timer);
      await writing;
      await lines.close();
    },
    abandon: async () => {
      clearInterval(timer);
      await writing;
      await lines.abandon();
    },
  };
}
