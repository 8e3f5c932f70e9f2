// Real sockets on loopback: who may link up, what a lost link does, and the same bits as the oracle over a whole mesh.

import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { rankMicrobatches } from '../../../protocol/batch-plan.ts';
import { openCollective, type OpenCollective } from '../../../worker/collective/join.ts';
import { connectToPeer, listenForPeers, type PeerListener } from '../../../worker/collective/links/ws.ts';
import { canonicalSum, spreadFloats } from './canonical-sum.ts';

const TOKEN = 'the token of the run';
const RUN = 'run-1';

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((o) => o.close()));
});

async function listener(): Promise<PeerListener> {
  const made = await listenForPeers({ host: '127.0.0.1', token: TOKEN, run: RUN });
  opened.push(made);
  return made;
}

interface MeshOptions {
  readonly worldSize: number;
  readonly microbatches: number;
  readonly length: number;
  readonly bucketFloats?: number;
}

async function mesh(options: MeshOptions): Promise<OpenCollective[]> {
  const ranks = Array.from({ length: options.worldSize }, (_, rank) => rank);
  const listeners = await Promise.all(ranks.map(listener));
  const members = ranks.map((rank) => ({
    worker: `w${rank}`,
    rank,
    peerUrl: listeners[rank]?.url ?? '',
    host: 'here',
  }));
  const { worldSize, microbatches, length: vectorLength, bucketFloats } = options;
  return Promise.all(
    ranks.map((rank) =>
      openCollective({
        listener: listeners[rank] as PeerListener,
        token: TOKEN,
        run: RUN,
        generation: 1,
        rank,
        worldSize,
        members,
        microbatches,
        vectorLength,
        ...(bucketFloats === undefined ? {} : { bucketFloats }),
      }),
    ),
  );
}

/** One step on every rank; each rank's sum. */
async function step(
  ranks: OpenCollective[],
  index: number,
  vectors: (Float32Array | null)[],
  length: number,
): Promise<Float32Array[]> {
  return Promise.all(
    ranks.map(async (collective) => {
      const mine = rankMicrobatches(vectors.length, collective.worldSize, collective.rank);
      for (let m = mine.start; m < mine.end; m++) collective.push(m, vectors[m] ?? null);
      const out = new Float32Array(length);
      const timing = await collective.allReduce(index, out);
      expect(timing.bytesOut > 0).toBe(collective.worldSize > 1);
      const sum = out.slice();
      // As the training loop does: the sum is changed in place as soon as it is there.
      out.fill(Number.NaN);
      return sum;
    }),
  );
}

describe('a mesh of sockets', () => {
  it.each([
    [1, 4, 1000, undefined],
    [2, 4, 122_573, undefined],
    [3, 4, 50_000, 7000],
    [4, 4, 100_000, 30_000],
    [5, 8, 20_000, undefined],
  ])(
    'of %i ranks gives the canonical sum of %i microbatches to the bit, step after step',
    async (worldSize, microbatches, length, bucketFloats) => {
      const ranks = await mesh({
        worldSize,
        microbatches,
        length,
        ...(bucketFloats === undefined ? {} : { bucketFloats }),
      });
      for (let index = 0; index < 4; index++) {
        const vectors = Array.from({ length: microbatches }, (_, m) =>
          index === 3 && m % 3 === 1 ? null : spreadFloats(length, 10 * index + m),
        );
        const expected = Buffer.from((canonicalSum(vectors) ?? new Float32Array(length)).buffer);
        for (const sum of await step(ranks, index, vectors, length))
          expect(expected.equals(Buffer.from(sum.buffer))).toBe(true);
      }
      await Promise.all(ranks.map((rank) => rank.close()));
    },
  );

  it('whose one rank goes away fails the step of the others, by its name', async () => {
    const [first, second, third] = (await mesh({ worldSize: 3, microbatches: 4, length: 100 })) as [
      OpenCollective,
      OpenCollective,
      OpenCollective,
    ];
    const out = new Float32Array(100);
    first.push(0, out);
    second.push(1, out);
    const waiting = [first.allReduce(0, out.slice()), second.allReduce(0, out.slice())];
    void third.close();
    const lost = { code: 'E_PEER_LOST', message: expect.stringContaining('rank 2 (w2 on here)') as string };
    await Promise.all(waiting.map((failing) => expect(failing).rejects.toMatchObject(lost)));
    await Promise.all([first.close(), second.close()]);
  });

  it('drops a peer that sends what is no frame, and says which', async () => {
    const [alone, other] = [await listener(), await listener()];
    const members = [
      { worker: 'w0', rank: 0, peerUrl: alone.url, host: 'here' },
      { worker: 'w1', rank: 1, peerUrl: other.url, host: 'here' },
    ];
    const common = { token: TOKEN, run: RUN, generation: 1 };
    const joining = openCollective({
      listener: alone,
      ...common,
      rank: 0,
      worldSize: 2,
      members,
      microbatches: 2,
      vectorLength: 4,
    });
    const liar = await connectToPeer(alone.url, { token: TOKEN, run: RUN, self: { generation: 1, rank: 1 } });
    const collective = await joining;
    collective.push(0, new Float32Array(4));
    const failing = collective.allReduce(0, new Float32Array(4));
    liar.send([Uint8Array.of(1, 2, 3)]);
    await expect(failing).rejects.toMatchObject({ code: 'E_FRAME' });
    expect((await liar.closed).because).toContain('protocol error');
    await collective.close();
  });
});

describe('the listener for peers', () => {
  /** The HTTP status that refuses the handshake. */
  async function refusal(url: string, headers: Record<string, string>): Promise<number | undefined> {
    const socket = new WebSocket(url, { headers });
    const [, response] = (await once(socket, 'unexpected-response')) as [unknown, { statusCode?: number }];
    return response.statusCode;
  }

  it('refuses a peer without the token, of another run, or from a web page', async () => {
    const { url } = await listener();
    const good = `${url}/peer?run=${RUN}&generation=1&rank=1`;
    const authorization = `Bearer ${TOKEN}`;
    expect(await refusal(good, {})).toBe(401);
    expect(await refusal(good, { authorization: `Bearer ${TOKEN}x` })).toBe(401);
    expect(await refusal(good, { authorization, origin: 'https://example.org' })).toBe(403);
    expect(await refusal(good.replace(RUN, 'run-2'), { authorization })).toBe(404);
    expect(await refusal(good.replace('rank=1', 'rank=x'), { authorization })).toBe(404);
  });

  it('refuses a second peer in the place of a first', async () => {
    const made = await listener();
    const self = { generation: 1, rank: 1 };
    const first = await connectToPeer(made.url, { token: TOKEN, run: RUN, self });
    await expect(connectToPeer(made.url, { token: TOKEN, run: RUN, self })).rejects.toMatchObject({
      code: 'E_PEER_LOST',
    });
    first.close('done');
    await first.closed;
  });

  it('delivers what was sent before anybody listened, in order', async () => {
    const made = await listener();
    const self = { generation: 1, rank: 1 };
    const out = await connectToPeer(made.url, { token: TOKEN, run: RUN, self });
    for (let i = 0; i < 5; i++) out.send([Uint8Array.of(i), Uint8Array.of(10 + i)]);
    await out.drained();
    const link = await made.accept(self);
    const seen: number[][] = [];
    await new Promise<void>((resolve) => {
      link.onMessage((bytes) => {
        seen.push([...bytes]);
        if (seen.length === 5) resolve();
      });
    });
    expect(seen).toEqual([
      [0, 10],
      [1, 11],
      [2, 12],
      [3, 13],
      [4, 14],
    ]);
    expect([out.bytesOut, link.bytesIn]).toEqual([10, 10]);
    link.close('enough');
    expect((await out.closed).because).toContain('enough');
  });
});
