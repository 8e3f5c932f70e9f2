// The all-reduce on this machine, side by side: ours over each way between two processes, PyTorch's Gloo, and the same collective over
// the stock `ws` library. A call copies a vector in, sums it over all ranks, and copies it out; "where it lies": the vector is written
// and the sum read in the collective's own memory, as the training loop does. Milliseconds a call, medians of interleaved windows, and
// the processor time of rank 0, which a busy machine disturbs less.

import { spawn } from 'node:child_process';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { interleaved, median, startMeasuring, TYPESCRIPT, type Measuring, type WindowFigures } from './measure.ts';
import { NOT_INSTALLED, PEERS, peersPython } from './peers.ts';
import type { BenchOptions } from './run.ts';
import { threeDigits, type Row } from './table.ts';

const WINDOW_SECONDS = 1;
/** The tutorial's CNN, and what larger models have. */
const SIZES = [
  { title: '0.49 MB', floats: 122_573 },
  { title: '4 MB', floats: 1_000_000 },
  { title: '25 MB', floats: 6_250_000 },
  { title: '100 MB', floats: 25_000_000 },
] as const;
const WAYS = ['tcp', 'unix', 'shm'] as const;
const GLOO = 'PyTorch Gloo, TCP';
const STEP_MS = 15;
const OVERLAP_FLOATS = 1_000_000;

const PROCESS = fileURLToPath(new URL('allreduce-process.ts', import.meta.url));

/** A measuring process: rank 0 of so many. */
export function ourProcess(processes: number, way: string, ...flags: readonly string[]): string[] {
  return [process.execPath, ...TYPESCRIPT, PROCESS, '--processes', String(processes), '--way', way, ...flags];
}

/** A NATS server on a free port; null when there is none on the PATH. */
async function startServer(): Promise<{ readonly url: string; stop(): void } | null> {
  const child = spawn('nats-server', ['--addr', '127.0.0.1', '--port', '-1'], { stdio: ['ignore', 'ignore', 'pipe'] });
  const missing = new Promise<null>((resolve) => {
    child.once('error', () => resolve(null));
  });
  const listening = (async () => {
    for await (const line of createInterface({ input: child.stderr })) {
      const place = /Listening for client connections on (\S+)/.exec(line)?.[1];
      if (place === undefined) continue;
      child.stderr.resume();
      return { url: `nats://${place}`, stop: () => void child.kill() };
    }
    return null;
  })();
  return Promise.race([missing, listening]);
}

/** A system that is there, or why it is not. */
type System = Measuring | { readonly missing: string };

/** What is asked for in turn: a system, with vectors copied in and out or written and read where they lie. */
interface Asked {
  readonly name: string;
  readonly copied: boolean;
}

interface Medians {
  readonly ms: number;
  readonly cpuMs: number;
}

/** Medians of each one's windows, null for a system that is not there; the windows themselves go to stderr, that their spread is seen. */
async function milliseconds(
  systems: ReadonlyMap<string, System>,
  asked: readonly Asked[],
  vector: { readonly floats: number; readonly bucketFloats?: number },
  repeats: number,
): Promise<(name: string, copied: boolean) => Medians | null> {
  const keyOf = (name: string, copied: boolean): string => `${name}${copied ? '' : ', where it lies'}`;
  const found = new Map<string, WindowFigures[]>();
  for (const { name, copied } of interleaved(asked, repeats)) {
    const system = systems.get(name);
    if (system === undefined || 'missing' in system) continue;
    const figures = await system.window({ ...vector, seconds: WINDOW_SECONDS, copied });
    found.set(keyOf(name, copied), [...(found.get(keyOf(name, copied)) ?? []), figures]);
  }
  const digits = (values: readonly number[]): string => values.map(threeDigits).join(' ');
  const [load = 0] = loadavg();
  for (const [key, windows] of found) {
    const cpu = digits(windows.map((w) => w.cpu ?? Number.NaN));
    process.stderr.write(`  ${key}: ${digits(windows.map((w) => w.rate))} ms, processor ${cpu}\n`);
  }
  process.stderr.write(`  load ${load.toFixed(1)} on ${availableParallelism()} cores\n`);
  return (name, copied) => {
    const windows = found.get(keyOf(name, copied));
    if (windows === undefined) return null;
    return { ms: median(windows.map((w) => w.rate)), cpuMs: median(windows.map((w) => w.cpu ?? Number.NaN)) };
  };
}

function row(title: string, ours: number, peer: number | null, peerName: string, repeats: number): Row {
  const named = peer === null ? `${peerName} (${NOT_INSTALLED})` : peerName;
  return { case: title, ours, peer, peerName: named, ratio: peer === null ? null : peer / ours, unit: 'ms', repeats };
}

export async function allreduce(options: BenchOptions): Promise<Row[]> {
  const { repeats = 5 } = options;
  const python = peersPython('torch');
  const nats = await startServer();
  const rows: Row[] = [];
  for (const processes of [2, 4]) {
    const systems = new Map<string, System>();
    for (const way of [...WAYS, 'stock-ws']) systems.set(way, await startMeasuring(ourProcess(processes, way), {}));
    if (nats !== null) systems.set('nats', await startMeasuring(ourProcess(processes, nats.url), {}));
    if (python !== null) {
      const command = [python, join(PEERS, 'torch_allreduce.py'), '--processes', String(processes)];
      systems.set('gloo', await startMeasuring(command, {}));
    }
    const asked = [...systems.keys()].map((name) => ({ name, copied: true }));
    asked.push(...WAYS.map((name) => ({ name, copied: false })));
    for (const { title, floats } of SIZES) {
      const of = await milliseconds(systems, asked, { floats }, repeats);
      const gloo = of('gloo', true);
      const against = (way: string, copied: boolean, about: string): void => {
        const ours = of(way, copied);
        if (ours === null) return;
        rows.push(row(about, ours.ms, gloo?.ms ?? null, GLOO, repeats));
        const cpu = row(`${about}, processor`, ours.cpuMs, gloo?.cpuMs ?? null, GLOO, repeats);
        rows.push({ ...cpu, unit: 'ms CPU' });
      };
      for (const way of WAYS) {
        const about = `W=${processes}, ${title}, ${way}`;
        against(way, true, about);
        against(way, false, `${about}, where it lies`);
        if (way !== 'tcp') continue;
        rows.push(
          row(about, of(way, true)?.ms ?? Number.NaN, of('stock-ws', true)?.ms ?? null, 'stock ws, TCP', repeats),
        );
      }
      against('nats', true, `W=${processes}, ${title}, nats`);
      if (nats === null) process.stderr.write('NATS: no nats-server on the PATH\n');
      process.stderr.write(`W=${processes}, ${title}: done\n`);
    }
    for (const system of systems.values()) if (!('missing' in system)) system.stop();
  }
  nats?.stop();
  return rows;
}

/** What an all-reduce adds to a step whose compute blocks the engine's thread, buckets leaving as they are computed. */
export async function overlap(options: BenchOptions): Promise<Row[]> {
  const { repeats = 5 } = options;
  const systems = new Map<string, System>();
  for (const way of ['unix', 'shm']) {
    const compute = ['--compute', String(STEP_MS)];
    systems.set(`${way}, thread`, await startMeasuring(ourProcess(2, way, '--threaded', ...compute), {}));
    systems.set(`${way}, in place`, await startMeasuring(ourProcess(2, way, ...compute), {}));
  }
  systems.set('alone', await startMeasuring(ourProcess(1, 'shm', '--compute', String(STEP_MS)), {}));
  const asked = [...systems.keys()].map((name) => ({ name, copied: false }));
  const of = await milliseconds(systems, asked, { floats: OVERLAP_FLOATS }, repeats);
  // As many buckets, and next to no bytes: what two processes lose that meet in each step.
  const meeting = await milliseconds(systems, asked, { floats: 16, bucketFloats: 4 }, repeats);
  for (const system of systems.values()) if (!('missing' in system)) system.stop();
  const alone = of('alone', false)?.ms ?? null;
  return [...systems.keys()]
    .filter((name) => name !== 'alone')
    .flatMap((name) => {
      const ours = of(name, false)?.ms ?? Number.NaN;
      const met = meeting(name, false)?.ms ?? Number.NaN;
      const aloneMet = meeting('alone', false)?.ms ?? null;
      return [
        row(`step of ${STEP_MS} ms, 4 MB, W=2, ${name}`, ours, alone, 'the same step alone', repeats),
        row(`step of ${STEP_MS} ms, 64 bytes, W=2, ${name}`, met, aloneMet, 'the same step alone', repeats),
      ];
    });
}
