import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MessageReader, messageHead } from '../../protocol/message-stream.ts';
import { MAX_MESSAGE_BYTES } from '../../protocol/messages.ts';

describe('messages on a stream', () => {
  it('come out whole and in order, however the stream is cut', () => {
    const lists = fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 10 });
    fc.assert(
      fc.property(lists, fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1 }), (messages, cuts) => {
        const stream = Buffer.concat(messages.flatMap((message) => [messageHead(message), message]));
        const got: Uint8Array[] = [];
        const reader = new MessageReader((message) => got.push(message));
        for (let at = 0, i = 0; at < stream.length; i++) {
          const cut = cuts[i % cuts.length] ?? 1;
          reader.push(stream.subarray(at, at + cut));
          at += cut;
        }
        expect(got.map((message) => [...message])).toEqual(messages.map((message) => [...message]));
      }),
    );
  });

  it('a length is four bytes, little-endian', () => {
    expect([...messageHead(new Uint8Array(0x01_02_03))]).toEqual([3, 2, 1, 0]);
  });

  it('a length above the limit is refused before anything is reserved for it', () => {
    const reader = new MessageReader(() => undefined);
    const head = new Uint8Array(4);
    new DataView(head.buffer).setUint32(0, MAX_MESSAGE_BYTES + 1, true);
    expect(() => reader.push(head)).toThrow(/16777217 bytes; the limit is 16777216/);
  });
});
