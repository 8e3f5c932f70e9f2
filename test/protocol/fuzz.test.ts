// Every decoder that reads what a peer sends, on more than a million inputs: valid ones, with bytes changed, cut out, doubled or
// spliced, cut into pieces anywhere. Whatever comes is read or refused by LockstepError with the decoder's code; nothing else is
// thrown, no input takes long, and memory does not grow with what an input says of itself.
//
// The inputs follow from the seed: a failure prints the input that it failed on.

import { describe, expect, it } from 'vitest';
import { ByteStream } from '../../protocol/byte-stream.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { encodeFrameHeader, FrameReader, MAX_FRAME_BYTES, type FrameHeader } from '../../protocol/frame.ts';
import type { LinkEnd } from '../../protocol/link.ts';
import { decodeCoordinatorMessage, decodeWorkerMessage, encodeMessage } from '../../protocol/messages.ts';
import { fixedSilence } from '../../protocol/silence.ts';
import { spansOf } from '../../protocol/timeline.ts';
import {
  frameRecord,
  mappedRecord,
  RecordReader,
  referenceRecord,
  vectorsRecord,
} from '../../worker/collective/links/records.ts';
import { encodeHead, WebSocketReader } from '../../worker/collective/links/websocket.ts';

const SEED = 20_261_124;
/** No input may take longer, whatever the machine is busy with otherwise. */
const SLOWEST_MS = 2000;

/** Xorshift (Marsaglia 2003), 32 bits. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % below;
  };
}

const EXTREMES = [0, 1, 0x7f, 0x80, 0xc1, 0xdd, 0xdf, 0xfe, 0xff];

function mutated(valid: Uint8Array, other: Uint8Array, random: (below: number) => number): Uint8Array {
  const bytes = [...valid];
  for (let changes = random(4); changes >= 0; changes--) {
    const at = random(bytes.length + 1);
    switch (random(6)) {
      case 0:
        bytes[at] = random(256);
        break;
      case 1:
        bytes[at] = EXTREMES[random(EXTREMES.length)] ?? 0;
        break;
      case 2:
        bytes.length = at;
        break;
      case 3:
        bytes.splice(at, random(8));
        break;
      case 4:
        bytes.splice(at, 0, ...bytes.slice(at, at + random(16)));
        break;
      default:
        bytes.splice(at, bytes.length, ...other.slice(random(other.length)));
    }
  }
  return Uint8Array.from(bytes, (byte) => byte ?? 0);
}

interface Verdict {
  readonly inputs: number;
  readonly read: number;
  readonly refused: number;
}

/** Feeds `inputs` mutations of `corpus` to `decode`; throws at the first that ends otherwise than read or refused by `code`. */
function fuzz(options: {
  readonly corpus: readonly Uint8Array[];
  readonly inputs: number;
  readonly code: string;
  /** Another one that some inputs may be refused by. */
  readonly otherCode?: string;
  readonly decode: (bytes: Uint8Array, random: (below: number) => number) => void;
}): Verdict {
  const { corpus, inputs, code, otherCode, decode } = options;
  const random = generator(SEED);
  let read = 0;
  let refused = 0;
  for (let i = 0; i < inputs; i++) {
    const [valid, other] = [corpus[random(corpus.length)], corpus[random(corpus.length)]];
    const bytes =
      i < corpus.length ? (corpus[i] as Uint8Array) : mutated(valid as Uint8Array, other as Uint8Array, random);
    const began = performance.now();
    try {
      decode(bytes, random);
      read++;
    } catch (error) {
      if (!(error instanceof LockstepError) || (error.code !== code && error.code !== otherCode)) {
        throw new Error(`input ${i} of seed ${SEED}: ${Buffer.from(bytes).toString('hex')}`, { cause: error });
      }
      refused++;
    }
    if (performance.now() - began > SLOWEST_MS) throw new Error(`input ${i} of seed ${SEED} took too long`);
  }
  return { inputs: read + refused, read, refused };
}

/** Hands `bytes` to `push` in pieces that end anywhere. */
function inPieces(bytes: Uint8Array, random: (below: number) => number, push: (piece: Uint8Array) => void): void {
  for (let at = 0; at < bytes.length;) {
    const end = at + 1 + random(bytes.length - at);
    push(bytes.slice(at, end));
    at = end;
  }
}

/** As `inPieces`, by reading where the reader wants it now and then, as from a socket. */
function inPlaces(
  bytes: Uint8Array,
  random: (below: number) => number,
  reader: { push(piece: Uint8Array): void; landing(): Uint8Array | null; landed(count: number): void },
): void {
  for (let at = 0; at < bytes.length;) {
    const landing = random(2) === 0 ? reader.landing() : null;
    const count = Math.min(1 + random(bytes.length - at), landing?.byteLength ?? bytes.length);
    const piece = bytes.slice(at, at + count);
    if (landing === null) reader.push(piece);
    else {
      landing.set(piece);
      reader.landed(count);
    }
    at += count;
  }
}

const memory = (): number => {
  const { arrayBuffers, heapTotal } = process.memoryUsage();
  return arrayBuffers + heapTotal;
};

const header = (change: Partial<FrameHeader>): FrameHeader => ({
  kind: 'scatter',
  elements: 'float32',
  generation: 1,
  step: 7,
  rank: 1,
  bucket: 0,
  slice: 0,
  node: { start: 0, size: 1 },
  offset: 0,
  count: 3,
  ...change,
});
const frames = [
  header({}),
  header({ kind: 'gather', count: 0 }),
  header({ kind: 'absent', count: 60_000_000 }),
  header({ count: 60_000_000 }),
  header({ elements: 'bf16', count: 6 }),
  header({ elements: 'fp16', kind: 'gather', count: 5 }),
].map((h) => Buffer.concat([encodeFrameHeader(h), new Uint8Array(12).fill(7)]));

const zone = new Uint8Array(64);

describe('more than a million inputs', () => {
  it('of the frame reader', () => {
    const before = memory();
    const verdict = fuzz({
      corpus: frames,
      inputs: 500_000,
      code: 'E_FRAME',
      decode: (bytes, random) => {
        let unit = 4;
        let came = 0;
        const reader = new FrameReader({
          begin: ({ elements }) => {
            unit = elements === 'float32' ? 4 : 2;
          },
          place: (count) => (unit === 4 ? zone.subarray(0, Math.min(count, 8)) : null),
          data: (piece) => {
            if (piece.byteLength % unit !== 0) throw new Error('a number is cut');
            came += piece.byteLength;
          },
          end: () => {},
        });
        inPlaces(bytes, random, reader);
        if (came > bytes.length) throw new Error('more came out than went in');
      },
    });
    expect(verdict.inputs).toBe(500_000);
    expect(Math.min(verdict.read, verdict.refused)).toBeGreaterThan(50_000);
    expect(memory() - before).toBeLessThan(200e6);
  });

  it('of the WebSocket reader', () => {
    const before = memory();
    const head = (opcode: number, length: number): Uint8Array => encodeHead(opcode, length, true);
    const corpus = [
      Buffer.concat([head(2, 5), new Uint8Array(5)]),
      Buffer.concat([head(2, 300), new Uint8Array(300)]),
      Buffer.concat([head(2, 2 ** 40), new Uint8Array(20)]),
      Buffer.concat([head(9, 3), new Uint8Array(3), head(8, 2), Uint8Array.of(3, 232)]),
    ];
    const verdict = fuzz({
      corpus,
      inputs: 400_000,
      code: 'E_FRAME',
      decode: (bytes, random) => {
        let came = 0;
        const reader = new WebSocketReader({
          events: {
            data: (piece) => (came += piece.byteLength),
            landing: () => zone,
            landed: (count) => (came += count),
            messageEnd: () => {},
            ping: (payload) => (came += payload.byteLength),
            goodbye: () => {},
          },
          expectMasked: true,
          maxMessageBytes: 1000,
        });
        inPlaces(bytes, random, reader);
        if (came > bytes.length) throw new Error('more came out than went in');
      },
    });
    expect(verdict.inputs).toBe(400_000);
    expect(Math.min(verdict.read, verdict.refused)).toBeGreaterThan(40_000);
    expect(memory() - before).toBeLessThan(200e6);
  });

  it('of the stream over NATS', () => {
    const before = memory();
    const message = (kind: number, payload: readonly number[]): Uint8Array =>
      Uint8Array.of(kind, 0, 0, 0, 0, ...payload);
    const corpus = [
      message(1, [1, 2, 3, 4]),
      message(2, [0, 0, 0, 0, 0, 0, 0, 0]),
      message(3, [98, 121, 101]),
      message(4, []),
    ];
    const verdict = fuzz({
      corpus,
      inputs: 200_000,
      code: 'E_FRAME',
      decode: (bytes) => {
        let end: LinkEnd | null = null;
        const stream = new ByteStream({
          chunkBytes: 1000,
          windowOut: 1000,
          windowIn: 1000,
          silence: fixedSilence(1000),
          nowMs: 0,
          publish: () => {},
          ended: (how) => {
            end = how;
          },
        });
        stream.receive(() => {});
        stream.hear(bytes);
        const refusal = (end as LinkEnd | null)?.error ?? null;
        if (refusal !== null) throw refusal;
      },
    });
    expect(Math.min(verdict.read, verdict.refused)).toBeGreaterThan(20_000);
    expect(memory() - before).toBeLessThan(200e6);
  });

  it('of the reader of records in shared memory', () => {
    const before = memory();
    const address = { pid: 7, fd: 9, bytes: 65_536, wordAt: 32_768, word: 'ab'.repeat(16) };
    const [h, body] = [encodeFrameHeader(header({})), new Uint8Array(12).fill(7)];
    const corpus = [
      frameRecord(h, body),
      referenceRecord(h, 4096, 12),
      vectorsRecord(address),
      [...vectorsRecord(address), ...mappedRecord(), ...referenceRecord(h, 0, 12)],
    ].map((pieces) => Buffer.concat(pieces));
    const verdict = fuzz({
      corpus,
      inputs: 150_000,
      code: 'E_FRAME',
      decode: (bytes, random) => {
        let came = 0;
        const reader = new RecordReader({
          bytes: (piece) => (came += piece.byteLength),
          reference: (place, count) => {
            // As shm.ts has it checked: against what is there.
            if (count < 1 || count > MAX_FRAME_BYTES) throw new Error(`${place}+${count}`);
          },
          frameEnd: () => {},
          vectors: (found) => {
            if (!Number.isSafeInteger(found.bytes) || found.word.length !== 32) throw new Error('no address');
          },
          mapped: () => {},
        });
        inPieces(bytes, random, (piece) => reader.push(piece));
        if (came > bytes.length) throw new Error('more came out than went in');
      },
    });
    expect(verdict.inputs).toBe(150_000);
    expect(Math.min(verdict.read, verdict.refused)).toBeGreaterThan(15_000);
    expect(memory() - before).toBeLessThan(200e6);
  });

  it('of the decoders of control messages', () => {
    const before = memory();
    const digest = 'a'.repeat(64);
    const corpus = [
      encodeMessage({ kind: 'linked', generation: 5, step: 4, digest }),
      encodeMessage({ kind: 'finished', generation: 5, step: 5, digest, peakRssBytes: 1, because: 'done' }),
      encodeMessage({ kind: 'failed', code: 'E_TRACE', message: 'm', stack: 's' }),
      encodeMessage({
        kind: 'evaluation',
        generation: 1,
        step: 2,
        digest,
        seconds: 1,
        chunks: [{ index: 0, samples: 2, lossSum: 1.5, correct: 1 }],
      }),
      encodeMessage({ kind: 'trace', generation: 1, spans: new Uint8Array(80), lost: 0 }),
      encodeMessage({ kind: 'clock', sentUs: 1.5, atUs: 2, boot: null }),
      encodeMessage({ kind: 'stop', because: 'Ctrl-C' }),
      encodeMessage({ kind: 'refused', code: 'E_DIGEST', because: 'x' }),
      // MessagePack that promises more than it has: an array and a map of four thousand million, a string of two.
      Uint8Array.from([0xdd, 0xff, 0xff, 0xff, 0xff, 1]),
      Uint8Array.from([0xdf, 0xff, 0xff, 0xff, 0xff, 1]),
      Uint8Array.from([0xdb, 0x7f, 0xff, 0xff, 0xff, 65]),
      Uint8Array.from([0xc6, 0x7f, 0xff, 0xff, 0xff, 65]),
    ];
    const verdict = fuzz({
      corpus,
      inputs: 200_000,
      code: 'E_MESSAGE',
      // Of a greeting whose version has changed, and more.
      otherCode: 'E_PROTOCOL_VERSION',
      decode: (bytes, random) => {
        if (random(2) === 1) return void decodeCoordinatorMessage(bytes);
        const message = decodeWorkerMessage(bytes);
        if (message.kind === 'trace' && spansOf(message.spans).length > 2)
          throw new Error('more came out than went in');
        return undefined;
      },
    });
    expect(verdict.inputs).toBe(200_000);
    expect(Math.min(verdict.read, verdict.refused)).toBeGreaterThan(1000);
    expect(memory() - before).toBeLessThan(300e6);
  });
});
