// metrics.jsonl: one line a step, for plots and scripts. Written in batches, not fsynced: it can be made again from the
// checkpoint that a run resumes from. On resume the lines after that checkpoint go, so that each step has exactly one.

import { createWriteStream, existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';

export interface MetricsLog {
  append(line: Record<string, unknown>): void;
  close(): Promise<void>;
}

const FLUSH_MS = 1000;

/** The step of a whole line; null for a torn or foreign one. */
function stepOf(line: string): number | null {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null && 'step' in value && typeof value.step === 'number' ? value.step : null;
  } catch {
    return null;
  }
}

async function linesOf(directory: string): Promise<string[]> {
  const path = join(directory, 'metrics.jsonl');
  return existsSync(path) ? (await readFile(path, 'utf8')).split('\n').filter((line) => line !== '') : [];
}

/** The last step that was logged; 0 when none was. */
export async function lastStepOf(directory: string): Promise<number> {
  const steps = (await linesOf(directory)).map(stepOf).filter((step) => step !== null);
  return steps.reduce((a, b) => Math.max(a, b), 0);
}

/** Opens it with the lines of the first `keepSteps` steps kept. */
export async function openMetricsLog(directory: string, options: { readonly keepSteps: number }): Promise<MetricsLog> {
  const path = join(directory, 'metrics.jsonl');
  const kept = (await linesOf(directory)).filter((line) => (stepOf(line) ?? Infinity) <= options.keepSteps);
  await writeFile(path, kept.map((line) => `${line}\n`).join(''));
  const stream = createWriteStream(path, { flags: 'a' });
  // A full disk must not end training; the record that matters is the journal.
  stream.on('error', () => {});
  let waiting: string[] = [];
  const flush = (): void => {
    if (waiting.length > 0) stream.write(waiting.join(''));
    waiting = [];
  };
  const timer = setInterval(flush, FLUSH_MS);
  timer.unref();
  return {
    append: (line) => {
      waiting.push(`${JSON.stringify(line)}\n`);
    },
    close: async () => {
      clearInterval(timer);
      flush();
      stream.end();
      await finished(stream).catch(() => {});
    },
  };
}
