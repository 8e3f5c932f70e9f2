// The all-reduce on this machine, side by side: ours over each way between two processes, PyTorch's Gloo, and the same collective over
// the stock `ws` library. A call copies a vector in, sums it over all ranks, and copies it out. Milliseconds a call, medians of
// interleaved windows.

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { interleaved, median, startMeasuring, type Measuring } from './measure.ts';
import { NOT_INSTALLED, PEERS, peersPython } from './peers.ts';
import type { BenchOptions } from './run.ts';
import type { Row } from './table.ts';

const WINDOW_SECONDS = 1;
/** The tutorial's CNN, and what larger models have. */
const SIZES = [
  { title: '0.49 MB', floats: 122_573 },
  { title: '4 MB', floats: 1_000_000 },
  { title: '25 MB', floats: 6_250_000 },
  { title: '100 MB', floats: 25_000_000 },
] as const;
const WAYS = ['tcp', 'unix', 'shm'] as const;
const STEP_MS = 15;
const OVERLAP_FLOATS = 1_000_000;

const PROCESS = fileURLToPath(new URL('allreduce-process.ts', import.meta.url));

/** A measuring process: rank 0 of so many. */
export function ourProcess(processes: number, way: string, ...flags: readonly string[]): string[] {
  const typescript =
    'typescript' in process.features && process.features.typescript !== false ? [] : ['--import', 'tsx'];
  return [process.execPath, ...typescript, PROCESS, '--processes', String(processes), '--way', way, ...flags];
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

async function milliseconds(systems: ReadonlyMap<string, System>, floats: number, repeats: number) {
  const found = new Map<string, number[]>();
  for (const name of interleaved([...systems.keys()], repeats)) {
    const system = systems.get(name);
    if (system === undefined || 'missing' in system) continue;
    const value = await system.rate({ floats, seconds: WINDOW_SECONDS });
    found.set(name, [...(found.get(name) ?? []), value]);
  }
  return (name: string): number | null => {
    const values = found.get(name);
    return values === undefined ? null : median(values);
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
    for (const { title, floats } of SIZES) {
      const msOf = await milliseconds(systems, floats, repeats);
      for (const way of WAYS) {
        const ours = msOf(way) ?? Number.NaN;
        const about = `W=${processes}, ${title}, ${way}`;
        rows.push(row(about, ours, msOf('gloo'), 'PyTorch Gloo, TCP', repeats));
        if (way !== 'tcp') continue;
        rows.push(row(about, ours, msOf('stock-ws'), 'stock ws, TCP', repeats));
      }
      const overNats = msOf('nats');
      const about = `W=${processes}, ${title}, nats`;
      if (overNats !== null) rows.push(row(about, overNats, msOf('gloo'), 'PyTorch Gloo, TCP', repeats));
      else process.stderr.write('NATS: no nats-server on the PATH\n');
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
  const msOf = await milliseconds(systems, OVERLAP_FLOATS, repeats);
  for (const system of systems.values()) if (!('missing' in system)) system.stop();
  const alone = msOf('alone');
  return [...systems.keys()]
    .filter((name) => name !== 'alone')
    .map((name) =>
      row(`step of ${STEP_MS} ms, 4 MB, W=2, ${name}`, msOf(name) ?? Number.NaN, alone, 'the same step alone', repeats),
    );
}
