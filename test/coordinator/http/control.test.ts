import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { Packr, unpack } from 'msgpackr';
import { describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket, type ClientOptions } from 'ws';
import type { ControlConnection } from '../../../coordinator/control-connection.ts';
import { openControl, type ControlOptions } from '../../../coordinator/http/control.ts';
import { PROTOCOL_VERSION, type WorkerMessage } from '../../../protocol/messages.ts';
import { judgeBy } from '../../control/judge.ts';

const HELLO: WorkerMessage = {
  kind: 'hello',
  protocol: PROTOCOL_VERSION,
  lockstep: '0.1.0',
  node: 'v20',
  host: 'h',
  pid: 7,
  localRank: null,
  rejoin: null,
};
const KEY = '0123456789abcdef'.repeat(2);
const QUICK = { floorMs: 100, ceilingMs: 100, lookMostMs: 50 };
// Not the codec under test: a peer of another make.
const pack = (value: unknown): Buffer => new Packr({ useRecords: false }).pack(value);

interface Rig {
  readonly url: string;
  readonly origin: string;
  readonly port: number;
  /** Why the links that are watched have ended. */
  readonly ended: string[];
  readonly refused: string[];
  readonly warnings: string[];
  readonly received: [string, WorkerMessage][];
  /** The next connection that was let in. */
  arrival(): Promise<ControlConnection>;
  close(): Promise<void>;
}

async function start(change: Partial<ControlOptions> = {}): Promise<Rig> {
  const server = createServer((_request, response) => response.end());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const arrived: ControlConnection[] = [];
  const waiting: ((connection: ControlConnection) => void)[] = [];
  const rig = { refused: [] as string[], warnings: [] as string[], received: [] as [string, WorkerMessage][] };
  const control = openControl({
    server,
    judge: judgeBy('secret'),
    onConnect: (connection) => {
      connection.onMessage((message) => rig.received.push([connection.id, message]));
      const wanted = waiting.shift();
      if (wanted === undefined) arrived.push(connection);
      else wanted(connection);
    },
    onRefused: (code) => rig.refused.push(code),
    onWarning: (message) => rig.warnings.push(message),
    ...change,
  });
  const close = async (): Promise<void> => {
    await control.close();
    server.closeAllConnections();
    server.close();
  };
  onTestFinished(close);
  return {
    ...rig,
    port,
    ended: [],
    origin: `ws://127.0.0.1:${port}`,
    url: `ws://127.0.0.1:${port}/control`,
    arrival: () => {
      const connection = arrived.shift();
      if (connection !== undefined) return Promise.resolve(connection);
      return new Promise((resolve) => {
        waiting.push(resolve);
      });
    },
    close,
  };
}

function dial(url: string, options: ClientOptions = {}): WebSocket {
  const socket = new WebSocket(url, { headers: { authorization: 'Bearer secret' }, ...options });
  onTestFinished(() => {
    socket.on('error', () => {});
    socket.terminate();
  });
  return socket;
}

async function join(rig: Rig): Promise<{ socket: WebSocket; connection: ControlConnection }> {
  const socket = dial(rig.url);
  await once(socket, 'open');
  return { socket, connection: await rig.arrival() };
}

const withKey = (key: string): ClientOptions => ({
  headers: { authorization: 'Bearer secret', 'lockstep-heart': key },
});

async function joinWithHeart(rig: Rig): Promise<{ socket: WebSocket; connection: ControlConnection }> {
  const socket = dial(rig.url, withKey(KEY));
  await once(socket, 'open');
  const connection = await rig.arrival();
  void connection.closed.then(({ because }) => rig.ended.push(because));
  return { socket, connection };
}

async function openHeart(rig: Rig): Promise<WebSocket> {
  const heart = dial(`${rig.origin}/heart`, withKey(KEY));
  await once(heart, 'open');
  return heart;
}

async function statusOf(socket: WebSocket): Promise<number | undefined> {
  const [, response] = (await once(socket, 'unexpected-response')) as [unknown, { statusCode?: number }];
  return response.statusCode;
}

async function ending(socket: WebSocket): Promise<[number, string]> {
  const [code, reason] = (await once(socket, 'close')) as [number, Buffer];
  return [code, reason.toString()];
}

describe('who is let in', () => {
  it('a peer with the token is, and is named in the order of arrival', async () => {
    const rig = await start();
    expect((await join(rig)).connection.id).toBe('w0');
    expect((await join(rig)).connection.id).toBe('w1');
    expect(rig.refused).toEqual([]);
  });

  it.each<[string, ClientOptions]>([
    ['no token', { headers: {} }],
    ['a wrong token', { headers: { authorization: 'Bearer secrex' } }],
    ['a longer token', { headers: { authorization: 'Bearer secret2' } }],
    ['an empty token', { headers: { authorization: 'Bearer ' } }],
    ['another scheme', { headers: { authorization: 'Basic secret' } }],
  ])('%s is 401', async (_, options) => {
    const rig = await start();
    expect(await statusOf(dial(rig.url, options))).toBe(401);
    expect(rig.refused).toEqual(['E_UNAUTHORIZED']);
  });

  it('a handshake that was recorded is not, neither while its worker is there nor after it has left', async () => {
    const rig = await start();
    const { socket } = await joinWithHeart(rig);
    expect(await statusOf(dial(rig.url, withKey(KEY)))).toBe(409);
    const left = once(socket, 'close');
    socket.close();
    await left;
    expect(await statusOf(dial(rig.url, withKey(KEY)))).toBe(409);
    expect(rig.refused).toEqual(['E_REPLAYED', 'E_REPLAYED']);
  });

  it('a browser is not, whatever it knows: 403 for any Origin', async () => {
    const rig = await start();
    expect(await statusOf(dial(rig.url, { origin: `http://127.0.0.1:${rig.port}` }))).toBe(403);
    expect(rig.refused).toEqual(['E_ORIGIN']);
  });

  it('another path is 404', async () => {
    const rig = await start();
    expect(await statusOf(dial(`${rig.url}s`))).toBe(404);
  });

  it('more than the limit are 503, and one that leaves makes room', async () => {
    const rig = await start({ connectionsMax: 1 });
    const { socket, connection } = await join(rig);
    expect(await statusOf(dial(rig.url))).toBe(503);
    expect(rig.refused).toEqual(['E_TOO_MANY']);
    socket.close();
    await connection.closed;
    await join(rig);
  });

  it('a refused peer’s connection is closed, also when the peer does not close its side', async () => {
    const rig = await start();
    const socket = connect({ port: rig.port, host: '127.0.0.1', allowHalfOpen: true });
    onTestFinished(() => {
      socket.destroy();
    });
    socket.resume();
    socket.write(
      'GET /control HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n',
    );
    await once(socket, 'end');
    // The other side is gone entirely: what is still sent is answered by a reset.
    const reset = once(socket, 'error');
    const writing = setInterval(() => socket.write('x'), 1);
    onTestFinished(() => clearInterval(writing));
    const [error] = (await reset) as [Error & { code?: string }];
    expect(error.code).toMatch(/^(?:ECONNRESET|EPIPE)$/);
  });

  it('compression is not agreed to', async () => {
    const rig = await start();
    const socket = dial(rig.url, { perMessageDeflate: true });
    await once(socket, 'open');
    expect(socket.extensions).toBe('');
  });

  it('a peer that says nothing in time is closed', async () => {
    const rig = await start({ timing: { helloMs: 5 } });
    const { socket, connection } = await join(rig);
    expect(await ending(socket)).toEqual([1008, 'E_HANDSHAKE: no "hello" within 0.005 s']);
    expect((await connection.closed).because).toBe('no "hello" within 0.005 s');
    expect(rig.refused).toEqual(['E_HANDSHAKE']);
  });
});

describe('messages', () => {
  it('come in order, parsed, under the name of who sent them', async () => {
    const rig = await start();
    const { socket, connection } = await join(rig);
    socket.send(pack(HELLO));
    socket.send(pack({ kind: 'linked', generation: 3, step: 0, digest: 'a'.repeat(64) }));
    socket.close();
    await connection.closed;
    expect(rig.received).toEqual([
      ['w0', HELLO],
      ['w0', { kind: 'linked', generation: 3, step: 0, digest: 'a'.repeat(64) }],
    ]);
  });

  it('go out as MessagePack', async () => {
    const rig = await start();
    const { socket, connection } = await join(rig);
    connection.send({ kind: 'stop', because: 'Ctrl-C' });
    const [data] = (await once(socket, 'message')) as [Buffer];
    expect(unpack(data)).toEqual({ kind: 'stop', because: 'Ctrl-C' });
  });

  it.each([
    ['not MessagePack', Buffer.from([0xc1])],
    ['of no known kind', pack({ kind: 'gossip' })],
    ['with a field of the wrong type', pack({ ...HELLO, pid: 'seven' })],
    ['text', 'hello'],
  ])('one that is %s closes that peer with E_MESSAGE; others go on', async (_, message) => {
    const rig = await start();
    const good = await join(rig);
    const bad = await join(rig);
    const end = ending(bad.socket);
    bad.socket.send(message);
    bad.socket.send(pack(HELLO));
    const [code, reason] = await end;
    expect(code).toBe(1008);
    expect(reason).toMatch(/^E_MESSAGE: /);
    expect(reason.length).toBeLessThanOrEqual(123);
    await bad.connection.closed;
    // Nothing that came after it was heard.
    expect(rig.received).toEqual([]);
    expect(rig.refused).toEqual(['E_MESSAGE']);
    expect(rig.warnings).toHaveLength(1);
    expect(rig.warnings[0]).toMatch(/^w1 sent a /);
    good.socket.send(pack(HELLO));
    good.socket.close();
    await good.connection.closed;
    expect(rig.received).toEqual([['w0', HELLO]]);
  });

  it('one that is too long closes that peer with 1009', async () => {
    const rig = await start();
    const { socket, connection } = await join(rig);
    const end = ending(socket);
    socket.send(Buffer.alloc(16 * 1024 * 1024 + 1));
    expect((await end)[0]).toBe(1009);
    expect((await connection.closed).because).toContain('exceeded');
  });
});

describe('the end of a connection', () => {
  it('is told with the code and reason that the core gave', async () => {
    const rig = await start();
    const { socket, connection } = await join(rig);
    connection.close('E_FINGERPRINT', 'other bits');
    expect(await ending(socket)).toEqual([1008, 'E_FINGERPRINT: other bits']);
    expect((await connection.closed).because).toBe('other bits');
  });

  it('a reason too long for a close frame is cut at a character', async () => {
    const rig = await start();
    const { socket, connection } = await join(rig);
    connection.close('E_X', 'é'.repeat(100));
    // "E_X: " has 5 bytes; 59 two-byte characters make 123.
    expect(await ending(socket)).toEqual([1008, `E_X: ${'é'.repeat(59)}`]);
  });

  // Well before the WebSocket library itself would give up on it, after 30 s.
  it('a peer that ignores its closing is cut off', { timeout: 10_000 }, async () => {
    const rig = await start({ timing: { closeGraceMs: 5 } });
    const { socket, connection } = await join(rig);
    socket.pause();
    connection.close('E_X', 'go');
    expect((await connection.closed).because).toBe('go');
  });

  it('a peer that dies without a word is known by its connection', async () => {
    const rig = await start();
    const { socket, connection } = await join(rig);
    socket.terminate();
    expect((await connection.closed).because).toBe('its link closed (code 1006)');
  });

  it('a peer that no longer answers pings is dead', async () => {
    const rig = await start({ timing: { pingEveryMs: 5, silenceMs: 20 } });
    const { socket, connection } = await join(rig);
    socket.pause();
    expect((await connection.closed).because).toContain('nothing was heard of it');
  });

  it('a peer that answers pings lives, however long it says nothing', async () => {
    let clockMs = 0;
    const rig = await start({ timing: { pingEveryMs: 1, silenceMs: 1000 }, now: () => clockMs });
    const { socket } = await join(rig);
    socket.send(pack(HELLO));
    // The clock moves with the pings: three times the silence that is allowed, in 100 steps.
    for (let i = 0; i < 100 && socket.readyState === WebSocket.OPEN; i++) {
      await Promise.race([once(socket, 'ping'), once(socket, 'close')]);
      clockMs += 30;
    }
    expect(socket.readyState).toBe(WebSocket.OPEN);
  });

  it('a peer that answers nothing lives as long as its heart beats, and dies with it', async () => {
    const rig = await start({ timing: { pingEveryMs: 5, silenceMs: 20, beatEveryMs: 5, silence: QUICK } });
    const { socket, connection } = await joinWithHeart(rig);
    socket.pause();
    const heart = await openHeart(rig);
    // Ten times as long as a link without a heart is given, in beats.
    for (let beats = 0; beats < 40; beats++) await once(heart, 'ping');
    expect(rig.ended).toEqual([]);
    heart.pause();
    expect((await connection.closed).because).toMatch(
      /^nothing was heard of it for 0\.\d s, where 0\.1 s is the limit$/,
    );
  });

  it('a peer whose heart’s connection ends is dead, once there was time to hear what it said before', async () => {
    const rig = await start({ timing: { closeGraceMs: 5 } });
    const { connection } = await joinWithHeart(rig);
    const heart = await openHeart(rig);
    heart.terminate();
    expect((await connection.closed).because).toBe('its heart stopped');
  });

  it('a link that ends takes its heart with it', async () => {
    const rig = await start();
    const { socket } = await joinWithHeart(rig);
    const heart = await openHeart(rig);
    socket.close();
    await once(heart, 'close');
    expect(heart.readyState).toBe(WebSocket.CLOSED);
  });

  it.each<[string, string, number]>([
    ['of a link that is not there', 'f'.repeat(32), 404],
    ['with a malformed key', 'me', 404],
    ['for a link that has one', KEY, 409],
  ])('a heart %s is refused', async (_, key, status) => {
    const rig = await start();
    await joinWithHeart(rig);
    await openHeart(rig);
    expect(await statusOf(dial(`${rig.origin}/heart`, withKey(key)))).toBe(status);
  });

  it('a heart shows the token, too, and a second link may not take the first one’s heart', async () => {
    const rig = await start();
    await joinWithHeart(rig);
    expect(await statusOf(dial(`${rig.origin}/heart`, { headers: { 'lockstep-heart': KEY } }))).toBe(401);
    expect(await statusOf(dial(rig.url, withKey(KEY)))).toBe(409);
  });

  it('at the end of the run all are closed with 1000, and new ones find nobody', async () => {
    const rig = await start();
    const { socket } = await join(rig);
    const end = ending(socket);
    await rig.close();
    expect(await end).toEqual([1000, 'the run is over']);
    const [error] = (await once(dial(rig.url), 'error')) as [Error & { code?: string }];
    expect(error.code).toBe('ECONNREFUSED');
  });
});
