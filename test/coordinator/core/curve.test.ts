// The thinned curve against plain sums over the steps that each of its points stands for.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Curve, POINTS_MAX, stepOfLine, type CurvePart, type CurvePoint } from '../../../coordinator/core/curve.ts';

const stepOf = (step: number, loss = step): Parameters<Curve['add']>[0] => ({
  step,
  loss,
  accuracy: 0.25,
  samples: 8,
  seconds: 0.5,
});

/** What a page holds that applies every part as it comes. */
function applied(points: readonly CurvePoint[], part: CurvePart | null): CurvePoint[] {
  return part === null ? [...points] : [...points.slice(0, part.from), ...part.points];
}

describe('a curve', () => {
  it('of few steps has a point each', () => {
    const curve = new Curve();
    expect(curve.since(0)).toBeNull();
    curve.add(stepOf(1, 2.5), 1);
    curve.add({ step: 2, loss: 1.25, accuracy: 0.75, samples: 4, seconds: 0.125 }, 1);
    expect(curve.since(0)).toEqual({
      width: 1,
      from: 0,
      points: [
        [1, 2.5, 2.5, 2.5, 0.25, 16],
        [2, 1.25, 1.25, 1.25, 0.75, 32],
      ],
    });
  });

  it('of more steps than it has points keeps mean, least and greatest of each pair', () => {
    const curve = new Curve();
    for (let step = 1; step <= POINTS_MAX + 1; step++) curve.add(stepOf(step), 1);
    const { width, points } = curve.since(0) ?? { width: 0, points: [] };
    expect([width, points.length]).toEqual([2, POINTS_MAX / 2 + 1]);
    expect(points.slice(0, 2)).toEqual([
      [2, 1.5, 1, 2, 0.25, 16],
      [4, 3.5, 3, 4, 0.25, 16],
    ]);
    expect(points.at(-1)).toEqual([POINTS_MAX + 1, 513, 513, 513, 0.25, 16]);
  });

  it('of 300,000 steps is still of at most as many points, and of every step', () => {
    const curve = new Curve();
    const steps = 300_000;
    for (let step = 1; step <= steps; step++) curve.add(stepOf(step), step);
    const { width, points } = curve.since(0) ?? { width: 0, points: [] };
    expect(width).toBe(1024);
    expect(points.length).toBe(Math.ceil(steps / width));
    expect(points[0]).toEqual([1024, 512.5, 1, 1024, 0.25, 16]);
    expect(points.at(-1)?.[0]).toBe(steps);
  });

  it('has the means of its steps, and who applies what changed has what who asks for all has', () => {
    const losses = fc.array(fc.double({ min: 0, max: 10, noNaN: true }), { minLength: 1, maxLength: 3000 });
    fc.assert(
      fc.property(losses, fc.integer({ min: 1, max: 400 }), (values, each) => {
        const curve = new Curve();
        let seen = 0;
        let held: CurvePoint[] = [];
        for (const [i, loss] of values.entries()) {
          curve.add(stepOf(i + 1, loss), Math.floor(i / each) + 1);
          if (i % each !== each - 1) continue;
          held = applied(held, curve.since(seen));
          seen = Math.floor(i / each) + 1;
        }
        held = applied(held, curve.since(seen));
        const whole = curve.since(0);
        expect(held).toEqual(whole?.points);
        expect(held.length).toBeLessThanOrEqual(POINTS_MAX);
        const { width = 0 } = whole ?? {};
        for (const [i, [last, mean, least, greatest]] of held.entries()) {
          const within = values.slice(i * width, (i + 1) * width);
          expect(last).toBe(Math.min((i + 1) * width, values.length));
          expect(mean).toBeCloseTo(within.reduce((a, b) => a + b, 0) / within.length, 4);
          expect(least).toBeCloseTo(Math.min(...within), 4);
          expect(greatest).toBeCloseTo(Math.max(...within), 4);
        }
      }),
      { numRuns: 50 },
    );
  });

  it('forgets steps that are done again, and tells that to who has seen them', () => {
    const curve = new Curve();
    for (let step = 1; step <= 10; step++) curve.add(stepOf(step), 1);
    curve.add(stepOf(6, 60), 2);
    expect(curve.since(1)?.from).toBe(0);
    expect(curve.since(1)?.points.map(([step, loss]) => [step, loss])).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
      [4, 4],
      [5, 5],
      [6, 60],
    ]);
  });

  it('tells who has seen everything nothing', () => {
    const curve = new Curve();
    curve.add(stepOf(1), 1);
    curve.add(stepOf(2), 2);
    expect(curve.since(2)).toBeNull();
    expect(curve.since(1)).toEqual({ width: 1, from: 1, points: [[2, 2, 2, 2, 0.25, 16]] });
  });

  it('has no number where a loss is none', () => {
    const curve = new Curve();
    curve.add({ step: 1, loss: Number.NaN, accuracy: 0, samples: 8, seconds: 0 }, 1);
    expect(curve.since(0)?.points).toEqual([[1, null, null, null, 0, null]]);
  });
});

describe('a line of metrics.jsonl', () => {
  it('is a step, with NaN where JSON has null', () => {
    const line = { t: '2026-01-01T00:00:00Z', step: 7, loss: null, accuracy: 0.5, samples: 64, seconds: 0.01 };
    expect(stepOfLine(line)).toEqual({ step: 7, loss: Number.NaN, accuracy: 0.5, samples: 64, seconds: 0.01 });
  });

  it.each([[null], [7], ['x'], [{}], [{ step: 1, samples: 64 }]])('is none: %j', (line) => {
    expect(stepOfLine(line)).toBeNull();
  });
});
