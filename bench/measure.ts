// How the benches measure: medians of interleaved repeats, by processes that live through the whole bench. Such a process opens
// its system once; then each line on its stdin asks for one window of work, and its answer, a line of JSON, is the rate. The
// one that asks waits, so that only one process works at a time.
//
// Rates of one run are comparable; on a shared machine those of two runs are not. Interleaving lets a slow minute fall on all
// systems alike, and the median forgets it where it does not.

import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

/** What a Node that does not read TypeScript by itself needs to run a script of ours. */
export const TYPESCRIPT: readonly string[] =
  'typescript' in process.features && process.features.typescript !== false ? [] : ['--import', 'tsx'];

/** The middle value, or the mean of the two in the middle. NaN of no values. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  const low = sorted[Math.ceil(middle) - 1] ?? Number.NaN;
  return (low + (sorted[Math.floor(middle)] ?? Number.NaN)) / 2;
}

/** `rounds` rounds over `items`; each starts one item later than the last, so that nobody always follows the same one. */
export function interleaved<T>(items: readonly T[], rounds: number): T[] {
  return Array.from({ length: rounds }, (_, round) => {
    const first = round % Math.max(1, items.length);
    return [...items.slice(first), ...items.slice(0, first)];
  }).flat();
}

/** The last core of a list in Linux's notation, e.g. `0-2,5`; null when there is none. */
export function lastCore(list: string): number | null {
  const last = /(?:^|[,-])(\d+)$/.exec(list.trim())?.[1];
  return last === undefined ? null : Number(last);
}

const PIN = 'taskset';

/** `taskset` and the core that one-core measurements are pinned to; null where that can't be had (they have one thread anyway). */
export function pinning(): readonly string[] | null {
  try {
    const core = lastCore(/^Cpus_allowed_list:(.*)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '');
    if (core === null || spawnSync(PIN, ['--version']).status !== 0) return null;
    return [PIN, '-c', String(core)];
  } catch {
    return null; // not Linux
  }
}

/** One window of work. Sizes in samples; a batch is cut into microbatches, whose gradients are summed for one Adam step. */
export interface WindowRequest {
  readonly work: 'step' | 'gradient' | 'fit' | 'matmul';
  readonly batch: number;
  readonly microbatch: number;
  readonly seconds: number;
}

/** What is asked of the all-reduce: vectors of so many floats, in buckets of so many (none: the usual). */
export interface VectorRequest {
  readonly floats: number;
  readonly bucketFloats?: number;
  /** Whether vectors are copied in and sums out, or written and read where they lie. */
  readonly copied: boolean;
  readonly seconds: number;
}

/** What a process answers of a window. */
export interface WindowFigures {
  readonly rate: number;
  /** Milliseconds of processor time a call, of the process itself; where it measures calls. */
  readonly cpu?: number;
}

export interface Measuring {
  /** What the process says of itself. */
  readonly about: string;
  /** Images a second, for `matmul` GFLOP a second, for vectors milliseconds a call. Rejects when the process dies. */
  rate(request: WindowRequest | VectorRequest): Promise<number>;
  /** The whole answer. Rejects when the process dies. */
  window(request: WindowRequest | VectorRequest): Promise<WindowFigures>;
  stop(): void;
}

/** The first line of a measuring process: what it is, or why it can't measure here. */
export type Greeting = { readonly about: string } | { readonly missing: string };

/** Starts a measuring process; resolves to why not when what it measures is not there. Throws when it dies. */
export async function startMeasuring(
  command: readonly string[],
  environment: Readonly<Record<string, string>>,
): Promise<Measuring | { readonly missing: string }> {
  const [program = '', ...args] = command;
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  const next = answers(child, command.join(' '));
  const greeting = (await next()) as Greeting;
  if ('missing' in greeting) {
    child.stdin.end();
    return greeting;
  }
  const window = async (request: WindowRequest | VectorRequest): Promise<WindowFigures> => {
    child.stdin.write(`${JSON.stringify(request)}\n`);
    return (await next()) as WindowFigures;
  };
  return {
    about: greeting.about,
    window,
    rate: async (request) => (await window(request)).rate,
    stop: () => child.kill(),
  };
}

/** Resolves with the child's next line of JSON; other lines are a library's chatter. */
function answers(child: ChildProcess, name: string): () => Promise<unknown> {
  const lines: string[] = [];
  let errors = '';
  let ended: string | null = null;
  let wake = (): void => undefined;
  const end = (how: string): void => {
    ended ??= how;
    wake();
  };
  if (child.stdout === null || child.stderr === null || child.stdin === null) throw new Error('the child has no pipes');
  child.stdin.on('error', (error) => {
    end(error.message);
  });
  child.stderr.on('data', (chunk: Buffer) => (errors = (errors + chunk.toString()).slice(-4000)));
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (!line.startsWith('{')) return;
    lines.push(line);
    wake();
  });
  child.on('error', (error) => {
    end(error.message);
  });
  child.on('close', (code, signal) => {
    end(`ended with ${signal ?? code}`);
  });
  return async () => {
    while (lines.length === 0) {
      if (ended !== null) throw new Error(`${name}: ${ended}\n${errors.trim()}`);
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    return JSON.parse(lines.shift() ?? '') as unknown;
  };
}

/**
 * Runs `step` again and again for at least `seconds`, after two runs that do not count (the first may trace a graph, the next
 * finds the caches filled by others); returns runs a second.
 */
export async function runsPerSecond(
  step: () => Promise<void> | void,
  seconds: number,
  nowMs = () => performance.now(),
): Promise<number> {
  for (let i = 0; i < 2; i++) await step();
  const began = nowMs();
  let runs = 0;
  let elapsed = 0;
  do {
    await step();
    runs += 1;
    elapsed = (nowMs() - began) / 1000;
  } while (elapsed < seconds);
  return runs / elapsed;
}
