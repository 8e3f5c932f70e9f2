// Links over a real NATS server on loopback.

import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { connectNats, type Nats } from '../../nats/connect.ts';
import { WINDOW_BYTES } from '../../protocol/byte-stream.ts';
import { fixedSilence } from '../../protocol/silence.ts';
import { connectOverNats, listenOverNats } from '../../worker/collective/links/nats.ts';
import { serverAt, startNatsServer, type RunningServer } from './nats-server.ts';
import { collector, headerOf, linkContract, payloadOf, type LinkPair } from '../worker/collective/links/contract.ts';

const TOKEN = 'the token of the run';
const RUN = 'run 1.with*odd>signs';
const self = { generation: 1, rank: 1 };
const common = { token: TOKEN, run: RUN, self, timing: { beatMs: 100, silence: fixedSilence(3000) } };

let server: RunningServer;
const connections: Nats[] = [];
const connection = async (): Promise<Nats> => {
  const made = await connectNats(serverAt(server.url), 'test');
  connections.push(made);
  return made;
};

beforeAll(async () => {
  server = await startNatsServer();
});
afterEach(async () => {
  for (const one of connections.splice(0)) await one.close();
});
afterAll(async () => {
  await server.kill();
});

async function pair(): Promise<LinkPair> {
  const [first, second, third] = [await connection(), await connection(), await connection()];
  const listener = await listenOverNats(second, common);
  const [a, b] = await Promise.all([connectOverNats(first, listener.url, common), listener.accept(self)]);
  return {
    ends: [a, b],
    kill: () => void first.connection.close(),
    sendGarbage: () => {
      // Who hears everything on the server learns where the first end sends to.
      third.connection.subscribe('lockstep.>', {
        callback: (_error, { subject }) => {
          if (subject.endsWith('.listener')) third.connection.publish(subject, Uint8Array.of(1, 2, 3));
          return undefined;
        },
      });
      void third.connection.flush().then(() => a.send(headerOf(1, 1), payloadOf(1, 1)));
    },
  };
}

describe('a link over NATS', () => {
  linkContract(pair);

  it('has no more under way than its window, and payloads larger than a message of the server', async () => {
    const [a, b] = (await pair()).ends;
    a.receive(collector());
    const count = WINDOW_BYTES;
    a.send(headerOf(1, count), payloadOf(1, count));
    expect(a.bytesOut).toBe(WINDOW_BYTES);
    const got = collector();
    b.receive(got);
    await got.until(1);
    expect(Buffer.compare(got.frames[0]?.payload ?? Buffer.alloc(0), payloadOf(1, count))).toBe(0);
    a.close('done');
    await b.closed;
  });

  it('ends when a message was lost, rather than go on with a hole', async () => {
    const { ends, sendGarbage } = await pair();
    const [a, b] = ends;
    a.receive(collector());
    b.receive(collector());
    sendGarbage();
    expect((await b.closed).error?.message).toMatch(/malformed message over NATS|where \d+ was due/);
  });
});

describe('the handshake over NATS', () => {
  it('refuses a wrong token and a second caller, and says that nobody listens', async () => {
    const [first, second] = [await connection(), await connection()];
    const listener = await listenOverNats(second, common);
    const attempt = async (change: object): Promise<unknown> =>
      connectOverNats(first, listener.url, { ...common, ...change }).then(
        () => 'linked',
        (error: unknown) => error,
      );
    expect(await attempt({ token: 'another' })).toMatchObject({ code: 'E_UNAUTHORIZED' });
    expect(await attempt({ token: null })).toMatchObject({ code: 'E_UNAUTHORIZED' });
    expect(await attempt({})).toBe('linked');
    expect(await attempt({})).toMatchObject({ code: 'E_PEER_LOST', message: expect.stringContaining('409') as string });
    await listener.close();
    expect(await attempt({ self: { generation: 2, rank: 1 } })).toMatchObject({
      code: 'E_PEER_LOST',
      message: expect.stringContaining('nobody listens there') as string,
    });
  });

  it('the end of the server is the end of the link', async () => {
    const own = await startNatsServer();
    onTestFinished(() => own.kill());
    const [first, second] = [await connectNats(serverAt(own.url), 'a'), await connectNats(serverAt(own.url), 'b')];
    const listener = await listenOverNats(second, common);
    const [a, b] = await Promise.all([connectOverNats(first, listener.url, common), listener.accept(self)]);
    await own.kill();
    for (const end of [a, b]) expect((await end.closed).because).toContain(own.url);
  });
});
