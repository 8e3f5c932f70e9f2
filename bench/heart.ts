// What a control link's heart costs a worker (protocol/heartbeat.ts): processor time and memory of a process that has only that link, with
// and without it.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { openControl } from '../coordinator/http/control.ts';
import { interleaved, median, TYPESCRIPT } from './measure.ts';
import type { BenchOptions } from './run.ts';
import type { Row } from './table.ts';

const PROCESS = fileURLToPath(new URL('heart-process.ts', import.meta.url));
const SECONDS = 10;
const KINDS = ['heart', 'bare'] as const;

interface Cost {
  readonly cpuShare: number;
  readonly rssBytes: number;
}

async function costOf(url: string, kind: string): Promise<Cost> {
  const child = spawn(process.execPath, [...TYPESCRIPT, PROCESS, url, kind, String(SECONDS)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
  const [status] = (await once(child, 'close')) as [number | null];
  if (status !== 0) throw new Error(`heart-process.ts ended with ${status}`);
  return JSON.parse(text) as Cost;
}

export async function heart({ repeats = 3 }: BenchOptions): Promise<Row[]> {
  const server = createServer((_request, response) => response.end());
  const silent = (): void => undefined;
  const control = openControl({
    server,
    judge: () => ({ kind: 'allowed' }),
    onConnect: silent,
    onRefused: silent,
    onWarning: silent,
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const found = new Map<string, Cost[]>();
  try {
    for (const kind of interleaved(KINDS, repeats)) {
      const cost = await costOf(url, kind);
      process.stderr.write(`${kind}: ${(100 * cost.cpuShare).toFixed(2)} % of a core, ${cost.rssBytes / 1e6} MB\n`);
      found.set(kind, [...(found.get(kind) ?? []), cost]);
    }
  } finally {
    await control.close();
    server.close();
  }
  const row = (title: string, unit: string, value: (cost: Cost) => number): Row => {
    const [ours, peer] = KINDS.map((kind) => median((found.get(kind) ?? []).map(value))) as [number, number];
    return { case: title, ours, peer, peerName: 'without', ratio: peer / ours, unit, repeats };
  };
  return [
    row('a control link with its heart, processor', '% of a core', (cost) => 100 * cost.cpuShare),
    row('a control link with its heart, memory', 'MB', (cost) => cost.rssBytes / 1e6),
  ];
}
