// A run that is attacked while it trains, by real connections: nothing gets in, each refusal has its code and is counted, and the run ends in the
// bits of one that nobody disturbed.
//
// It listens on all addresses, over TLS, as a run on a cluster does. The attackers know its address, and some of them hold tokens that may less.

import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { connect as connectTls } from 'node:tls';
import { Packr } from 'msgpackr';
import { afterAll, expect, it, vi } from 'vitest';
import { WebSocket } from 'ws';
import { HANDSHAKE_MS, UNPROVEN_PER_NETWORK_MAX } from '../../coordinator/core/doorkeeper.ts';
import { PROTOCOL_VERSION } from '../../protocol/messages.ts';
import { makeToken, type Scope } from '../../protocol/token.ts';
import { makeCertificate } from '../certificates.ts';
import { lockstep, processesNaming, reportIn, Scratch } from './lockstep.ts';

const scratch = new Scratch();
afterAll(() => scratch.remove());
const file = (name: string, content: string): string => {
  writeFileSync(scratch.dir(name), content, { mode: 0o600 });
  return scratch.dir(name);
};

const FLOOD = 10_000;
/** At a time: as many as there are descriptors for, at both ends. */
const FLOOD_AT_ONCE = 1000;

const KEY = 'Zr0c9qkq5mMzYx3i0aB1u2w4e6t8y0p2s4d6f8g0h2j';
const { cert, key } = makeCertificate(['127.0.0.1'], null);
const COMMON = ['cifar10-cnn', '--workers', '2', '--train-samples', '6400', '--test-samples', '0', '--seed', '3'];

const token = (scope: Scope, expiresAtSeconds: number | null = null): string =>
  makeToken(KEY, { scope, expiresAtSeconds, id: scope });
const bearer = (shown: string): Record<string, string> => ({ authorization: `Bearer ${shown}` });
const pack = (message: unknown): Buffer => new Packr({ useRecords: false }).pack(message);

/** Its end, whatever error comes before: one that is cut while it writes has one. */
const closeOf = async (socket: Socket): Promise<void> =>
  new Promise((resolve) => {
    socket.on('error', () => {});
    socket.once('close', () => resolve());
  });

/** The run's port, as an attacker reaches it. */
class Target {
  readonly port: number;

  constructor(port: number) {
    this.port = port;
  }

  /** `401 E_UNAUTHORIZED`, or the status alone. */
  async ask(path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<string> {
    const { status, body } = await this.get(path, headers, method);
    return `${status} ${/"code":"(E_\w+)"/.exec(body)?.[1] ?? ''}`.trim();
  }

  async get(
    path: string,
    headers: Record<string, string>,
    method = 'GET',
  ): Promise<{ readonly status: number; readonly body: string }> {
    const asked = request({ host: '127.0.0.1', port: this.port, path, method, headers, ca: cert });
    asked.end();
    const [answer] = (await once(asked, 'response')) as [NodeJS.ReadableStream & { statusCode: number }];
    return { status: answer.statusCode, body: await text(answer) };
  }

  /** What a handshake for a WebSocket at `path` is answered with. */
  async knock(path: string, headers: Record<string, string>): Promise<string> {
    const socket = this.webSocket(path, headers);
    const [, answer] = (await once(socket, 'unexpected-response')) as [
      unknown,
      { statusCode: number; headers: Record<string, string> },
    ];
    socket.on('error', () => {});
    socket.terminate();
    return `${answer.statusCode} ${answer.headers['lockstep-refused']}`;
  }

  /** Joins as a worker, says `messages` and is sent away: by which code. */
  async speak(...messages: readonly Buffer[]): Promise<string> {
    const socket = this.webSocket('/control', bearer(token('work')));
    await once(socket, 'open');
    const closed = new Promise<[number, Buffer]>((resolve) => {
      socket.once('close', (...end) => resolve(end));
    });
    for (const message of messages) socket.send(message, () => {});
    const [code, because] = await closed;
    return because.length === 0 ? String(code) : (because.toString().split(':', 1)[0] ?? '');
  }

  /** Sends bytes as they are, over TLS or not; what is answered until it is cut. */
  async raw(bytes: string | Buffer, over: 'tls' | 'tcp'): Promise<string> {
    const to = { host: '127.0.0.1', port: this.port };
    const socket: Socket = over === 'tcp' ? connect(to) : connectTls({ ...to, ca: cert });
    let answer = '';
    socket.on('data', (some: Buffer) => {
      answer += some.toString('latin1');
    });
    const closed = closeOf(socket);
    socket.write(bytes);
    await closed;
    return answer.split('\r\n', 1)[0] ?? '';
  }

  /** Comes and says nothing, `count` times at once; how many the other side closed. */
  async flood(count: number): Promise<number> {
    let closed = 0;
    const sockets = await Promise.all(
      Array.from({ length: count }, async () => {
        const socket = connect({ host: '127.0.0.1', port: this.port });
        const end = closeOf(socket).then(() => closed++);
        socket.resume();
        const connected = new Promise<void>((resolve) => {
          socket.once('connect', () => resolve());
        });
        await Promise.race([connected, end]);
        return socket;
      }),
    );
    // The newest of one network may stay.
    await vi.waitUntil(() => closed >= count - UNPROVEN_PER_NETWORK_MAX, 10_000);
    const before = closed;
    for (const socket of sockets) socket.destroy();
    return before;
  }

  private webSocket(path: string, headers: Record<string, string>): WebSocket {
    const socket = new WebSocket(`wss://127.0.0.1:${this.port}${path}`, { ca: cert, headers });
    socket.on('error', () => {});
    return socket;
  }
}

const hello = (change: object = {}): Buffer =>
  pack({
    kind: 'hello',
    protocol: PROTOCOL_VERSION,
    lockstep: '0.1.0',
    node: 'v20',
    host: 'elsewhere',
    pid: 4711,
    localRank: null,
    rejoin: null,
    ...change,
  });

const step = {
  step: 1,
  samples: 64,
  lossSum: 0,
  correct: 64,
  gradientNorm: 0,
  seconds: 1,
  phases: { data: 0, compute: 1, allreduce: 0, apply: 0, wait: 0 },
  rssBytes: 0,
};
const back = { worker: 'w0', generation: 0, worldSize: 2, step: 0, term: 1 };
const digest = 'f'.repeat(64);
const ready = pack({
  kind: 'ready',
  engine: { name: 'tensorflow', library: 'TensorFlow 2.21.0', device: 'CPU', threads: 1, settings: {} },
  fingerprint: digest,
  weightsDigest: digest,
  peerUrl: 'wss://127.0.0.1:1/peer',
  layout: [],
  topology: '{}',
  optimizer: { name: 'adam', slots: ['m', 'v'] },
});

/** By code, what has been refused so far. */
function refusalsIn(metrics: string, name: string): Map<string, number> {
  const found = metrics.matchAll(new RegExp(`^${name}\\{.*code="(\\w+)".*\\} (\\d+)$`, 'gm'));
  return new Map([...found].map(([, code = '', count = '']) => [code, Number(count)]));
}

it('a run that is attacked all the while trains on, and ends in the bits of one that nobody disturbed', async () => {
  const keyFile = file('key', `${KEY}\n`);
  const tls = ['--tls-cert', file('cert.pem', cert), '--tls-key', file('key.pem', key)];
  const directory = scratch.dir('attacked');
  const run = lockstep(
    [
      'train',
      ...COMMON,
      '--epochs',
      '1000',
      '--listen',
      '0.0.0.0:0',
      '--token-file',
      keyFile,
      ...tls,
      '--run-dir',
      directory,
    ],
    { cwd: scratch.path },
  );
  const [, port = ''] = await run.wrote(/listening\s+https:\/\/127\.0\.0\.1:(\d+)/);
  const target = new Target(Number(port));

  // A header that comes a byte at a time, and a connection that says nothing at all: until they are cut.
  const beganAt = performance.now();
  const slow = connectTls({ host: '127.0.0.1', port: target.port, ca: cert });
  const silent = connect({ host: '127.0.0.1', port: target.port });
  const drips = setInterval(() => (slow.writable ? slow.write('x') : false), 200);
  slow.write('GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ');
  const cut = Promise.all([closeOf(slow), closeOf(silent)]).then(() => {
    clearInterval(drips);
    return performance.now() - beganAt;
  });
  await run.wrote(/^training\s/m);

  // Who reads.
  expect(await target.ask('/healthz')).toBe('200');
  expect(await target.ask('/')).toBe('200');
  for (const path of ['/api/run', '/metrics', '/sd', '/api/events', '/model/model.json', '/api/samples']) {
    expect(await target.ask(path)).toBe('401 E_UNAUTHORIZED');
  }
  const shown: [string, string][] = [
    [`${KEY}x`, '401 E_UNAUTHORIZED'],
    [token('observe').replace('observe', 'control'), '401 E_UNAUTHORIZED'],
    [token('observe', 1_700_000_000), '401 E_TOKEN_EXPIRED'],
    [token('observe'), '200'],
  ];
  for (const [what, answer] of shown) expect(await target.ask('/api/run', bearer(what))).toBe(answer);
  expect(await target.ask('/api/run', { ...bearer(token('observe')), origin: 'https://evil.example' })).toBe(
    '403 E_ORIGIN',
  );
  expect(await target.ask('/', { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' })).toBe('403 E_ORIGIN');
  // Who would end it.
  expect(await target.ask('/api/stop', {}, 'POST')).toBe('401 E_UNAUTHORIZED');
  expect(await target.ask('/api/stop', bearer(token('work')), 'POST')).toBe('403 E_FORBIDDEN');
  // Who would join.
  expect(await target.knock('/control', {})).toBe('401 E_UNAUTHORIZED');
  expect(await target.knock('/control', bearer('a guess'))).toBe('401 E_UNAUTHORIZED');
  expect(await target.knock('/control', bearer(token('work', 1_700_000_000)))).toBe('401 E_TOKEN_EXPIRED');
  expect(await target.knock('/control', bearer(token('observe')))).toBe('403 E_FORBIDDEN');
  expect(await target.knock('/control', { ...bearer(token('work')), origin: `https://127.0.0.1:${port}` })).toBe(
    '403 E_ORIGIN',
  );
  expect(await target.knock('/heart', { ...bearer(token('work')), 'lockstep-heart': 'a'.repeat(32) })).toBe(
    '404 E_NOT_FOUND',
  );
  // Who says what no worker says.
  expect(await target.speak(Buffer.from([0xc1]))).toBe('E_MESSAGE');
  expect(await target.speak(pack({ kind: 'gossip' }))).toBe('E_MESSAGE');
  expect(await target.speak(hello({ protocol: 1 }))).toBe('E_PROTOCOL_VERSION');
  expect(await target.speak(hello({ host: 'h'.repeat(20_000) }))).toBe('E_TOO_LARGE');
  expect(await target.speak(hello(), Buffer.alloc(17 * 1024 * 1024))).toBe('1009');
  expect(
    await target.speak(
      hello(),
      ...Array.from({ length: 4000 }, () => pack({ kind: 'standing', generation: 0, step: 0, computed: 0 })),
    ),
  ).toBe('E_TOO_FAST');
  // Who lies: of a coordinator's term, of membership, of a generation, of a rank's result, of its digest.
  const rejoining = (change: object): Buffer => hello({ rejoin: { ...back, ...change } });
  expect(await target.speak(rejoining({ term: 99 }))).toBe('E_UNAUTHORIZED');
  expect(await target.speak(rejoining({ generation: 1 }))).toBe('E_UNAUTHORIZED');
  expect(await target.speak(hello(), pack({ kind: 'linked', generation: 99, step: 0, digest }))).toBe('E_PROTOCOL');
  expect(await target.speak(hello(), pack({ kind: 'report', generation: 1, steps: [step], links: [] }))).toBe(
    'E_PROTOCOL',
  );
  expect(await target.speak(hello(), pack({ kind: 'report', generation: 0, steps: [step], links: [] }))).toBe(
    'E_PROTOCOL',
  );
  expect(await target.speak(hello(), ready)).toBe('E_DIGEST');
  // A peer that says it is a rank: at a worker's own door, whose address its log has.
  const log = readFileSync(join(directory, 'logs', 'worker-0.log'), 'utf8');
  const [, peerPort = ''] = /peers reach it at wss:\/\/127\.0\.0\.1:(\d+)\/peer/.exec(log) ?? [];
  const peer = new WebSocket(`wss://127.0.0.1:${peerPort}/peer?run=attacked&generation=1&rank=1`, {
    ca: cert,
    headers: bearer(KEY),
  });
  peer.on('error', () => {});
  const [, refusal] = (await once(peer, 'unexpected-response')) as [unknown, { statusCode: number }];
  peer.terminate();
  expect(refusal.statusCode).toBe(401);
  // What is no HTTP, or not over TLS, or too long; and what a recorded beginning of TLS is worth.
  expect(await target.raw('GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n', 'tcp')).toBe('');
  expect(await target.raw('NONSENSE\r\n\r\n', 'tls')).toMatch(/^HTTP\/1\.1 400/);
  expect(await target.raw(`GET / HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(20_000)}\r\n\r\n`, 'tls')).toMatch(
    /^HTTP\/1\.1 431/,
  );
  const recorded = await recordingOf(target);
  expect(recorded.length).toBeGreaterThan(500);
  expect(await target.raw(recorded, 'tcp')).not.toContain('101');

  const cutAfterMs = await cut;
  expect(cutAfterMs).toBeGreaterThan(HANDSHAKE_MS - 500);
  expect(cutAfterMs).toBeLessThan(HANDSHAKE_MS + 5000);

  // Of a flood the oldest go: those above would have, had it come earlier.
  let closed = 0;
  for (let i = 0; i < FLOOD; i += FLOOD_AT_ONCE) closed += await target.flood(FLOOD_AT_ONCE);
  expect(closed).toBeGreaterThan(0.7 * FLOOD);

  // All of it is counted.
  const observer = bearer(token('observe'));
  const counted = refusalsIn((await target.get('/metrics', observer)).body, 'lockstep_workers_refused_total');
  const least: Record<string, number> = {
    E_UNAUTHORIZED: 13,
    E_TOKEN_EXPIRED: 2,
    E_FORBIDDEN: 2,
    E_ORIGIN: 3,
    E_MESSAGE: 2,
    E_PROTOCOL_VERSION: 1,
    E_PROTOCOL: 3,
    E_DIGEST: 1,
    E_TOO_LARGE: 3,
    E_TOO_FAST: 1,
    E_REQUEST: 1,
    E_TLS: 1,
    E_HANDSHAKE: 2,
    E_TOO_MANY: 7000,
  };
  for (const [code, count] of Object.entries(least)) {
    expect([code, counted.get(code) ?? 0]).toEqual([code, expect.toSatisfy((n: number) => n >= count)]);
  }
  // The first log may be of the second that joined.
  const own = JSON.parse((await target.get('/sd', observer)).body) as {
    targets: string[];
    labels: { worker: string };
  }[];
  const ports = own.flatMap(({ targets, labels }) =>
    /^w\d+$/.test(labels.worker) ? [Number(targets[0]?.split(':')[1])] : [],
  );
  let atWorkers = 0;
  for (const one of ports) {
    const { body } = await new Target(one).get('/metrics', observer);
    atWorkers += refusalsIn(body, 'lockstep_worker_refused_total').get('E_UNAUTHORIZED') ?? 0;
  }
  expect([ports.length, atWorkers]).toEqual([2, 1]);

  // Training has gone on all the while, by the same two in one generation; who may stop it does.
  expect(await target.ask('/api/stop', bearer(token('control')), 'POST')).toBe('202');
  expect((await run.ended).code).toBe(130);
  const attacked = reportIn(directory);
  expect(attacked).toMatchObject({ generations: 1, stepsLost: 0, microbatchesRecomputed: 0 });
  expect(attacked.digestStep).toBeGreaterThan(100);
  expect(processesNaming(directory)).toEqual([]);

  const steps = ['--max-steps', String(attacked.digestStep), '--epochs', '1000'];
  const quiet = await lockstep([
    'train',
    ...COMMON,
    ...steps,
    '--listen',
    '127.0.0.1:0',
    '--run-dir',
    scratch.dir('quiet'),
  ]).ended;
  expect(quiet.code).toBe(0);
  expect(reportIn(scratch.dir('quiet')).digest).toBe(attacked.digest);
});

/** What a worker's handshake looks like to who listens on the wire. */
async function recordingOf(target: Target): Promise<Buffer> {
  const { createServer } = await import('node:net');
  const bytes: Buffer[] = [];
  const between = createServer((near) => {
    const far = connect({ host: '127.0.0.1', port: target.port });
    near.on('data', (some: Buffer) => {
      bytes.push(some);
      far.write(some);
    });
    far.pipe(near);
    near.on('error', () => far.destroy());
    far.on('error', () => near.destroy());
    near.on('close', () => far.destroy());
  });
  between.listen(0, '127.0.0.1');
  await once(between, 'listening');
  const { port } = between.address() as { port: number };
  const socket = new WebSocket(`wss://127.0.0.1:${port}/control`, { ca: cert, headers: bearer(token('work')) });
  await once(socket, 'open');
  socket.send(hello());
  await once(socket, 'message');
  socket.terminate();
  await once(socket, 'close');
  between.close();
  return Buffer.concat(bytes);
}
