// The small pieces of terminal text, each against text written out.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  bar,
  box,
  bytes,
  clock,
  duration,
  plain,
  sparkline,
  visibleWidth,
  wantsColor,
  wantsUnicode,
  wrapped,
} from '../../../deploy/terminal/text.ts';

test('durations, clocks and amounts', () => {
  expect([0, 7.34, 59.94, 59.96, 65, 3599.6, 7380].map(duration)).toEqual([
    '0.0 s',
    '7.3 s',
    '59.9 s',
    '1 min 00 s',
    '1 min 05 s',
    '1 h 00 min',
    '2 h 03 min',
  ]);
  expect([0, 7.4, 59.6, 133, 3723].map(clock)).toEqual(['0:00', '0:07', '1:00', '2:13', '1:02:03']);
  expect([412_300_000, 999_400_000, 999_600_000, 1_340_000_000].map(bytes)).toEqual([
    '412 MB',
    '999 MB',
    '1.0 GB',
    '1.3 GB',
  ]);
});

test('a bar has its width, to an eighth of a cell', () => {
  expect([0, 0.5, 1, 1.7, -3, 0.03125].map((share) => bar(share, 4, true))).toEqual([
    '    ',
    '██  ',
    '████',
    '████',
    '    ',
    '▏   ',
  ]);
  expect([0, 0.5, 1].map((share) => bar(share, 4, false))).toEqual(['    ', '##  ', '####']);
});

test('a sparkline goes from the lowest value to the highest, by means of stretches', () => {
  expect(sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8, true)).toBe('▁▂▃▄▅▆▇█');
  expect(sparkline([7, 7, 0, 0], 2, true)).toBe('█▁');
  expect(sparkline([3, 3, 3], 10, true)).toBe('▁▁▁');
  expect(sparkline([Number.NaN, 1, 2], 10, false)).toBe('_#');
  expect(sparkline([], 10, true)).toBe('');
});

test('text of others loses escape sequences and control characters', () => {
  expect(plain('a \u001B[31mred\u001B[0m\tword\r\nand \u001B]0;title\u0007more\u0000\u009B')).toBe(
    'a red  word and more ',
  );
});

describe('wrapped', () => {
  test('breaks between words, indents what follows, and cuts words that are too long', () => {
    expect(wrapped('one two three four', 9, 2)).toEqual(['one two', '  three', '  four']);
    expect(wrapped('abcdefghijkl', 5)).toEqual(['abcde', 'fghij', 'kl']);
    expect(wrapped('', 5)).toEqual(['']);
  });

  test('no piece is wider than the width, and no letter is lost', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('a', 'b', ' ', 'é'), maxLength: 60 }),
        fc.integer({ min: 3, max: 20 }),
        (text, width) => {
          const pieces = wrapped(text, width, 2);
          expect(Math.max(...pieces.map(visibleWidth))).toBeLessThanOrEqual(width);
          expect(pieces.join('').replaceAll(' ', '')).toBe(text.replaceAll(' ', ''));
        },
      ),
    );
  });
});

test('a box is as wide as its longest line, and never wider than it may be', () => {
  const style = { width: 20, color: false, unicode: true };
  expect(box('Title', [{ text: 'short' }], style)).toBe(['┌─ Title ┐', '│ short  │', '└────────┘'].join('\n'));
  expect(box('Title', [{ text: 'one two three four five', indent: 2 }], style)).toBe(
    ['┌─ Title ──────────┐', '│ one two three    │', '│   four five      │', '└──────────────────┘'].join('\n'),
  );
  expect(box('T', [{ text: 'a' }], { ...style, unicode: false })).toBe(['+- T +', '| a  |', '+----+'].join('\n'));
});

test.each([
  [{}, true, true],
  [{}, false, false],
  [{}, undefined, false],
  [{ CI: 'true' }, undefined, false],
  [{ NO_COLOR: '1' }, true, false],
  [{ NO_COLOR: '' }, true, true],
  [{ FORCE_COLOR: '1' }, false, true],
  [{ FORCE_COLOR: '0' }, true, false],
  [{ FORCE_COLOR: '1', NO_COLOR: '1' }, false, true],
  [{ TERM: 'dumb' }, true, false],
])('colour with %j on a terminal (%s): %s', (env, isTerminal, expected) => {
  expect(wantsColor(env, isTerminal)).toBe(expected);
});

test.each([
  [{}, true],
  [{ LANG: 'de_DE.UTF-8' }, true],
  [{ LANG: 'C.utf8' }, true],
  [{ LC_ALL: 'POSIX', LANG: 'de_DE.UTF-8' }, false],
  [{ LANG: 'de_DE.ISO-8859-1' }, false],
  [{ TERM: 'linux', LANG: 'de_DE.UTF-8' }, false],
])('Unicode with %j: %s', (env, expected) => {
  expect(wantsUnicode(env)).toBe(expected);
});
