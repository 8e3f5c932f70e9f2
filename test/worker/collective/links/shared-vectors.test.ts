// Payloads that peers read where they lie: what a link through shared memory does with vectors that are shared, with addresses and
// places that are not what they should be, and with what is left when generations end.

import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, describe, expect, it } from 'vitest';
import type { Link, SharedVectors } from '../../../../protocol/link.ts';
import { openPeerVectors, shareVectors } from '../../../../worker/collective/links/shared-vectors.ts';
import { connectToPeer, listenForPeers } from '../../../../worker/collective/links/ws.ts';
import { startCommunication } from '../../../../worker/collective/shell/communication.ts';
import type { Communication, OpenCollective } from '../../../../worker/collective/shell/generation.ts';
import { reservePages } from '../../../../worker/collective/shell/memory.ts';
import { collector, headerOf, payloadOf } from './contract.ts';

const common = { token: null, run: 'run-1', self: { generation: 1, rank: 1 } };
const WORD_AT = 1024;

const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const one of opened.splice(0).toReversed()) await one.close();
});

async function pair(): Promise<readonly [Link, Link]> {
  const listener = await listenForPeers({ host: '127.0.0.1', token: null, run: 'run-1' });
  opened.push(listener);
  return Promise.all([connectToPeer(listener.url, common), listener.accept(common.self)]);
}

/** Memory of `bytes` bytes that `vectors` shares. */
function sharing(bytes: number, isShared = false): { all: Uint8Array; vectors: SharedVectors } {
  const all = new Uint8Array(reservePages(bytes / 4, isShared).buffer);
  const vectors = shareVectors(all, WORD_AT);
  opened.push(vectors);
  return { all, vectors };
}

/** Both ends listening, and a's vectors offered to b, which has done with them what it can. */
async function offering(vectors: SharedVectors) {
  const [a, b] = await pair();
  const [atA, atB] = [collector(), collector()];
  a.receive(atA);
  b.receive(atB);
  a.share?.(vectors);
  // What b has to say of them comes before what it says next.
  a.send(headerOf(0, 1), payloadOf(0, 1));
  await atB.until(1);
  b.send(headerOf(0, 1), payloadOf(0, 1));
  await atA.until(1);
  return { a, b, atB };
}

const linkOf = (fd: string): string => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
};
const descriptors = (): number =>
  readdirSync('/proc/self/fd').filter((fd) => linkOf(fd).includes('memfd:lockstep')).length;
const mappings = (): number =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes('memfd:lockstep')).length;

describe.each([
  ['memory of one thread', false],
  ['memory that threads share', true],
])('a payload in %s', (_what, isShared) => {
  it('is read where it lies, in the order sent, and counted; its sender hears when it has been', async () => {
    const { all, vectors } = sharing(8 << 20, isShared);
    const { a, b, atB } = await offering(vectors);
    const before = [a.bytesOut, b.bytesIn];
    // Longer than a ring together: none of it goes through one.
    for (let step = 1; step <= 4; step++) {
      const place = step * (1 << 20);
      all.set(payloadOf(step, 250_000), place);
      a.send(headerOf(step, 250_000), all.subarray(place, place + 1_000_000));
    }
    // Not in the vectors: sent, between the others.
    a.send(headerOf(5, 1000), payloadOf(5, 1000));
    let isDrained = false;
    const drained = a.drained().then(() => (isDrained = true));
    await Promise.resolve();
    expect([isDrained, atB.frames.length]).toEqual([false, 1]);
    await drained;
    all.fill(0, 1 << 20);
    expect(atB.frames.map(({ header }) => header.step)).toEqual([0, 1, 2, 3, 4, 5]);
    for (const { header, payload } of atB.frames) {
      expect(Buffer.compare(payload, payloadOf(header.step, header.count))).toBe(0);
    }
    for (const [i, now] of [a.bytesOut, b.bytesIn].entries()) {
      expect(now - (before[i] ?? 0)).toBeGreaterThan(4_004_000);
      expect(now - (before[i] ?? 0)).toBeLessThan(4_006_000);
    }
  });
});

describe('vectors that are not what they should be', () => {
  const lie = (vectors: SharedVectors, change: Partial<SharedVectors['address']>): SharedVectors => ({
    ...vectors,
    address: { ...vectors.address, ...change },
  });

  it.each([
    ['another word', { word: '0'.repeat(32) }, 'another word in it'],
    ['another length', { bytes: 65_536 }, 'bytes, not 65536'],
    ['a word past the end', { wordAt: 1 << 30 }, 'another word in it'],
    ['no such descriptor', { fd: 1_000_000 }, 'no such file'],
  ])('with %s are not read: payloads are sent', async (_what, change, why) => {
    const { all, vectors } = sharing(1 << 20);
    const wrong = lie(vectors, change);
    expect(() => openPeerVectors(wrong.address)).toThrow(
      expect.objectContaining({ code: 'E_NOT_SUPPORTED', message: expect.stringContaining(why) as string }) as Error,
    );
    const { a, b, atB } = await offering(wrong);
    all.set(payloadOf(1, 100_000), 131_072);
    const before = b.bytesIn;
    a.send(headerOf(1, 100_000), all.subarray(131_072, 531_072));
    await atB.until(2);
    expect(Buffer.compare(atB.frames[1]?.payload ?? Buffer.alloc(0), payloadOf(1, 100_000))).toBe(0);
    expect(b.bytesIn - before).toBeGreaterThan(400_000);
  });

  it('in a file that its owner could make shorter are not read', () => {
    const directory = mkdtempSync(join(tmpdir(), 'lockstep-'));
    const fd = openSync(join(directory, 'vectors'), 'w+');
    writeFileSync(fd, Buffer.alloc(65_536, 0xab));
    try {
      const address = { pid: process.pid, fd, bytes: 65_536, wordAt: 0, word: 'ab'.repeat(16) };
      expect(() => openPeerVectors(address)).toThrow("no view of the peer's vectors: its size is not fixed");
    } finally {
      closeSync(fd);
      rmSync(directory, { recursive: true });
    }
  });

  it.each([
    ['outside of them', 1 << 20],
    ['that is reached only from inside', (1 << 20) + 4 * 65_536 - 396],
    ['between two floats', 131_073],
    ['before their beginning', -4],
    ['that is no number', Number.NaN],
  ])('a place %s ends the link, by its code', async (_what, place) => {
    const { all, vectors } = sharing(1 << 20);
    const bytes = vectors.address.bytes;
    expect(bytes).toBe((1 << 20) + 4 * 65_536);
    const { a, b } = await offering({ ...vectors, placeOf: () => place });
    a.send(headerOf(1, 100), all.subarray(0, 400));
    if (place === 1 << 20) a.send(headerOf(2, 100_000), all.subarray(0, 400_000));
    expect((await b.closed).error).toMatchObject({
      code: 'E_FRAME',
      message: expect.stringContaining('its payload at') as string,
    });
  });

  it('a payload of another length than its frame has ends the link', async () => {
    const { all, vectors } = sharing(1 << 20);
    const { a, b } = await offering(vectors);
    a.send(headerOf(1, 100), all.subarray(0, 396));
    expect((await b.closed).error).toMatchObject({ code: 'E_FRAME' });
  });
});

it('a peer can only read them, and nobody can change their size', () => {
  const { all, vectors } = sharing(1 << 20);
  all[WORD_AT + 100] = 7;
  const view = openPeerVectors(vectors.address);
  expect(view.at(WORD_AT + 100, 4)[0]).toBe(7);
  const path = `/proc/self/fd/${vectors.address.fd}`;
  expect(() => truncateSync(path, 4096)).toThrow(/EPERM/);
  expect(() => writeFileSync(path, 'x', { flag: 'r+' })).toThrow(/EPERM/);
  view.close();
});

it('what was sent before a goodbye is read after it', async () => {
  const { all, vectors } = sharing(4 << 20);
  const { a, b, atB } = await offering(vectors);
  all.set(payloadOf(1, 500_000), 1 << 20);
  a.send(headerOf(1, 500_000), all.subarray(1 << 20, (1 << 20) + 2_000_000));
  a.close('over');
  vectors.close();
  expect((await b.closed).because).toBe('over');
  expect(Buffer.compare(atB.frames[1]?.payload ?? Buffer.alloc(0), payloadOf(1, 500_000))).toBe(0);
});

it.each([false, true])(
  'what a peer sends before this rank has opened its vectors is in the sum (on a thread: %s)',
  async (threaded) => {
    const workers = await Promise.all(
      [0, 1].map(async () => startCommunication({ host: '127.0.0.1', token: null, run: 'run-1', threaded })),
    );
    opened.push(...workers);
    const members = workers.map(({ url }, rank) => ({ worker: `w${rank}`, rank, peerUrl: url, host: 'here' }));
    const plan = { generation: 1, microbatches: 2, length: 1000, firstStep: 0 };
    const begin = async (rank: number): Promise<OpenCollective> => {
      const collective = await (workers[rank] as Communication).open({ ...plan, rank }, members);
      (await collective.slot(rank)).fill(rank + 1);
      for (const bucket of collective.buckets.keys()) collective.ready(bucket);
      return collective;
    };
    // The higher rank calls, and does not wait for the lower one to open.
    const ahead = await begin(1);
    const aheadSum = ahead.allReduce();
    // Its part is in the ring by now, or at the latest when its thread has had some turns.
    for (let turn = 0; turn < 100; turn++) await nextTurn();
    const behind = await begin(0);
    const sums = [(await behind.allReduce()).sum, (await aheadSum).sum];
    for (const sum of sums) expect(new Set(sum)).toEqual(new Set([3]));
    for (const one of [ahead, behind]) await one.close();
  },
);

it('generations that come and go leave nothing: no descriptor, no mapping, no name', async () => {
  setFlagsFromString('--expose_gc');
  const collect = runInNewContext('gc') as () => void;
  const workers = await Promise.all(
    [0, 1].map(async () => startCommunication({ host: '127.0.0.1', token: null, run: 'run-1', threaded: false })),
  );
  opened.push(...workers);
  const members = workers.map(({ url }, rank) => ({ worker: `w${rank}`, rank, peerUrl: url, host: 'here' }));
  for (let generation = 1; generation <= 20; generation++) {
    const plan = { generation, microbatches: 2, length: 500_000, firstStep: 0 };
    const ranks = await Promise.all(workers.map(async (worker, rank) => worker.open({ ...plan, rank }, members)));
    for (let step = 0; step < 3; step++) {
      const sums = await Promise.all(
        ranks.map(async (rank, i) => {
          (await rank.slot(i)).fill(i + step);
          for (const bucket of rank.buckets.keys()) rank.ready(bucket);
          return (await rank.allReduce()).sum;
        }),
      );
      for (const sum of sums) expect([sum[0], sum.at(-1)]).toEqual([1 + 2 * step, 1 + 2 * step]);
    }
    expect(mappings()).toBeGreaterThan(0);
    await Promise.all(ranks.map(async (rank) => rank.close()));
    expect(descriptors()).toBe(0);
  }
  // Freed in the background after each collection. The last generation's own memory may be held by what is still on the stack.
  for (let tries = 0; tries < 100 && mappings() > 4; tries++) {
    collect();
    await nextTurn();
  }
  expect(mappings()).toBeLessThanOrEqual(4);
  expect(readdirSync('/dev/shm').filter((name) => name.startsWith(`lockstep-${process.pid}-`))).toEqual([]);
});
