// What every transport's link must do: one suite, run for each. `pair` opens a link and gives both its ends.

import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { LockstepError } from '../../../../protocol/errors.ts';
import type { FrameHeader, FrameSink } from '../../../../protocol/frame.ts';
import type { Link } from '../../../../protocol/link.ts';

export interface LinkPair {
  readonly ends: readonly [Link, Link];
  /** Kills the first end as its process's death would: without a word. */
  readonly kill: () => void;
  /** Sends bytes that are no frame, as the first end would. */
  readonly sendGarbage: () => void;
}

export const headerOf = (step: number, count: number): FrameHeader => ({
  kind: 'scatter',
  elements: 'float32',
  generation: 1,
  step,
  rank: 0,
  bucket: 0,
  slice: 0,
  node: { start: 0, size: 1 },
  offset: 0,
  count,
});

/** The payload of frame `step`: bytes that say which frame they are of, and where in it. */
export const payloadOf = (step: number, count: number): Uint8Array =>
  Uint8Array.from({ length: 4 * count }, (_, i) => (i * 31 + step * 7) & 255);

/** Keeps what comes; `until(n)` resolves when n frames are whole. */
export function collector(): FrameSink & {
  readonly frames: { readonly header: FrameHeader; readonly payload: Uint8Array }[];
  until(count: number): Promise<void>;
} {
  const frames: { header: FrameHeader; payload: Uint8Array }[] = [];
  let present: { header: FrameHeader; pieces: Uint8Array[] } | null = null;
  const waiting: { count: number; resolve: () => void }[] = [];
  return {
    frames,
    begin: (header) => {
      present = { header, pieces: [] };
    },
    data: (bytes) => void present?.pieces.push(bytes.slice()),
    end: () => {
      if (present !== null) frames.push({ header: present.header, payload: Buffer.concat(present.pieces) });
      for (const { count, resolve } of waiting) if (frames.length >= count) resolve();
    },
    until: async (count) => {
      if (frames.length >= count) return;
      await new Promise<void>((resolve) => {
        waiting.push({ count, resolve });
      });
    },
  };
}

/** Floats of frames: nothing, one, more than a read, more than a ring, none of them round. */
const SIZES = [0, 1, 3, 1000, 65_537, 300_001];

export function linkContract(pair: () => Promise<LinkPair>): void {
  it('delivers frames of every size whole, in order, both ways at once', async () => {
    const [a, b] = (await pair()).ends;
    const [atA, atB] = [collector(), collector()];
    a.receive(atA);
    b.receive(atB);
    const sent = Array.from({ length: 3 * SIZES.length }, (_, step) => SIZES[step % SIZES.length] ?? 0);
    for (const [step, count] of sent.entries()) {
      a.send(headerOf(step, count), payloadOf(step, count));
      b.send(headerOf(1000 + step, count), payloadOf(1000 + step, count));
    }
    await Promise.all([atA.until(sent.length), atB.until(sent.length)]);
    for (const [first, { frames }] of [
      [1000, atA],
      [0, atB],
    ] as const) {
      expect(frames.map(({ header }) => header)).toEqual(sent.map((count, i) => headerOf(first + i, count)));
      for (const { header, payload } of frames) {
        expect(Buffer.compare(payload, payloadOf(header.step, header.count))).toBe(0);
      }
    }
    const bytes = sent.reduce((sum, count) => sum + 48 + 4 * count, 0);
    for (const end of [a, b]) {
      expect(end.bytesOut).toBeGreaterThanOrEqual(bytes);
      expect(end.bytesIn).toBeGreaterThanOrEqual(bytes);
    }
  });

  it('carries numbers of two bytes, an odd number of them, between frames of floats', async () => {
    const [a, b] = (await pair()).ends;
    const got = collector();
    a.receive(collector());
    b.receive(got);
    const sent = [1, 2, 65_537, 3, 300_001, 5].map((count, step) => {
      const elements = (['bf16', 'float32', 'fp16'] as const)[step % 3] ?? 'bf16';
      const payload = payloadOf(step, count).subarray(0, count * (elements === 'float32' ? 4 : 2));
      return { header: { ...headerOf(step, count), elements }, payload };
    });
    for (const { header, payload } of sent) a.send(header, payload);
    await got.until(sent.length);
    expect(got.frames.map(({ header }) => header)).toEqual(sent.map(({ header }) => header));
    for (const [i, { payload }] of got.frames.entries()) {
      expect(Buffer.compare(payload, sent[i]?.payload ?? new Uint8Array(0))).toBe(0);
    }
  });

  it('sends a node without samples as a header alone', async () => {
    const [a, b] = (await pair()).ends;
    const got = collector();
    b.receive(got);
    a.send({ ...headerOf(1, 100), kind: 'absent' }, new Uint8Array(0));
    a.send(headerOf(2, 1), payloadOf(2, 1));
    await got.until(2);
    expect(got.frames.map(({ header, payload }) => [header.kind, payload.length])).toEqual([
      ['absent', 0],
      ['scatter', 4],
    ]);
  });

  it('keeps what was sent before anybody listened, and holds the sender back rather than lose or pile it up', async () => {
    const [a, b] = (await pair()).ends;
    // More than any buffer in between: the sender's promise to have sent it all can't hold before the other side reads.
    const frames = 30;
    const count = 300_000;
    a.receive(collector());
    for (let step = 0; step < frames; step++) a.send(headerOf(step, count), payloadOf(step, count));
    let hasLeft = false;
    const drained = a.drained().then(() => (hasLeft = true));
    // A round trip of another link's worth of turns: whatever can leave without a reader has left.
    for (let turn = 0; turn < 50; turn++) await nextTurn();
    expect(hasLeft).toBe(false);
    const got = collector();
    b.receive(got);
    await got.until(frames);
    await drained;
    expect(got.frames.map(({ header }) => header.step)).toEqual(Array.from({ length: frames }, (_, i) => i));
    expect(Buffer.compare(got.frames.at(-1)?.payload ?? Buffer.alloc(0), payloadOf(frames - 1, count))).toBe(0);
  });

  it('delivers what was sent before a goodbye, and then the goodbye with its reason, to both', async () => {
    const [a, b] = (await pair()).ends;
    const got = collector();
    a.receive(collector());
    b.receive(got);
    for (let step = 0; step < 20; step++) a.send(headerOf(step, 50_000), payloadOf(step, 50_000));
    a.close('the generation is over');
    expect(await b.closed).toEqual({ because: 'the generation is over', error: null });
    expect(await a.closed).toEqual({ because: 'the generation is over', error: null });
    expect(got.frames).toHaveLength(20);
    // After the end nothing happens, and nothing is waited for.
    a.send(headerOf(99, 1), payloadOf(99, 1));
    b.send(headerOf(99, 1), payloadOf(99, 1));
    await Promise.all([a.drained(), b.drained()]);
  });

  it('cut, ends at once on this side, whether or not the other answers, and then on the other', async () => {
    const { ends } = await pair();
    const [a, b] = ends;
    a.receive(collector());
    // The other side reads nothing yet, as one that is stopped.
    a.cut();
    expect((await a.closed).error).toBeNull();
    b.receive(collector());
    expect((await b.closed).error).toBeNull();
  });

  it('ends when the other process dies', async () => {
    const { ends, kill } = await pair();
    const [a, b] = ends;
    a.receive(collector());
    b.receive(collector());
    kill();
    const { because, error } = await b.closed;
    expect(error).toBeNull();
    expect(because).not.toBe('');
    await b.drained();
  });

  it('refuses what is no frame, and tells both', async () => {
    const { ends, sendGarbage } = await pair();
    const [a, b] = ends;
    a.receive(collector());
    b.receive(collector());
    sendGarbage();
    expect((await b.closed).error).toMatchObject({ code: 'E_FRAME' });
    expect((await a.closed).error).toBeNull();
  });

  it('refuses what its sink refuses, in the middle of a stream, with the reason at both ends', async () => {
    const [a, b] = (await pair()).ends;
    a.receive(collector());
    const refusal = new LockstepError('E_PROTOCOL', 'rank 0 sent step 3 twice');
    const got = collector();
    b.receive({
      ...got,
      begin: (header) => {
        if (header.step === 3) throw refusal;
        got.begin(header);
      },
    });
    for (let step = 0; step < 10; step++) a.send(headerOf(step, 1000), payloadOf(step, 1000));
    expect((await b.closed).error).toBe(refusal);
    expect((await a.closed).because).toContain('rank 0 sent step 3 twice');
    expect(got.frames).toHaveLength(3);
  });
}
