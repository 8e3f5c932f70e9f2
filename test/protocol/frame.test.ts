import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LockstepError } from '../../protocol/errors.ts';
import {
  decodeFrameHeader,
  encodeFrameHeader,
  FRAME_HEADER_BYTES,
  FrameReader,
  type FrameHeader,
} from '../../protocol/frame.ts';

const HEADER: FrameHeader = {
  kind: 'scatter',
  elements: 'float32',
  generation: 0x01020304,
  step: 5,
  rank: 6,
  bucket: 7,
  slice: 9,
  node: { start: 8, size: 4 },
  offset: 0x0a0b,
  count: 1,
};

/** The header above, written out by hand, and one float: 1.5. */
const BYTES = Uint8Array.from([
  // "LSF1", kind, elements, two zeros
  0x4c, 0x53, 0x46, 0x31, 1, 0, 0, 0,
  // generation, zero
  0x04, 0x03, 0x02, 0x01, 0, 0, 0, 0,
  // step: 5 as float64
  0, 0, 0, 0, 0, 0, 0x14, 0x40,
  // rank, bucket
  6, 0, 0, 0, 7, 0, 0, 0,
  // node start and size, offset
  8, 0, 4, 0, 0x0b, 0x0a, 0, 0,
  // count, slice
  1, 0, 0, 0, 9, 0, 0, 0,
  // 1.5
  0, 0, 0xc0, 0x3f,
]);

const changed = (at: number, value: number): Uint8Array => {
  const bytes = BYTES.slice();
  bytes[at] = value;
  return bytes;
};

/** What a reader makes of `chunks`: each frame with its payload; `whole`: it ended between two frames. */
function read(chunks: readonly Uint8Array[]): { frames: { header: FrameHeader; payload: number[] }[]; whole: boolean } {
  const frames: { header: FrameHeader; payload: number[] }[] = [];
  let present: { header: FrameHeader; payload: number[] } | null = null;
  const reader = new FrameReader({
    begin: (header) => {
      if (present !== null) throw new Error('a frame within a frame');
      present = { header, payload: [] };
    },
    data: (bytes) => {
      if (bytes.byteLength % (present?.header.elements === 'float32' ? 4 : 2) !== 0) throw new Error('a number is cut');
      present?.payload.push(...bytes);
    },
    end: () => {
      if (present !== null) frames.push(present);
      present = null;
    },
  });
  for (const chunk of chunks) reader.push(chunk);
  return { frames, whole: reader.atBoundary };
}

describe('a frame', () => {
  it('is these bytes', () => {
    expect([...encodeFrameHeader(HEADER)]).toEqual([...BYTES.subarray(0, FRAME_HEADER_BYTES)]);
    expect(decodeFrameHeader(BYTES)).toEqual(HEADER);
    expect(read([BYTES])).toEqual({ frames: [{ header: HEADER, payload: [0, 0, 0xc0, 0x3f] }], whole: true });
  });

  it('has no payload where a node is absent, whatever its count', () => {
    const absent = changed(4, 3).subarray(0, FRAME_HEADER_BYTES);
    const header = { ...HEADER, kind: 'absent' };
    expect(read([absent, absent]).frames).toEqual([
      { header, payload: [] },
      { header, payload: [] },
    ]);
  });

  it.each([
    ['without its magic', changed(0, 0), 'magic'],
    ['of an unknown kind', changed(4, 9), 'kind 9'],
    ['of unknown elements', changed(5, 3), 'elements 3'],
    ['with reserved bytes in use', changed(13, 1), 'reserved'],
    ['with a step that is no whole number', changed(16, 1), 'step 5.0'],
    ['with more floats than the limit', changed(43, 5), 'count 83886081; the limit is 67108864'],
  ])('%s is refused by the field', (_what, bytes, words) => {
    expect(() => read([bytes])).toThrow(
      expect.objectContaining({ code: 'E_FRAME', message: expect.stringContaining(words) as string }) as Error,
    );
  });

  it.each([
    ['bf16', 1],
    ['fp16', 2],
  ] as const)('in %s has two bytes an element', (elements, number) => {
    const header = { ...HEADER, elements };
    expect(encodeFrameHeader(header)[5]).toBe(number);
    expect(read([changed(5, number).subarray(0, FRAME_HEADER_BYTES + 2)])).toEqual({
      frames: [{ header, payload: [0, 0] }],
      whole: true,
    });
  });

  it('comes out the same wherever the stream is cut, numbers whole', () => {
    const kinds = (['float32', 'bf16', 'fp16'] as const).flatMap((elements) =>
      [0, 1, 2, 37].map((count) => ({ elements, count })),
    );
    const sent = kinds.map(({ elements, count }, step) => ({
      header: { ...HEADER, elements, step, count },
      payload: Uint8Array.from({ length: count * (elements === 'float32' ? 4 : 2) }, (_, i) => i + count),
    }));
    const stream = Buffer.concat(sent.flatMap(({ header, payload }) => [encodeFrameHeader(header), payload]));
    const expected = sent.map(({ header, payload }) => ({ header, payload: [...payload] }));
    fc.assert(
      fc.property(fc.array(fc.nat({ max: stream.length }), { maxLength: 30 }), (cuts) => {
        const places = [0, ...cuts.toSorted((a, b) => a - b), stream.length];
        const chunks = places.slice(1).map((end, i) => stream.subarray(places[i], end));
        expect(read(chunks)).toEqual({ frames: expected, whole: true });
      }),
      { numRuns: 500 },
    );
    expect(read([...stream].map((byte) => Uint8Array.of(byte)))).toEqual({ frames: expected, whole: true });
  });

  it('read to where its sink wants the payload comes out the same, whatever comes some other way in between', () => {
    const payloads = [0, 1, 9, 40].map((count) => Uint8Array.from({ length: 4 * count }, (_, i) => i + count));
    const sent = payloads.map((payload, step) => ({ header: { ...HEADER, step, count: payload.length / 4 }, payload }));
    const stream = Buffer.concat(sent.flatMap(({ header, payload }) => [encodeFrameHeader(header), payload]));
    fc.assert(
      fc.property(
        fc.infiniteStream(fc.nat({ max: 40 })),
        fc.infiniteStream(fc.boolean()),
        fc.integer({ min: 1, max: 12 }),
        (sizes, directly, floats) => {
          // Places of `floats` floats at most, in one memory; what is told must lie where it was wanted.
          const frames: { step: number; payload: number[] }[] = [];
          let place: Uint8Array | null = null;
          let isDirect = false;
          const reader = new FrameReader({
            begin: (header) => void frames.push({ step: header.step, payload: [] }),
            place: (bytes) => (place = new Uint8Array(Math.min(bytes, 4 * floats))),
            data: (bytes) => {
              if (bytes.byteLength % 4 !== 0) throw new Error('a float is cut');
              if (isDirect !== (bytes.buffer === place?.buffer)) throw new Error('not where it was wanted');
              frames.at(-1)?.payload.push(...bytes);
            },
            end: () => (place = null),
          });
          for (let at = 0; at < stream.length;) {
            const landing = directly.next().value === true ? reader.landing() : null;
            const size = Number(sizes.next().value);
            const count = Math.min(1 + size, stream.length - at, landing?.byteLength ?? stream.length);
            const piece = stream.subarray(at, at + count);
            isDirect = landing !== null;
            if (landing === null) reader.push(piece);
            else {
              landing.set(piece);
              reader.landed(count);
            }
            at += count;
          }
          expect(frames).toEqual(sent.map(({ header, payload }) => ({ step: header.step, payload: [...payload] })));
          expect(reader.atBoundary).toBe(true);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('is never read beyond its payload, nor where its header is still to come', () => {
    const reader = new FrameReader({
      begin: () => {},
      place: (bytes) => new Uint8Array(bytes),
      data: () => {},
      end: () => {},
    });
    expect(reader.landing()).toBeNull();
    reader.push(BYTES.subarray(0, FRAME_HEADER_BYTES + 1));
    expect(reader.landing()).toHaveLength(3);
    reader.landed(3);
    expect([reader.atBoundary, reader.landing()]).toEqual([true, null]);
  });

  it('that is cut off is not whole', () => {
    expect(read([BYTES.subarray(0, 10)]).whole).toBe(false);
    expect(read([BYTES.subarray(0, FRAME_HEADER_BYTES + 2)]).whole).toBe(false);
  });

  it('of any bytes at all is read or refused, never anything else', () => {
    const anyBytes = fc.uint8Array({ maxLength: 200 });
    const nearly = fc
      .tuple(fc.nat({ max: BYTES.length - 1 }), fc.nat({ max: 255 }))
      .map(([at, value]) => changed(at, value));
    fc.assert(
      fc.property(fc.oneof(anyBytes, nearly), (bytes) => {
        let outcome: unknown = true;
        try {
          read([bytes]);
        } catch (error) {
          outcome = error instanceof LockstepError && error.code === 'E_FRAME';
        }
        expect(outcome).toBe(true);
      }),
      { numRuns: 20_000 },
    );
  });
});
