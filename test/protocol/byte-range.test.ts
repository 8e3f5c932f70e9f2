// RFC 9110, 14.1.2 and 13.1.5.

import { describe, expect, it } from 'vitest';
import { rangeOf } from '../../protocol/byte-range.ts';

const file = { bytes: 10_000, etag: '"abc"' };
const part = (first: number, last: number): object => ({ kind: 'part', first, last });

describe('the bytes that a request wants', () => {
  it.each([
    [undefined, { kind: 'whole' }],
    ['bytes=0-499', part(0, 499)],
    ['bytes=500-999', part(500, 999)],
    ['bytes=9500-', part(9500, 9999)],
    ['bytes=-500', part(9500, 9999)],
    ['bytes=0-', part(0, 9999)],
    ['bytes=9999-20000', part(9999, 9999)],
    ['bytes=-20000', part(0, 9999)],
    ['bytes=10000-', { kind: 'none' }],
    ['bytes=-0', { kind: 'none' }],
    // Not understood, or several at once: the whole is right, too.
    ['bytes=5-1', { kind: 'whole' }],
    ['bytes=0-1,5-6', { kind: 'whole' }],
    ['lines=1-2', { kind: 'whole' }],
    ['bytes=-', { kind: 'whole' }],
    ['bytes=99999999999999999999-', { kind: 'whole' }],
  ])('%s of 10,000 bytes', (header, range) => {
    expect(rangeOf(header, undefined, file)).toEqual(range);
  });

  it('are all of them where the file is another than the one that was begun', () => {
    expect(rangeOf('bytes=500-', '"abc"', file)).toEqual(part(500, 9999));
    expect(rangeOf('bytes=500-', '"other"', file)).toEqual({ kind: 'whole' });
  });
});
