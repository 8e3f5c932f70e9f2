import { describe, expect, it } from 'vitest';
import { decodeWorkerMessage, encodeMessage } from '../../protocol/messages.ts';
import { areSpans, MAX_SPANS, SPAN_KINDS, SpanBuffer, spansOf } from '../../protocol/timeline.ts';

const packed = (...floats: number[]): Uint8Array => new Uint8Array(Float64Array.from(floats).buffer);

describe('spans on their way', () => {
  it('arrive as they were added, of every kind, wherever in a message their bytes lie', () => {
    const buffer = new SpanBuffer();
    for (const [i, kind] of SPAN_KINDS.entries()) buffer.add(kind, 1e12 + i + 0.125, 1e12 + 2 * i + 0.25, 7 + i, i);
    const { spans, lost } = buffer.take() ?? { spans: packed(), lost: -1 };
    const bytes = encodeMessage({ kind: 'trace', generation: 3, spans, lost });
    for (const offset of [0, 1, 3]) {
      const shifted = new Uint8Array(bytes.length + offset).subarray(offset);
      shifted.set(bytes);
      const message = decodeWorkerMessage(shifted);
      expect(message).toMatchObject({ kind: 'trace', generation: 3, lost: 0 });
      expect(message.kind === 'trace' && spansOf(message.spans)).toEqual(
        SPAN_KINDS.map((kind, i) => ({
          kind,
          startUs: 1e12 + i + 0.125,
          endUs: 1e12 + 2 * i + 0.25,
          step: 7 + i,
          detail: i,
        })),
      );
    }
  });

  it('are taken once, and beyond what there is room for only counted', () => {
    const buffer = new SpanBuffer(2);
    expect(buffer.take()).toBe(null);
    for (const step of [1, 2, 3, 4]) buffer.add('step', step, step + 1, step, 0);
    const taken = buffer.take();
    expect(spansOf(taken?.spans ?? packed()).map((span) => span.step)).toEqual([1, 2]);
    expect(taken?.lost).toBe(2);
    expect(buffer.take()).toBe(null);
    buffer.add('data', 9, 8, 5, 1);
    // A clock that seems to go back makes it short, not negative.
    expect(spansOf(buffer.take()?.spans ?? packed())).toEqual([
      { kind: 'data', startUs: 9, endUs: 9, step: 5, detail: 1 },
    ]);
  });

  it('are refused when they are cut, too many, of no kind, backwards, or no numbers', () => {
    expect(areSpans(packed(0, 1, 2, 3, 4))).toBe(true);
    expect(areSpans(packed())).toBe(true);
    for (const wrong of [
      packed(0, 1, 2, 3),
      packed(SPAN_KINDS.length, 1, 2, 3, 4),
      packed(0.5, 1, 2, 3, 4),
      packed(-1, 1, 2, 3, 4),
      packed(0, 2, 1, 3, 4),
      packed(0, Number.NaN, 2, 3, 4),
      packed(0, 1, Infinity, 3, 4),
      packed(0, 1, 2, 3.5, 4),
      packed(0, 1, 2, 3, -4),
      packed(0, 1, 2, 3, 4).subarray(1),
      new Uint8Array((MAX_SPANS + 1) * 40),
    ]) {
      expect(areSpans(wrong)).toBe(false);
      expect(() => decodeWorkerMessage(encodeMessage({ kind: 'trace', generation: 1, spans: wrong, lost: 0 }))).toThrow(
        'a malformed message: spans: no packed spans',
      );
    }
    expect(areSpans([0, 1, 2, 3, 4])).toBe(false);
  });
});
