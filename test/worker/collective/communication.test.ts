// Several workers' collectives over real links, in place and with a communication thread: the oracle's bits, whatever carries them and
// whatever the network does to it.

import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { rankMicrobatches } from '../../../protocol/batch-plan.ts';
import { startCommunication } from '../../../worker/collective/shell/communication.ts';
import type { Communication, OpenCollective } from '../../../worker/collective/shell/generation.ts';
import type { Member } from '../../../worker/collective/shell/link-up.ts';
import { connectToPeer, type LocalWays } from '../../../worker/collective/links/ws.ts';
import { canonicalSum, compressedSum, spreadFloats } from './canonical-sum.ts';
import { collector, headerOf } from './links/contract.ts';
import { proxyTo, type Fault } from './links/proxy.ts';

const RUN = 'run-1';
const TOKEN = 'the token of the run';
const SHM: LocalWays = { unix: true, shm: true };
const TCP: LocalWays = { unix: false, shm: false };

/** Two threads' clocks are compared by readings that are this far apart at most. */
const READ_SECONDS = 2e-6;

const opened: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of opened.splice(0).toReversed()) await one.close();
});

interface MeshOptions {
  readonly worldSize: number;
  readonly microbatches: number;
  readonly length: number;
  readonly bucketFloats?: number;
  readonly threaded?: boolean;
  readonly ways?: LocalWays;
  readonly hosts?: readonly string[];
  /** All but the last three floats. */
  readonly half?: 'bf16' | 'fp16';
  readonly isTraced?: boolean;
  /** Puts a proxy with a fault before every listener. */
  readonly fault?: () => Fault;
}

async function mesh(options: MeshOptions): Promise<{ ranks: OpenCollective[]; workers: Communication[] }> {
  const { threaded = false, ways = SHM, hosts, fault } = options;
  const workers = await Promise.all(
    Array.from({ length: options.worldSize }, async () => {
      const made = await startCommunication({ host: '127.0.0.1', token: TOKEN, run: RUN, ways, threaded });
      opened.push(made);
      return made;
    }),
  );
  const urls = await Promise.all(
    workers.map(async ({ url }) => {
      if (fault === undefined) return url;
      const proxy = await proxyTo(url, fault());
      opened.push(proxy);
      return proxy.url;
    }),
  );
  const members = urls.map((peerUrl, rank) => ({ worker: `w${rank}`, rank, peerUrl, host: hosts?.[rank] ?? 'here' }));
  const { microbatches, length, bucketFloats, half, isTraced = false } = options;
  const compression = half === undefined ? null : { elements: half, floats: length - 3 };
  const plan = { generation: 1, microbatches, length, firstStep: 0, compression, isTraced };
  const ranks = await Promise.all(
    workers.map(async (worker, rank) => {
      const bucket = bucketFloats === undefined ? {} : { bucketFloats };
      const made = await worker.open({ ...plan, ...bucket, rank }, members);
      opened.push(made);
      return made;
    }),
  );
  return { ranks, workers };
}

/**
 * One rank's step: its vectors written, its buckets offered, the sum. `isCopied`: its last vector lies elsewhere, and the sum is wanted
 * there, too; both are used up at once.
 */
async function stepOf(
  collective: OpenCollective,
  vectors: readonly (Float32Array | null)[],
  length: number,
  isCopied = false,
): Promise<Float32Array> {
  const mine = rankMicrobatches(vectors.length, collective.worldSize, collective.rank);
  for (let m = mine.start; m < mine.end; m++) {
    const vector = vectors[m] ?? null;
    if (vector === null) {
      await collective.absent(m);
      continue;
    }
    if (isCopied && m === mine.end - 1) {
      const own = vector.slice();
      // Some want the sum in the vector's place.
      const out = collective.rank % 2 === 0 ? new Float32Array(length) : own;
      await collective.allReduceCopied(m, own, out);
      const sum = out.slice();
      own.fill(Number.NaN);
      return sum;
    }
    (await collective.slot(m)).set(vector);
    for (const bucket of collective.buckets.keys()) collective.ready(bucket);
  }
  return (await collective.allReduce()).sum.slice(0, length);
}

async function steps(
  ranks: readonly OpenCollective[],
  microbatches: number,
  length: number,
  half?: MeshOptions['half'],
): Promise<void> {
  const residuals = Array.from({ length: microbatches }, () => new Float32Array(length - 3));
  // What a resumed run is handed.
  for (const { residuals: own } of half === undefined ? [] : ranks) {
    for (const [m, residual] of own) {
      residual.fill(m / 7);
      residuals[m]?.fill(m / 7);
    }
  }
  const sumOf = (vectors: readonly (Float32Array | null)[]): Float32Array => {
    if (half === undefined) return canonicalSum(vectors) ?? new Float32Array(length);
    const part = (from: number, to: number): (Float32Array | null)[] =>
      vectors.map((v) => v?.subarray(from, to) ?? null);
    const sum = new Float32Array(length);
    sum.set(compressedSum(half, part(0, length - 3), residuals) ?? []);
    sum.set(canonicalSum(part(length - 3, length)) ?? [], length - 3);
    return sum;
  };
  for (let index = 0; index < 4; index++) {
    const vectors = Array.from({ length: microbatches }, (_, m) =>
      index === 3 && m % 3 === 1 ? null : spreadFloats(length, 10 * index + m),
    );
    const expected = Buffer.from(sumOf(vectors).buffer);
    const sums = await Promise.all(ranks.map(async (rank) => stepOf(rank, vectors, length, index === 1)));
    for (const sum of sums) if (Buffer.compare(Buffer.from(sum.buffer), expected) !== 0) throw new Error('other bits');
  }
  for (const { residuals: own } of ranks) {
    for (const [m, residual] of own) {
      const expected = Buffer.from((residuals[m] ?? new Float32Array(0)).buffer);
      if (Buffer.compare(Buffer.from(residual.slice().buffer), expected) !== 0) throw new Error('other residuals');
    }
  }
}

describe.each([
  ['in place', false],
  ['with a communication thread', true],
])('%s', (_where, threaded) => {
  it.each([
    ['one rank', { worldSize: 1, microbatches: 4, length: 1000 }],
    ['the size of the tutorial CNN over shared memory', { worldSize: 2, microbatches: 4, length: 122_573 }],
    ['several buckets over shared memory', { worldSize: 3, microbatches: 4, length: 50_000, bucketFloats: 7000 }],
    ['TCP', { worldSize: 4, microbatches: 4, length: 100_000, bucketFloats: 30_000, ways: TCP }],
    ['TCP, empty slices', { worldSize: 4, microbatches: 4, length: 5, bucketFloats: 3, ways: TCP }],
    ['a unix socket', { worldSize: 2, microbatches: 2, length: 300_000, ways: { unix: true, shm: false } }],
    ['gradients in bf16, one rank', { worldSize: 1, microbatches: 4, length: 1003, half: 'bf16' as const }],
    [
      'gradients in bf16 over shared memory',
      { worldSize: 3, microbatches: 4, length: 30_001, bucketFloats: 3000, half: 'bf16' as const },
    ],
    [
      'gradients in fp16 over TCP, by two levels',
      { worldSize: 3, microbatches: 8, length: 9999, ways: TCP, hosts: ['a', 'a', 'b'], half: 'fp16' as const },
    ],
    [
      'two hosts, by two levels',
      { worldSize: 5, microbatches: 8, length: 20_000, bucketFloats: 3000, hosts: ['a', 'a', 'a', 'b', 'b'] },
    ],
  ])('the ranks get the canonical sum to the bit, step after step: %s', async (_what, options: MeshOptions) => {
    const { ranks } = await mesh({ ...options, threaded });
    await expect(steps(ranks, options.microbatches, options.length, options.half)).resolves.toBeUndefined();
  });

  it.each([SHM, TCP])(
    'a traced step tells when each bucket was how far, on one clock for all ranks: %o',
    async (ways) => {
      const sizes = { worldSize: 3, microbatches: 4, length: 50_000, bucketFloats: 7000 };
      const { ranks } = await mesh({ ...sizes, ways, threaded, isTraced: true });
      for (let step = 0; step < 3; step++) {
        const began = performance.now() / 1000;
        const all = await Promise.all(
          ranks.map(async (collective) => {
            const mine = rankMicrobatches(4, 3, collective.rank);
            for (let m = mine.start; m < mine.end; m++) {
              (await collective.slot(m)).set(spreadFloats(50_000, m));
              for (const bucket of collective.buckets.keys()) collective.ready(bucket);
            }
            const { marks } = await collective.allReduce();
            return marks?.slice() ?? new Float64Array(0);
          }),
        );
        const ended = performance.now() / 1000;
        for (const marks of all) {
          expect(marks).toHaveLength(8 * 4);
          for (let at = 0; at < marks.length; at += 4) {
            const times = [began, ...marks.subarray(at, at + 4), ended];
            expect(times).toEqual(times.toSorted((a, b) => a - b));
            // Nobody has all slices before each is summed by its owner.
            for (const other of all)
              expect((marks[at + 3] ?? 0) - (other[at + 2] ?? Infinity)).toBeGreaterThan(-READ_SECONDS);
          }
        }
      }
    },
  );

  it('the loss of a rank fails the step of the others, by its name', async () => {
    const { ranks } = await mesh({ worldSize: 3, microbatches: 4, length: 100, threaded });
    const [first, second, third] = ranks as [OpenCollective, OpenCollective, OpenCollective];
    const vectors = Array.from({ length: 4 }, (_, m) => spreadFloats(100, m));
    const waiting = [stepOf(first, vectors, 100), stepOf(second, vectors, 100)];
    const lost = { code: 'E_PEER_LOST', message: expect.stringContaining('rank 2 (w2 on here)') as string };
    const failing = waiting.map((one) => expect(one).rejects.toMatchObject(lost));
    await third.close();
    await Promise.all(failing);
  });

  it.each([SHM, TCP])('who waits for a peer that computes does other work, until there is none: %o', async (ways) => {
    const { ranks } = await mesh({ worldSize: 2, microbatches: 2, length: 100, threaded, ways });
    const [first, second] = ranks as [OpenCollective, OpenCollective];
    const vectors = [spreadFloats(100, 1), spreadFloats(100, 2)];
    (await first.slot(0)).set(vectors[0] ?? []);
    for (const bucket of first.buckets.keys()) first.ready(bucket);
    let pieces = 0;
    let isDone: () => void = () => {};
    const done = new Promise<void>((resolve) => {
      isDone = resolve;
    });
    const summing = first.allReduce(() => {
      if (++pieces === 5) isDone();
      return pieces < 5;
    });
    // The peer computes until the other work is done.
    await done;
    const sums = [await stepOf(second, vectors, 100), (await summing).sum];
    expect(pieces).toBe(5);
    for (const sum of sums) expect([...sum]).toEqual([...(canonicalSum(vectors) ?? [])]);
  });

  it('a peer that sends what is not its own is dropped by name', async () => {
    const alone = await startCommunication({ host: '127.0.0.1', token: TOKEN, run: RUN, threaded });
    opened.push(alone);
    const members = [0, 1].map((rank) => ({ worker: `w${rank}`, rank, peerUrl: alone.url, host: 'here' }));
    const opening = alone.open({ generation: 1, rank: 0, microbatches: 2, length: 4, firstStep: 0 }, members);
    const liar = await connectToPeer(alone.url, { token: TOKEN, run: RUN, self: { generation: 1, rank: 1 } });
    const collective = await opening;
    opened.push(collective);
    liar.receive(collector());
    liar.send({ ...headerOf(0, 2), rank: 1 }, new Uint8Array(8));
    await expect(stepOf(collective, [new Float32Array(4), null], 4)).rejects.toMatchObject({
      code: 'E_PROTOCOL',
      message: expect.stringMatching(/rank 1 \(w1 on here\) is dropped: rank 1 sent node 0\+1/) as string,
    });
    expect((await liar.closed).because).toContain('not its own');
  });
});

describe('who links up', () => {
  const place = { host: '127.0.0.1', token: TOKEN, run: RUN };
  const plan = { generation: 1, microbatches: 2, length: 4, firstStep: 0 };
  const start = async (options: Partial<Parameters<typeof startCommunication>[0]>): Promise<Communication> => {
    const made = await startCommunication({ ...place, threaded: false, ...options });
    opened.push(made);
    return made;
  };

  it('is the rank that it says: another worker of the run is refused, told of, and keeps the right one out of nothing', async () => {
    const refused: string[] = [];
    const [first, second] = [await start({ onRefused: (code) => refused.push(code) }), await start({})];
    const members = (key: string): Member[] =>
      [first, second].map(({ url }, rank) => ({ worker: `w${rank}`, rank, peerUrl: url, host: 'here', key }));
    const opening = first.open({ ...plan, rank: 0 }, members('k'));
    // Who is called and does not take it is to blame by its rank: the coordinator sends away whom all lose.
    await expect(second.open({ ...plan, rank: 1 }, members('guess'))).rejects.toMatchObject({
      code: 'E_PEER_LOST',
      peer: 0,
    });
    expect(refused).toEqual(['E_UNAUTHORIZED']);
    const both = await Promise.all([opening, second.open({ ...plan, rank: 1 }, members('k'))]);
    opened.push(...both);
    expect(both.map(({ failure }) => failure)).toEqual([null, null]);
  });

  it('a stranger is told of from the thread, too', async () => {
    const refused: string[] = [];
    const { url } = await start({ threaded: true, onRefused: (code) => refused.push(code) });
    const stranger = { token: 'a guess', run: RUN, self: { generation: 1, rank: 1 } };
    await expect(connectToPeer(url, stranger)).rejects.toMatchObject({ code: 'E_UNAUTHORIZED' });
    await expect.poll(() => refused).toEqual(['E_UNAUTHORIZED']);
  });
});

describe('a network that is not kind', () => {
  /** A seeded generator: the same faults every time. */
  const random = (seed: number): (() => number) => {
    let state = seed;
    return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  };
  const oneByteAtATime: Fault = (bytes, forward) => {
    for (let i = 0; i < bytes.length; i++) forward(bytes.subarray(i, i + 1));
  };
  /** Each link runs late by its own number of turns of the event loop, which changes all the time: links overtake each other. */
  const late = (seed: number): Fault => {
    const next = random(seed);
    let last = Promise.resolve();
    return (bytes, forward) => {
      const turns = Math.floor(next() * 20);
      const before = last;
      last = (async () => {
        await before;
        for (let turn = 0; turn < turns; turn++) await nextTurn();
        const cut = Math.floor(next() * bytes.length);
        forward(bytes.subarray(0, cut));
        forward(bytes.subarray(cut));
      })();
    };
  };
  let seed = 1;
  it.each([
    ['one byte at a time, TCP', 300, () => oneByteAtATime, TCP],
    ['one byte at a time, the socket beside shared memory', 100_000, () => oneByteAtATime, SHM],
    ['late and out of step with each other, TCP', 30_000, () => late(seed++), TCP],
    ['late and out of step with each other, shared memory', 100_000, () => late(seed++), SHM],
  ])('changes no bit: %s', async (_what, length, fault, ways) => {
    const { ranks } = await mesh({ worldSize: 3, microbatches: 4, length, bucketFloats: 4000, ways, fault });
    await expect(steps(ranks, 4, length)).resolves.toBeUndefined();
  });

  it('that cuts a frame in the middle ends the step with the name of the peer', async () => {
    // The handshake passes, and the first half of the first frame.
    let budget = 3000;
    const cutOff: Fault = (bytes, forward) => {
      const passed = bytes.subarray(0, budget);
      budget -= passed.length;
      forward(passed);
      if (passed.length < bytes.length) throw new Error('cut');
    };
    const proxies: { cut(): void }[] = [];
    const worker = async (): Promise<Communication> => {
      const made = await startCommunication({ host: '127.0.0.1', token: TOKEN, run: RUN, ways: TCP, threaded: false });
      opened.push(made);
      return made;
    };
    const [zero, one] = [await worker(), await worker()];
    const proxy = await proxyTo(zero.url, (bytes, forward) => {
      try {
        cutOff(bytes, forward);
      } catch {
        for (const p of proxies) p.cut();
      }
    });
    proxies.push(proxy);
    opened.push(proxy);
    const members = [
      { worker: 'w0', rank: 0, peerUrl: proxy.url, host: 'here' },
      { worker: 'w1', rank: 1, peerUrl: one.url, host: 'here' },
    ];
    const plan = { generation: 1, microbatches: 2, length: 10_000, firstStep: 0 };
    const ranks = await Promise.all([zero, one].map(async (w, rank) => w.open({ ...plan, rank }, members)));
    const vectors = [spreadFloats(10_000, 1), spreadFloats(10_000, 2)];
    const failed = await Promise.allSettled(ranks.map(async (rank) => stepOf(rank, vectors, 10_000)));
    expect(failed.map((f) => (f.status === 'rejected' ? (f.reason as Error).message : ''))).toEqual([
      expect.stringContaining('the link to rank 1 (w1 on here) is lost'),
      expect.stringContaining('the link to rank 0 (w0 on here) is lost'),
    ]);
    for (const rank of ranks) opened.push(rank);
  });
});
