import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LockstepError } from '../../protocol/errors.ts';
import { decodeFrame, encodeFrameHeader, FRAME_HEADER_BYTES, type FrameHeader } from '../../protocol/frame.ts';

const HEADER: FrameHeader = {
  kind: 'scatter',
  generation: 0x01020304,
  step: 5,
  rank: 6,
  bucket: 7,
  node: { start: 8, size: 4 },
  offset: 0x0a0b,
  count: 1,
};

/** The header above, written out by hand, and one float: 1.5. */
const BYTES = Uint8Array.from([
  // "LSF1", kind, three zeros
  0x4c, 0x53, 0x46, 0x31, 1, 0, 0, 0,
  // generation, zero
  0x04, 0x03, 0x02, 0x01, 0, 0, 0, 0,
  // step: 5 as float64
  0, 0, 0, 0, 0, 0, 0x14, 0x40,
  // rank, bucket
  6, 0, 0, 0, 7, 0, 0, 0,
  // node start and size, offset
  8, 0, 4, 0, 0x0b, 0x0a, 0, 0,
  // count, zero
  1, 0, 0, 0, 0, 0, 0, 0,
  // 1.5
  0, 0, 0xc0, 0x3f,
]);

const changed = (at: number, value: number): Uint8Array => {
  const bytes = BYTES.slice();
  bytes[at] = value;
  return bytes;
};

describe('a frame', () => {
  it('is these bytes', () => {
    expect([...encodeFrameHeader(HEADER)]).toEqual([...BYTES.subarray(0, FRAME_HEADER_BYTES)]);
    const { payload, ...header } = decodeFrame(BYTES);
    expect(header).toEqual(HEADER);
    expect([...payload]).toEqual([0, 0, 0xc0, 0x3f]);
  });

  it('is read in place, wherever it lies in memory', () => {
    const wide = new Uint8Array(BYTES.length + 3);
    wide.set(BYTES, 3);
    const { payload } = decodeFrame(wide.subarray(3));
    expect(payload.buffer).toBe(wide.buffer);
    expect(payload.byteOffset).toBe(3 + FRAME_HEADER_BYTES);
  });

  it.each([
    ['too short for its header', BYTES.subarray(0, 47), '47 bytes'],
    ['without its magic', changed(0, 0), 'magic'],
    ['of an unknown kind', changed(4, 9), 'kind 9'],
    ['with reserved bytes in use', changed(13, 1), 'reserved'],
    ['with a step that is no whole number', changed(16, 1), 'step 5.0'],
    ['with fewer floats than it says', changed(40, 2), 'count 2 with 4 bytes'],
    ['with a payload where a node is absent', changed(4, 3), 'count 1 with 4 bytes'],
  ])('%s is refused by the field', (_what, bytes, words) => {
    expect(() => decodeFrame(bytes)).toThrow(
      expect.objectContaining({ code: 'E_FRAME', message: expect.stringContaining(words) as string }) as Error,
    );
  });

  it('of any bytes at all is read or refused, never anything else', () => {
    const anyBytes = fc.uint8Array({ maxLength: 200 });
    const nearly = fc
      .tuple(fc.nat({ max: BYTES.length - 1 }), fc.nat({ max: 255 }))
      .map(([at, value]) => changed(at, value));
    fc.assert(
      fc.property(fc.oneof(anyBytes, nearly), (bytes) => {
        let outcome: unknown;
        try {
          outcome = decodeFrame(bytes).payload.byteLength <= bytes.byteLength;
        } catch (error) {
          outcome = error instanceof LockstepError && error.code === 'E_FRAME';
        }
        expect(outcome).toBe(true);
      }),
      { numRuns: 20_000 },
    );
  });
});
