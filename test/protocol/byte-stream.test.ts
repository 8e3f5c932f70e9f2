// Two sides of a stream over a carrier made here: a queue each way, under the test's control.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ByteStream, STREAM_HEAD_BYTES, WINDOW_BYTES } from '../../protocol/byte-stream.ts';
import type { LinkEnd } from '../../protocol/link.ts';
import { fixedSilence } from '../../protocol/silence.ts';

const SILENCE_MS = 1000;

class Side {
  readonly out: Uint8Array[] = [];
  readonly beats: boolean[] = [];
  readonly got: number[] = [];
  end: LinkEnd | null = null;
  readonly stream: ByteStream;

  constructor(chunkBytes: number) {
    this.stream = new ByteStream({
      chunkBytes,
      windowOut: WINDOW_BYTES,
      windowIn: WINDOW_BYTES,
      silence: fixedSilence(SILENCE_MS),
      nowMs: 0,
      publish: (message, isBeat) => {
        this.out.push(message);
        this.beats.push(isBeat);
      },
      ended: (end) => {
        this.end = end;
      },
    });
  }

  listen(): this {
    this.stream.receive((bytes) => void this.got.push(...bytes));
    return this;
  }

  send(bytes: Uint8Array): void {
    this.stream.send(bytes);
    this.stream.push();
  }
}

/** Carries what is under way, both ways, until nothing is. */
function settle(a: Side, b: Side): void {
  while (a.out.length + b.out.length > 0) {
    for (const message of a.out.splice(0)) b.stream.hear(message);
    for (const message of b.out.splice(0)) a.stream.hear(message);
  }
}

const bytesOf = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 31 + seed) & 255);
/** Bytes of the stream in the messages under way. */
const underWay = (side: Side): number =>
  side.out.reduce((sum, message) => sum + message.byteLength - STREAM_HEAD_BYTES, 0);

describe('a stream of bytes', () => {
  it('delivers what was sent, in order, both ways, whatever the sizes, the messages and when they come', () => {
    const piece = fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 3 }));
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), fc.integer({ min: 1, max: 64 }), (pieces, chunkBytes) => {
        const [a, b] = [new Side(chunkBytes).listen(), new Side(chunkBytes).listen()];
        const sent: [number[], number[]] = [[], []];
        for (const [i, [isFirst, length, carried]] of pieces.entries()) {
          const bytes = bytesOf(length, i);
          (isFirst ? a : b).send(bytes);
          sent[isFirst ? 0 : 1].push(...bytes);
          for (const message of a.out.splice(0, carried)) b.stream.hear(message);
          for (const message of b.out.splice(0, carried)) a.stream.hear(message);
        }
        settle(a, b);
        expect(b.got).toEqual(sent[0]);
        expect(a.got).toEqual(sent[1]);
        expect([a.end, b.end]).toEqual([null, null]);
      }),
      { numRuns: 300 },
    );
  });

  it('has no more than its window under way, and goes on as it is credited', () => {
    const [a, b] = [new Side(64 * 1024), new Side(64 * 1024)];
    const bytes = bytesOf(2 * WINDOW_BYTES + 5, 1);
    a.send(bytes);
    expect(underWay(a)).toBe(WINDOW_BYTES);
    let hasDrained = false;
    a.stream.whenDrained(() => (hasDrained = true));
    for (const message of a.out.splice(0)) b.stream.hear(message);
    // Nobody has taken it: no credit.
    expect(b.out).toEqual([]);
    let taken = 0;
    let isRight = true;
    b.stream.receive((got) => {
      for (const byte of got) if (byte !== bytes[taken++]) isRight = false;
    });
    settle(a, b);
    expect([taken, isRight, hasDrained]).toEqual([bytes.byteLength, true, true]);
  });

  it('that loses a message, or gets one twice, ends with E_FRAME: it never delivers a hole', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 20 }), fc.nat(), fc.boolean(), (count, which, isLost) => {
        const [a, b] = [new Side(10), new Side(10).listen()];
        for (let i = 0; i < count; i++) a.send(bytesOf(10, i));
        const at = which % count;
        const messages = isLost ? a.out.toSpliced(at, 1) : a.out.toSpliced(at, 0, a.out[at] ?? new Uint8Array(0));
        for (const message of messages) b.stream.hear(message);
        // The last one lost is found by the next beat.
        a.out.splice(0);
        a.stream.tick(0);
        for (const message of a.out) b.stream.hear(message);
        expect(b.end?.error?.code).toBe('E_FRAME');
        expect(b.got.length).toBeLessThanOrEqual(10 * (isLost ? at : at + 1));
        // The other side is told.
        for (const message of b.out) a.stream.hear(message);
        expect(a.end?.because).toContain('some were lost');
      }),
    );
  });

  it('beats, asking to be told when nobody hears, and ends after a silence', () => {
    const [a, b] = [new Side(10), new Side(10)];
    a.stream.tick(500);
    expect(a.beats).toEqual([true]);
    b.stream.tick(900);
    for (const message of a.out.splice(0)) b.stream.hear(message);
    // Heard of between 900 and 1400: the later one counts.
    for (const nowMs of [1400, 1900, 2400]) b.stream.tick(nowMs);
    expect(b.end).toBeNull();
    b.stream.tick(2401);
    expect(b.end).toEqual({ because: 'nothing was heard of it for 1 s, where 1 s is the limit', error: null });
  });

  it('does not take it for the other’s silence that its own process was held up', () => {
    const side = new Side(10);
    side.stream.tick(60_000);
    expect(side.end).toBeNull();
    side.stream.tick(60_001);
    expect(side.end?.because).toBe('nothing was heard of it for 1 s, where 1 s is the limit');
  });

  it.each<[string, number[]]>([
    ['without a whole head', [1, 0, 0]],
    ['of no known kind', [9, 0, 0, 0, 0]],
    ['credit of another length', [2, 0, 0, 0, 0, 1]],
    ['credit for more than was sent', [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]],
    ['credit that is no number', [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f]],
  ])('a message %s is refused with E_FRAME', (_what, message) => {
    const side = new Side(10).listen();
    side.stream.hear(Uint8Array.from(message));
    expect(side.end?.error).toMatchObject({ code: 'E_FRAME', message: expect.stringContaining('malformed') as string });
  });

  it('a sender that ignores the window is refused before it fills the memory', () => {
    const side = new Side(10);
    const message = new Uint8Array(STREAM_HEAD_BYTES + WINDOW_BYTES / 2);
    message[0] = 1;
    for (let sequence = 0; sequence < 3; sequence++) {
      new DataView(message.buffer).setUint32(1, sequence, true);
      side.stream.hear(message.slice());
    }
    expect(side.end?.error).toMatchObject({ code: 'E_FRAME', message: expect.stringContaining('window') as string });
  });

  it('a long reason of the end is cut, so that it fits the smallest message of a server', () => {
    const [a, b] = [new Side(10), new Side(10)];
    a.stream.close('x'.repeat(5000));
    expect(a.out[0]?.byteLength).toBeLessThan(1024);
    settle(a, b);
    expect(b.end?.because).toMatch(/^x{100,}$/);
  });
});
