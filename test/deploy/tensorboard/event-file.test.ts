import { describe, expect, it } from 'vitest';
import { crc32c, recordOf } from '../../../deploy/tensorboard/event-file.ts';

describe('recordOf', () => {
  // What TensorFlow writes of the same events: python bench/peers/tensorboard_events.py
  it.each([
    [
      'the version of the file',
      { wallTime: 1764188400.25, step: 0, content: { kind: 'version' } as const },
      '1800000000000000a37f4b22090000103cd849da411a0d627261696e2e4576656e743a3228eb2b48',
    ],
    [
      'a start',
      { wallTime: 1764188400.5, step: 7, content: { kind: 'start' } as const },
      '0f000000000000006d532b09090000203cd849da4110073a020801c9c7a73b',
    ],
    [
      'scalars',
      {
        wallTime: 1764188401,
        step: 300,
        content: {
          kind: 'scalars' as const,
          values: [
            { tag: 'loss', value: 1.25 },
            { tag: 'gradient_norm', value: 0.1 },
          ],
        },
      },
      '31000000000000009d8383e9090000403cd849da4110ac022a230a0b0a046c6f7373150000a03f0a140a0d6772616469656e745f6e6f726d15cdcccc3d988e2419',
    ],
  ])('writes %s as TensorFlow does', (_what, event, hex) => {
    expect(recordOf(event).toString('hex')).toBe(hex);
  });
});

it('crc32c is that of RFC 3720', () => {
  expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa);
  expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43);
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
});
