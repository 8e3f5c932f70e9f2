import { expect, test } from 'vitest';
import { comparison, tableOf, threeDigits } from '../../bench/table.ts';

test.each([
  [0.1234, '0.123'],
  [1.234, '1.23'],
  [12.34, '12.3'],
  [123.4, '123'],
  [12_345.6, '12346'],
  [-0.5, '-0.500'],
  [Number.NaN, 'NaN'],
])('%d is written %s', (value, text) => {
  expect(threeDigits(value)).toBe(text);
});

const about = { case: 'a step', unit: 'images/s', repeats: 5 };

test('a ratio above 1 says that we are better', () => {
  expect(comparison(about, 300, 200, 'Keras', 'not installed')).toEqual({
    case: 'a step',
    ours: 300,
    peer: 200,
    peerName: 'Keras',
    ratio: 1.5,
    unit: 'images/s',
    repeats: 5,
  });
});

test('a peer that is missing is named, with the reason', () => {
  expect(comparison(about, 300, null, 'Keras', 'not installed')).toMatchObject({
    peer: null,
    peerName: 'Keras (not installed)',
    ratio: null,
  });
});

test('the table has a column a field, as wide as its widest cell', () => {
  const rows = [
    comparison(about, 3000, 2400, 'Keras', ''),
    comparison({ ...about, case: 'limit', unit: 'GFLOP/s', repeats: 1 }, 83.14, null, 'PyTorch', 'not installed'),
  ];
  expect(tableOf(rows).split('\n')).toEqual([
    'case    ours           peer           peer is                  ratio  repeats',
    'a step  3000 images/s  2400 images/s  Keras                    1.25   5',
    'limit   83.1 GFLOP/s   –              PyTorch (not installed)  –      1',
  ]);
});
