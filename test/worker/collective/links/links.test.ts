// The links between two workers that meet over sockets: TCP, a unix socket, shared memory, TLS.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo } from 'node:net';
import { readdirSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { WebSocket, type ClientOptions } from 'ws';
import { FRAME_HEADER_BYTES, encodeFrameHeader } from '../../../../protocol/frame.ts';
import type { LockstepError } from '../../../../protocol/errors.ts';
import { pairKeyOf } from '../../../../protocol/keys.ts';
import type { Link } from '../../../../protocol/link.ts';
import type { Tls } from '../../../../protocol/tls.ts';
import {
  callHeaders,
  connectToPeer,
  listenForPeers,
  type LocalWays,
  type PeerListener,
} from '../../../../worker/collective/links/ws.ts';
import { collector, headerOf, linkContract, payloadOf, type LinkPair } from './contract.ts';
import { proxyTo } from './proxy.ts';
import { makeAuthority, makeCertificate } from '../../../certificates.ts';

const TOKEN = 'the token of the run';
const RUN = 'run-1';
const WAYS = {
  shm: { unix: true, shm: true },
  unix: { unix: true, shm: false },
  tcp: { unix: false, shm: false },
} satisfies Record<string, LocalWays>;
const self = { generation: 1, rank: 1 };
const common = { token: TOKEN, run: RUN, self };

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((o) => o.close()));
});

async function listener(options: Partial<Parameters<typeof listenForPeers>[0]> = {}): Promise<PeerListener> {
  const made = await listenForPeers({ host: '127.0.0.1', token: TOKEN, run: RUN, ...options });
  opened.push(made);
  return made;
}

/** A peer of another make, which says that it is rank 1 of generation 1 and proves that it knows the run's key. */
function stockPeer(made: PeerListener, options: ClientOptions = {}, call = randomBytes(16).toString('hex')): WebSocket {
  const url = new URL(made.url);
  const door = url.searchParams.get('door') ?? '';
  url.search = `?run=${RUN}&generation=1&rank=1`;
  return new WebSocket(url, { headers: callHeaders({ peers: TOKEN }, { ...self, door, call }), ...options });
}

/** A link through a proxy that can be cut; the segment of shared memory, if there is one, is beside it. */
async function cuttablePair(ways: LocalWays): Promise<LinkPair> {
  const made = await listener();
  const proxy = await proxyTo(made.url);
  opened.push(proxy);
  const [a, b] = await Promise.all([connectToPeer(proxy.url, { ...common, ways }), made.accept(self)]);
  return { ends: [a, b], kill: proxy.cut, sendGarbage: () => proxy.inject(new Uint8Array(32).fill(0xff)) };
}

for (const [name, ways] of Object.entries(WAYS)) {
  describe(`a link over ${name}`, () => {
    it('says what it is', async () => {
      const { ends } = await cuttablePair(ways);
      expect(ends.map((end) => end.transport)).toEqual([name, name]);
      for (const end of ends) end.receive(collector());
      ends[0].close('done');
      await ends[1].closed;
    });
    linkContract(async () => cuttablePair(ways));
  });
}

it('a link over unix holds more than the 208 KiB of a usual socket while nobody reads, on either side', async () => {
  const made = await listener();
  const ends = await Promise.all([connectToPeer(made.url, { ...common, ways: WAYS.unix }), made.accept(self)]);
  for (const end of ends) end.send(headerOf(1, 75_000), payloadOf(1, 75_000));
  await expect(Promise.all(ends.map(async (end) => end.drained()))).resolves.toHaveLength(2);
});

describe('a link over TLS', () => {
  const authority = makeAuthority();
  const trusting = { identity: null, ca: authority.cert, clientCa: null };
  const withTls = (identity: NonNullable<Tls['identity']>): { tls: Tls } => ({
    tls: { identity, ca: authority.cert, clientCa: null },
  });
  /** What `caller` gets of a listener: the link's transport, or the code and text of the refusal. */
  const met = async (listening: object, caller: object): Promise<string> => {
    const made = await listener(listening);
    return connectToPeer(made.url, { ...common, ways: WAYS.tcp, ...caller }).then(
      (link) => link.transport,
      (error: unknown) => `${(error as LockstepError).code} ${(error as LockstepError).message}`,
    );
  };

  linkContract(async () => {
    const made = await listener(withTls(makeCertificate(['127.0.0.1'], authority)));
    const proxy = await proxyTo(made.url);
    opened.push(proxy);
    const [a, b] = await Promise.all([
      connectToPeer(proxy.url, { ...common, ways: WAYS.tcp, tls: trusting }),
      made.accept(self),
    ]);
    const sendGarbage = (): void => a.send({ ...headerOf(1, 1), step: -1 }, payloadOf(1, 1));
    return { ends: [a, b], kill: proxy.cut, sendGarbage };
  });

  it('needs an authority that the caller trusts, a name that it called, and valid dates: or E_TLS says what is wrong', async () => {
    const good = withTls(makeCertificate(['127.0.0.1'], authority));
    const untrusted = /^E_TLS the peer at 127\.0\.0\.1:\d+: no authority that is trusted here signed its certificate/;
    expect(await met(good, { tls: trusting })).toBe('tcp');
    expect(await met(good, { tls: { identity: null, ca: makeAuthority('another').cert, clientCa: null } })).toMatch(
      untrusted,
    );
    expect(await met(good, {})).toMatch(untrusted);
    expect(await met(withTls(makeCertificate(['10.0.0.9', 'a.example'], authority)), { tls: trusting })).toMatch(
      /^E_TLS .*: its certificate is for other names: .*127\.0\.0\.1/,
    );
    const old = makeCertificate(['127.0.0.1'], authority, { from: -2, to: -1 });
    expect(await met(withTls(old), { tls: trusting })).toMatch(/^E_TLS .*: its certificate has expired$/);
    const early = makeCertificate(['127.0.0.1'], authority, { from: 1, to: 2 });
    expect(await met(withTls(early), { tls: trusting })).toMatch(/^E_TLS .*: its certificate is not valid yet$/);
  });

  it('is made with who shows the caller’s own certificate, whatever it names; not when that has expired', async () => {
    const shared = { tls: { identity: makeCertificate(['cluster.example'], null), ca: null, clientCa: null } };
    expect(await met(shared, shared)).toBe('tcp');
    const signed = { tls: { identity: makeCertificate(['cluster.example'], authority), ca: null, clientCa: null } };
    expect(await met(signed, signed)).toBe('tcp');
    const other = { tls: { identity: makeCertificate(['cluster.example'], null), ca: null, clientCa: null } };
    expect(await met(shared, other)).toMatch(/^E_TLS .*no authority that is trusted/);
    const old = makeCertificate(['cluster.example'], null, { from: -2, to: -1 });
    const expired = { tls: { identity: old, ca: null, clientCa: null } };
    expect(await met(expired, expired)).toMatch(/^E_TLS .*has expired/);
  });

  it('is what a run with TLS wants over a network: a peer without a certificate is refused by its name, but not nearby', async () => {
    expect(await met({}, { tls: trusting, who: 'rank 1 (w1 on blue)' })).toMatch(
      /^E_TLS no link to rank 1 \(w1 on blue\) at 127\.0\.0\.1:\d+: it has no certificate/,
    );
    expect(await met({}, { tls: trusting, ways: WAYS.unix })).toBe('unix');
  });

  it('that is called without TLS, or a peer without TLS that is called with it, is found out', async () => {
    const made = await listener(withTls(makeCertificate(['127.0.0.1'], authority)));
    const plain = made.url.replace('wss:', 'ws:');
    await expect(connectToPeer(plain, { ...common, ways: WAYS.tcp })).rejects.toMatchObject({
      code: 'E_TLS',
      message: expect.stringContaining('it speaks TLS, and was called without') as string,
    });
    const bare = await listener();
    const secure = bare.url.replace('ws:', 'wss:');
    await expect(connectToPeer(secure, { ...common, ways: WAYS.tcp, tls: trusting })).rejects.toMatchObject({
      code: 'E_TLS',
      message: expect.stringContaining('does not speak TLS') as string,
    });
  });
});

describe('shared memory', () => {
  const segments = (): string[] =>
    readdirSync('/dev/shm').filter((name) => name.startsWith(`lockstep-${process.pid}-`));

  it('has no name as soon as both have it, so that nothing is left when they die', async () => {
    const made = await listener();
    const [a, b] = await Promise.all([connectToPeer(made.url, common), made.accept(self)]);
    expect([a.transport, b.transport, ...segments()]).toEqual(['shm', 'shm']);
  });

  it('leaves nothing when the other side does not want it, and the link is one over a socket', async () => {
    const made = await listener({ ways: WAYS.unix });
    const [a, b] = await Promise.all([connectToPeer(made.url, common), made.accept(self)]);
    expect([a.transport, b.transport, ...segments()]).toEqual(['unix', 'unix']);
  });

  it('leaves nothing when the other side refuses the caller', async () => {
    const made = await listener();
    await expect(connectToPeer(made.url, { ...common, token: 'another' })).rejects.toMatchObject({
      code: 'E_UNAUTHORIZED',
    });
    expect(segments()).toEqual([]);
  });

  it('is not believed: an index that a peer has written out of bounds ends the link', async () => {
    const made = await listener();
    const [a, b] = await Promise.all([connectToPeer(made.url, common), made.accept(self)]);
    const got = collector();
    a.receive(collector());
    b.receive(got);
    a.send(headerOf(1, 1), payloadOf(1, 1));
    await got.until(1);
    // The rings' heads are nowhere to be had from outside; a payload longer than its frame is the nearest lie.
    a.send(headerOf(2, 1), payloadOf(2, 100));
    expect((await b.closed).error).toMatchObject({ code: 'E_FRAME' });
  });
});

describe('a stock WebSocket peer', () => {
  const frame = (step: number, count: number): Buffer =>
    Buffer.concat([encodeFrameHeader(headerOf(step, count)), payloadOf(step, count)]);

  it('is understood as a client, fragmented and masked, pings and all, and understands', async () => {
    const made = await listener();
    const client = stockPeer(made);
    const link = await made.accept(self);
    const got = collector();
    link.receive(got);
    const answers: Buffer[] = [];
    const answered = new Promise<void>((resolve) => {
      client.on('message', (data: Buffer) => {
        answers.push(data);
        if (answers.length === 3) resolve();
      });
    });
    await once(client, 'open');
    const whole = frame(1, 50_000);
    for (let at = 0; at < whole.length; at += 7777) {
      client.send(whole.subarray(at, at + 7777), { fin: at + 7777 >= whole.length });
      if (at === 0) client.ping('in between');
    }
    client.send(frame(2, 0));
    await got.until(2);
    expect(Buffer.compare(got.frames[0]?.payload ?? Buffer.alloc(0), payloadOf(1, 50_000))).toBe(0);
    for (const count of [0, 30, 70_000]) link.send(headerOf(count, count), payloadOf(count, count));
    await answered;
    for (const [i, count] of [0, 30, 70_000].entries()) expect(answers[i]?.equals(frame(count, count))).toBe(true);
    const closed = once(client, 'close');
    link.close('thank you');
    expect((await closed).map(String)).toEqual(['1000', 'thank you']);
    expect(await link.closed).toEqual({ because: 'thank you', error: null });
  });

  it('that sends text, or a message that is no frame, is refused by a code that it understands', async () => {
    for (const wrong of ['text', Buffer.alloc(10), Buffer.concat([frame(1, 1), Buffer.alloc(1)])]) {
      const made = await listener();
      const client = stockPeer(made);
      const link = await made.accept(self);
      link.receive(collector());
      const closed = once(client, 'close');
      client.once('open', () => client.send(wrong));
      expect((await link.closed).error).toMatchObject({ code: 'E_FRAME' });
      expect((await closed)[0]).toBe(1002);
    }
  });
});

describe('the handshake', () => {
  const attempt = async (made: PeerListener, options: object): Promise<unknown> =>
    connectToPeer(made.url, { ...common, ...options }).then(
      () => 'linked',
      (error: unknown) => error,
    );

  it('refuses a wrong or missing token, another run, and a second caller in the place of the first', async () => {
    const made = await listener();
    const unauthorized = { code: 'E_UNAUTHORIZED', message: expect.stringContaining('401') as string };
    expect(await attempt(made, { token: 'another' })).toMatchObject(unauthorized);
    expect(await attempt(made, { token: null })).toMatchObject(unauthorized);
    expect(await attempt(made, { run: 'run-2' })).toMatchObject({ code: 'E_PEER_LOST' });
    expect(await attempt(made, {})).toBe('linked');
    expect(await attempt(made, {})).toMatchObject({ message: expect.stringContaining('409') as string });
  });

  it('sends no secret, and what was recorded of it is taken neither here nor elsewhere', async () => {
    const refused: string[] = [];
    const made = await listener({ ways: WAYS.tcp, onRefused: (code) => refused.push(code) });
    const other = await listener({ ways: WAYS.tcp, onRefused: (code) => refused.push(code) });
    const { port } = new URL(made.url);
    const recorded: Buffer[] = [];
    const between = createServer((socket) => {
      const through = connect(Number(port), '127.0.0.1');
      socket.on('data', (bytes: Buffer) => {
        recorded.push(bytes);
        through.write(bytes);
      });
      through.pipe(socket);
      socket.on('error', () => through.destroy());
      through.on('error', () => socket.destroy());
    });
    between.listen(0, '127.0.0.1');
    await once(between, 'listening');
    const url = new URL(made.url);
    url.port = String((between.address() as AddressInfo).port);
    const [link] = await Promise.all([connectToPeer(url.href, { ...common, ways: WAYS.tcp }), made.accept(self)]);
    link.close('enough');
    const handshake = Buffer.concat(recorded).toString('latin1').split('\r\n\r\n')[0] ?? '';
    expect(handshake).not.toContain(TOKEN);
    const again = async (at: string): Promise<string> => {
      const socket = connect(Number(new URL(at).port), '127.0.0.1');
      socket.write(`${handshake}\r\n\r\n`);
      const [answer] = (await once(socket, 'data')) as [Buffer];
      socket.destroy();
      return answer.toString('latin1').split('\r\n')[0] ?? '';
    };
    expect(await again(made.url)).toBe('HTTP/1.1 409 Conflict');
    expect(await again(other.url)).toBe('HTTP/1.1 401 Unauthorized');
    expect(refused).toEqual(['E_REPLAYED', 'E_UNAUTHORIZED']);
    between.close();
  });

  it('a worker of the run that says it is another rank is no rank at all, whether it comes first or last', async () => {
    const refused: string[] = [];
    const made = await listener({ ways: WAYS.tcp, onRefused: (code) => refused.push(code) });
    const pairKey = pairKeyOf('key', RUN, 1, 0, 1);
    const lie = { ...common, ways: WAYS.tcp, pairKey: pairKeyOf('key', RUN, 1, 0, 2) };
    // Before this worker has heard of the generation, when nobody can tell; then, when it waits for the rank.
    const early = await connectToPeer(made.url, lie);
    early.receive(collector());
    const accepted = made.accept(self, pairKey);
    expect((await early.closed).because).not.toBe('');
    await expect(connectToPeer(made.url, lie)).rejects.toMatchObject({ code: 'E_UNAUTHORIZED' });
    await expect(connectToPeer(made.url, { ...lie, pairKey: undefined })).rejects.toMatchObject({
      code: 'E_UNAUTHORIZED',
    });
    const [honest, link] = await Promise.all([connectToPeer(made.url, { ...lie, pairKey }), accepted]);
    expect(refused).toEqual(['E_UNAUTHORIZED', 'E_UNAUTHORIZED', 'E_UNAUTHORIZED']);
    expect(await attempt(made, { ways: WAYS.tcp, pairKey })).toMatchObject({
      message: expect.stringContaining('409') as string,
    });
    link.receive(collector());
    honest.receive(collector());
    honest.close('enough');
    await link.closed;
  });

  it('a liar that waits in the place of a rank keeps nobody out', async () => {
    const made = await listener({ ways: WAYS.tcp });
    const pairKey = pairKeyOf('key', RUN, 1, 0, 1);
    const liar = await connectToPeer(made.url, { ...common, ways: WAYS.tcp, pairKey: 'guess' });
    liar.receive(collector());
    const honest = await connectToPeer(made.url, { ...common, ways: WAYS.tcp, pairKey });
    const link = await made.accept(self, pairKey);
    honest.send(headerOf(1, 1), payloadOf(1, 1));
    const got = collector();
    link.receive(got);
    await got.until(1);
    expect((await liar.closed).because).not.toBe('');
  });

  it('whoever answers shows that it knows the run, too', async () => {
    const made = await listener({ ways: WAYS.tcp, token: null });
    expect(await attempt(made, { ways: WAYS.tcp })).toMatchObject({
      code: 'E_UNAUTHORIZED',
      message: expect.stringContaining("does not know the run's token") as string,
    });
  });

  it('with an authority for callers, only who shows a certificate of it is heard over a network', async () => {
    const authority = makeAuthority();
    const identity = makeCertificate(['127.0.0.1'], authority);
    const refused: string[] = [];
    const tls = { identity, ca: authority.cert, clientCa: authority.cert };
    const made = await listener({ ways: WAYS.tcp, tls, onRefused: (code) => refused.push(code) });
    const bare = { identity: null, ca: authority.cert, clientCa: null };
    expect(await attempt(made, { ways: WAYS.tcp, tls: bare })).toMatchObject({
      message: expect.stringContaining('403') as string,
    });
    const other = makeCertificate(['127.0.0.1'], makeAuthority('another'));
    expect(await attempt(made, { ways: WAYS.tcp, tls: { ...bare, identity: other } })).toMatchObject({
      message: expect.stringContaining('403') as string,
    });
    expect(await attempt(made, { ways: WAYS.tcp, tls })).toBe('linked');
    expect(refused).toEqual(['E_TLS', 'E_TLS']);
  });

  it('what is no request, has too long a head, or speaks no TLS where that is asked for, is told apart', async () => {
    const refused: string[] = [];
    const tls = { identity: makeCertificate(['127.0.0.1'], null), ca: null, clientCa: null };
    for (const options of [{}, { tls }]) {
      const made = await listener({ ways: WAYS.tcp, onRefused: (code) => refused.push(code), ...options });
      for (const bytes of ['NONSENSE\r\n\r\n', `GET /peer HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(9000)}\r\n\r\n`]) {
        const socket = connect(Number(new URL(made.url).port), '127.0.0.1');
        socket.on('error', () => {});
        socket.resume();
        socket.write(bytes);
        await once(socket, 'close');
      }
    }
    expect(refused).toEqual(['E_REQUEST', 'E_TOO_LARGE', 'E_TLS', 'E_TLS']);
  });

  it('refuses a web page: a request with an origin', async () => {
    const made = await listener();
    const client = stockPeer(made, { origin: 'http://elsewhere' });
    const [refused] = (await once(client, 'error')) as [Error];
    expect(refused.message).toContain('403');
  });

  it('says who cannot be reached', async () => {
    const made = await listener();
    await made.close();
    expect(await attempt(made, {})).toMatchObject({
      code: 'E_PEER_LOST',
      message: expect.stringContaining(new URL(made.url).host) as string,
      // It said a loopback address, which nobody on another machine reaches.
      remedy: expect.stringContaining('--peer-listen') as string,
    });
  });

  it('is not taken from what is no WebSocket', async () => {
    const http = createServer((socket) => socket.resume().end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'));
    http.listen(0, '127.0.0.1');
    await once(http, 'listening');
    const { port } = http.address() as { port: number };
    const url = `ws://127.0.0.1:${port}/peer`;
    await expect(connectToPeer(url, common)).rejects.toMatchObject({ code: 'E_PEER_LOST' });
    http.close();
    await once(http, 'close');
  });
});

it.each([
  ['tcp', 'memory of one thread', (bytes: number) => new Uint8Array(bytes)],
  ['unix', 'memory of one thread', (bytes: number) => new Uint8Array(bytes)],
  ['tcp', 'shared memory', (bytes: number) => new Uint8Array(new SharedArrayBuffer(bytes))],
] as const)('over %s a payload is read straight into its place, in %s', async (way, _what, memoryOf) => {
  const made = await listener({ ways: WAYS[way] });
  const [a, b] = await Promise.all([connectToPeer(made.url, { ...common, ways: WAYS[way] }), made.accept(self)]);
  // Both are read from: the one that called, and the one that was called.
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    const sizes = [70_001, 0, 1, 300_000, 50_000];
    const places = sizes.map((count) => memoryOf(4 * count));
    let frame = -1;
    let at = 0;
    let straight = 0;
    await new Promise<void>((resolve) => {
      to.receive({
        begin: () => {
          frame++;
          at = 0;
        },
        place: (bytes) => places[frame]?.subarray(at, at + Math.min(bytes, 120_000)) ?? null,
        data: (bytes) => {
          const place = places[frame] ?? new Uint8Array(0);
          if (bytes.buffer === place.buffer) {
            if (bytes.byteOffset !== at) throw new Error('not where it was wanted');
            straight += bytes.byteLength;
          } else place.set(bytes, at);
          at += bytes.byteLength;
        },
        end: () => {
          if (frame === sizes.length - 1) resolve();
        },
      });
      for (const [step, count] of sizes.entries()) from.send(headerOf(step, count), payloadOf(step, count));
    });
    for (const [step, count] of sizes.entries()) {
      expect(Buffer.compare(Buffer.from(places[step] ?? []), payloadOf(step, count))).toBe(0);
    }
    // All but what came with a header, which is short of it by what masks take.
    expect(4 * 420_002 - straight).toBeLessThan(5 * 16);
  }
});

it('a payload leaves from where it lies: shared memory, unaligned, or a view', async () => {
  const made = await listener({ ways: WAYS.tcp });
  const [a, b]: Link[] = await Promise.all([connectToPeer(made.url, { ...common, ways: WAYS.tcp }), made.accept(self)]);
  const shared = new Uint8Array(new SharedArrayBuffer(4 * 1000 + 3), 3);
  shared.set(payloadOf(5, 1000));
  const got = collector();
  a?.receive(collector());
  b?.receive(got);
  a?.send(headerOf(5, 1000), shared);
  await got.until(1);
  expect(Buffer.compare(got.frames[0]?.payload ?? Buffer.alloc(0), payloadOf(5, 1000))).toBe(0);
  expect(a?.bytesOut).toBeGreaterThan(FRAME_HEADER_BYTES + 4000);
});
