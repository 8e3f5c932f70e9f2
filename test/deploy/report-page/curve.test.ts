import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chart, escaped, thinned, ticks } from '../../../deploy/report-page/curve.ts';

describe('thinned', () => {
  it('keeps few points as they are, without those that are no numbers', () => {
    const points = [1, Number.NaN, 3, Number.POSITIVE_INFINITY].map((y, x) => ({ x, y }));
    expect(thinned(points)).toEqual([
      { x: 0, y: 1 },
      { x: 2, y: 3 },
    ]);
  });

  it('keeps the lowest and the highest of many, in order, and no more than asked for', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -1000, max: 1000 }), { minLength: 1, maxLength: 500 }), (ys) => {
        const points = ys.map((y, x) => ({ x, y }));
        const few = thinned(points, 40);
        expect(few.length).toBeLessThanOrEqual(40);
        expect(Math.min(...few.map((p) => p.y))).toBe(Math.min(...ys));
        expect(Math.max(...few.map((p) => p.y))).toBe(Math.max(...ys));
        expect(few.map((p) => p.x)).toEqual(few.map((p) => p.x).toSorted((a, b) => a - b));
        for (const { x, y } of few) expect(ys[x]).toBe(y);
      }),
    );
  });
});

describe('ticks', () => {
  it.each([
    [0, 10, 5, [0, 2, 4, 6, 8, 10]],
    [0.93, 2.41, 5, [1, 1.5, 2]],
    [0, 782, 8, [0, 100, 200, 300, 400, 500, 600, 700]],
    [0.61, 0.74, 5, [0.65, 0.7]],
    [3, 3, 5, [3]],
  ])('from %d to %d, about %i', (low, high, count, expected) => {
    // Steps of 1, 2 or 5 times a power of ten, written out by hand.
    expect(ticks(low, high, count)).toEqual(expected);
  });
});

describe('chart', () => {
  const line = {
    name: 'loss',
    points: [
      { x: 1, y: 2 },
      { x: 2, y: 1 },
    ],
  };
  const common = { description: 'd', xName: 'step', yText: (value: number) => value.toFixed(1) };

  it('draws the line over the whole width and height, and a mark with its title', () => {
    const svg = chart({ ...common, lines: [line], marks: [{ x: 2, title: 'w1 <lost>', kind: 'lost' }] }) ?? '';
    // Width 880 less margins of 64 and 28, from x = 0; height 270 less 12 and 40, with 4 % of the range above and below.
    expect(svg).toContain('class="line loss" d="M458.0 20.1L852.0 221.9"');
    expect(svg).toContain('<title>w1 &lt;lost&gt;</title>');
    expect(svg).toContain('role="img" aria-label="d"');
  });

  it('of nothing is null, of a single or a level value is in the middle', () => {
    expect(chart({ ...common, lines: [{ name: 'loss', points: [{ x: 1, y: Number.NaN }] }] })).toBeNull();
    expect(chart({ ...common, lines: [{ name: 'loss', points: [{ x: 5, y: 3 }] }] })).toContain('cy="121.0"');
  });
});

it('escaped text is text', () => {
  expect(escaped(`<a href="x">'&`)).toBe('&lt;a href=&quot;x&quot;&gt;&#39;&amp;');
});
