// Who is stopped is found, who computes for long is not: real processes, real signals, over both carriers. They mostly wait, so all at once.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, type TestContext } from 'vitest';
import { openControl } from '../../coordinator/http/control.ts';
import { openNatsControl } from '../../coordinator/nats/control.ts';
import { connectNats } from '../../nats/connect.ts';
import { WORKER_SILENCE } from '../../protocol/heartbeat.ts';
import { arrivals, type Arrival } from '../control/contract.ts';
import { serverAt, startNatsServer } from './nats-server.ts';

const WORKER = fileURLToPath(new URL('heart-process.ts', import.meta.url));
const COORDINATOR = fileURLToPath(new URL('heart-coordinator-process.ts', import.meta.url));
/** In which a heart has begun and beaten often enough to be believed. */
const BEATEN_MS = 8000;

type Arrivals = ReturnType<typeof arrivals>;
type Finishing = Pick<TestContext, 'onTestFinished'>;

async function overWebSocket({ onTestFinished }: Finishing): Promise<{ url: string; come: Arrivals }> {
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

async function overNats({ onTestFinished }: Finishing): Promise<{ url: string; come: Arrivals }> {
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

function start(
  { onTestFinished }: Finishing,
  ...command: readonly string[]
): Pick<Joined, 'line'> & { readonly process: ChildProcess } {
  const child = spawn(process.execPath, ['--import', 'tsx', ...command], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return { process: child, line: async () => String((await lines.next()).value) };
}

/** A worker that has joined, and whose engine now holds its thread for so long. */
async function join(
  context: Finishing,
  { url, come }: { url: string; come: Arrivals },
  holdMs: number,
): Promise<Joined> {
  const { process: worker, line } = start(context, WORKER, url, String(holdMs));
  const arrival = await come.next();
  const joined: Joined = { arrival, worker, line, ended: null };
  void arrival.connection.closed.then(({ because }) => (joined.ended = because));
  await arrival.until(1);
  arrival.connection.send({ kind: 'stop', because: 'go on' });
  expect(await joined.line()).toBe('holding');
  return joined;
}

describe.concurrent.each([
  ['WebSocket', overWebSocket],
  ['NATS', overNats],
])('over %s', (_, open) => {
  it('a worker whose engine holds its thread for three times the limit lives, and is heard afterwards', async (context) => {
    const joined = await join(context, await open(context), 3 * WORKER_SILENCE.floorMs);
    await joined.arrival.until(2);
    expect(joined.ended).toBeNull();
  });

  it('a worker that is stopped is found by its silence, and knows when it goes on', async (context) => {
    const joined = await join(context, await open(context), BEATEN_MS);
    await joined.arrival.until(2);
    joined.worker.kill('SIGSTOP');
    expect((await joined.arrival.connection.closed).because).toMatch(
      /^nothing was heard of it for 2(?:\.\d)? s, where 2 s is the limit$/,
    );
    // When it goes on, it knows.
    joined.worker.kill('SIGCONT');
    expect(await joined.line()).toMatch(/^lost: the link to the coordinator at /);
  });
});

describe.concurrent('a coordinator that is stopped', () => {
  it('is lost to its worker, and when it goes on it does not take its own absence for the worker’s silence', async (context) => {
    const coordinator = start(context, COORDINATOR);
    const url = await coordinator.line();
    const worker = start(context, WORKER, url, String(BEATEN_MS));
    expect(await worker.line()).toBe('holding');
    expect([await coordinator.line(), await coordinator.line()]).toEqual(['linked 1', 'linked 2']);
    coordinator.process.kill('SIGSTOP');
    expect(await worker.line()).toMatch(/^lost: .*nothing was heard of it for 5(?:\.\d)? s, where 5 s is the limit/);
    coordinator.process.kill('SIGCONT');
    expect(await coordinator.line()).toMatch(/^its (?:link closed|heart stopped)/);
  });
});
