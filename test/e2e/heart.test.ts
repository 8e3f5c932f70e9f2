// Who is stopped is found, who computes for long is not: real processes, real signals, over both carriers.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openControl } from '../../coordinator/http/control.ts';
import { openNatsControl } from '../../coordinator/nats/control.ts';
import { connectNats } from '../../nats/connect.ts';
import { BUSY_SILENCE, WORKER_SILENCE } from '../../protocol/heartbeat.ts';
import { arrivals, type Arrival } from '../control/contract.ts';
import { serverAt, startNatsServer } from './nats-server.ts';

const FILE = fileURLToPath(new URL('heart-process.ts', import.meta.url));

type Arrivals = ReturnType<typeof arrivals>;

async function overWebSocket(): Promise<{ url: string; come: Arrivals }> {
  const server = createServer((_request, response) => response.end());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const come = arrivals();
  const control = openControl({ server, token: null, onConnect: come.add, onRefused: () => {}, onWarning: () => {} });
  onTestFinished(async () => {
    await control.close();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, come };
}

async function overNats(): Promise<{ url: string; come: Arrivals }> {
  const running = await startNatsServer();
  const nats = await connectNats(serverAt(running.url), 'test');
  const come = arrivals();
  const events = { onConnect: come.add, onRefused: () => {}, onWarning: () => {} };
  const control = await openNatsControl(nats, { run: 'held', token: null, ...events });
  onTestFinished(async () => {
    await control.close();
    await nats.close();
    await running.kill();
  });
  return { url: running.url, come };
}

interface Joined {
  readonly arrival: Arrival;
  readonly worker: ChildProcess;
  /** The worker's next line. */
  readonly line: () => Promise<string>;
  ended: string | null;
}

/** A worker that has joined, and whose engine now holds its thread for so long. */
async function join({ url, come }: { url: string; come: Arrivals }, holdMs: number): Promise<Joined> {
  const worker = spawn(process.execPath, ['--import', 'tsx', FILE, url, String(holdMs)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => {
    worker.kill('SIGKILL');
  });
  const lines = createInterface({ input: worker.stdout })[Symbol.asyncIterator]();
  const arrival = await come.next();
  const joined: Joined = { arrival, worker, line: async () => String((await lines.next()).value), ended: null };
  void arrival.connection.closed.then(({ because }) => (joined.ended = because));
  await arrival.until(1);
  arrival.connection.send({ kind: 'stop', because: 'go on' });
  expect(await joined.line()).toBe('holding');
  return joined;
}

describe.each([
  ['WebSocket', overWebSocket],
  ['NATS', overNats],
])('over %s', (_, open) => {
  it('a worker whose engine holds its thread for three times the limit lives, and is heard afterwards', async () => {
    const joined = await join(await open(), 3 * WORKER_SILENCE.floorMs);
    await joined.arrival.until(2);
    expect(joined.ended).toBeNull();
  });

  it('a worker that is stopped is lost within the limit and two beats, engine at work or not', async () => {
    // Its heart is known by the time that it has beaten for a while.
    const joined = await join(await open(), WORKER_SILENCE.floorMs + 1500);
    await joined.arrival.until(2);
    const stoppedAt = performance.now();
    joined.worker.kill('SIGSTOP');
    expect((await joined.arrival.connection.closed).because).toMatch(/^nothing was heard of it for 2(?:\.\d)? s/);
    expect(performance.now() - stoppedAt).toBeLessThan(WORKER_SILENCE.floorMs + 1500);
    // When it goes on, it knows.
    joined.worker.kill('SIGCONT');
    expect(await joined.line()).toMatch(/^lost: the link to the coordinator at /);
  });
});

describe('a coordinator that is stopped', () => {
  it('is lost to its worker, and when it goes on it does not take its own absence for the worker’s silence', async () => {
    // This process is the worker's coordinator: its thread is held, as SIGSTOP would, and no beat leaves it.
    const joined = await join(await overWebSocket(), 3000);
    await joined.arrival.until(2);
    const heldMs = BUSY_SILENCE.floorMs + 2500;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, heldMs);
    expect(await joined.line()).toMatch(/^lost: .*nothing was heard of it for 5(?:\.\d)? s, where 5 s is the limit/);
    expect((await joined.arrival.connection.closed).because).toMatch(/^its (?:link closed|heart stopped)/);
  });
});
