// The live line in terminals of several widths, and the pace of the lines that replace it.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { liveLine, PlainPace, plainLine, statusText } from '../../../deploy/terminal/live.ts';
import { visibleWidth } from '../../../deploy/terminal/text.ts';
import type { RunView } from '../../../protocol/run-view.ts';
import { GATHERING, view, worker } from './a-run.ts';

const at = (width: number): { width: number; color: boolean; unicode: boolean } => ({
  width,
  color: false,
  unicode: true,
});

describe('liveLine', () => {
  test.each([
    [
      200,
      'epoch  3/10 391/782 ━━━━━━━━━━━━━━━─────────────── · loss 1.0234 · acc 63.2 % · 4,312 img/s · 2:13 left · w0● w1●',
    ],
    [100, 'epoch  3/10 391/782 ━━━━━━━━━──────── · loss 1.0234 · acc 63.2 % · 4,312 img/s · 2:13 left · w0● w1●'],
    [80, 'epoch  3/10 391/782 · loss 1.0234 · acc 63.2 % · 4,312 img/s · 2:13 left · ●●'],
    [60, 'epoch  3/10 391/782 · loss 1.0234 · acc 63.2 % · 4,312 img/s'],
    [30, 'epoch  3/10 391/782 ━━━━━─────'],
    [20, 'epoch  3/10 391/782'],
    [10, '391/782'],
  ])('%i columns', (width, expected) => {
    const line = liveLine(view(), at(width));
    expect(line).toBe(expected);
    expect(visibleWidth(line)).toBeLessThanOrEqual(width);
  });

  test('while workers gather, while the run is evaluated, and while it stops', () => {
    expect(liveLine(GATHERING, at(80))).toBe('waiting for workers: 1 of 2 workers ready · w0○ w1◌');
    expect(liveLine(GATHERING, at(30))).toBe('1 of 2 workers ready · w0○ w1◌');
    const states = [worker('w1', 1, 'evaluating'), worker('w0', 0, 'finished')];
    expect(liveLine(view({ phase: 'evaluating', workers: states }), at(100))).toBe(
      'epoch  3/10 evaluating · loss 1.0234 · acc 63.2 % · 4,312 img/s · 2:13 left · w0✓ w1◆',
    );
    expect(liveLine(view({ phase: 'stopping' }), at(35))).toBe('epoch  3/10 stopping · loss 1.0234');
  });

  test('many workers are marked, and very many counted, by rank', () => {
    const workers = Array.from({ length: 12 }, (_, i) => worker(`w${i}`, 11 - i, i === 11 ? 'lost' : 'training'));
    expect(liveLine(view({ workers }), at(92))).toMatch(/ · ✗●{11}$/);
    const more = Array.from({ length: 40 }, (_, i) =>
      worker(`w${i}`, i < 32 ? i : null, i < 32 ? 'training' : 'spare'),
    );
    expect(liveLine(view({ workers: more }), at(92))).toMatch(/ · 32\/40 w$/);
  });

  test('ASCII where there is no Unicode', () => {
    expect(liveLine(view(), { ...at(91), unicode: false })).toBe(
      'epoch  3/10 391/782 ====---- | loss 1.0234 | acc 63.2 % | 4,312 img/s | 2:13 left | w0* w1*',
    );
  });

  test('colour changes nothing but colour', () => {
    const colored = liveLine(view(), { ...at(100), color: true });
    expect(colored).not.toBe(liveLine(view(), at(100)));
    expect(visibleWidth(colored)).toBe(visibleWidth(liveLine(view(), at(100))));
  });

  test('it is never wider than the terminal', () => {
    const anyView = fc.record({
      phase: fc.constantFrom<RunView['phase'][]>('gathering', 'training', 'evaluating', 'stopping'),
      epochStep: fc.integer({ min: 0, max: 99_999 }),
      loss: fc.option(fc.double({ min: 0, max: 1e30, noNaN: true })),
      accuracy: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
      imagesPerSecond: fc.double({ min: 0, max: 1e9, noNaN: true }),
      secondsLeft: fc.option(fc.integer({ min: 0, max: 1e7 })),
      workers: fc.nat({ max: 60 }).map((n) => Array.from({ length: n }, (_, i) => worker(`w${i}`, i, 'training'))),
    });
    fc.assert(
      fc.property(anyView, fc.integer({ min: 24, max: 240 }), (changes, width) => {
        expect(visibleWidth(liveLine(view({ ...changes, epochSteps: 99_999 }), at(width)))).toBeLessThanOrEqual(width);
      }),
    );
  });
});

test('the plain line', () => {
  expect(plainLine(view())).toBe('epoch 3/10 391/782 · loss 1.0234 · acc 63.2 % · 4,312 img/s · 2:13 left · w0● w1●');
  expect(plainLine(GATHERING)).toBe('waiting for workers: 1 of 2 workers ready · w0○ w1◌');
});

test('status: the run, its progress, and a row for each worker by rank', () => {
  const workers = [
    worker('w10', 1, 'training'),
    worker('w2', 0, 'training'),
    { ...worker('w3', null, 'spare'), rssBytes: null, device: null },
  ];
  const byEpoch = [{ epoch: 2, loss: 1.1, testLoss: 1.2, testAccuracy: 0.58, seconds: 11, imagesPerSecond: 4300 }];
  expect(statusText(view({ workers, byEpoch }), at(100))).toBe(
    [
      'cifar10-cnn-1 (cifar10-cnn): training, all members step',
      'step 1,955 of 7,820, generation 1, 0 workers lost',
      'epoch 3/10 391/782 · loss 1.0234 · acc 63.2 % · 4,312 img/s · 2:13 left · w2● w10● w3○',
      'after epoch 2: test accuracy 58.0 %, test loss 1.2000',
      '  ● w2   rank 0  training  box pid 4002  480 MB  CPU',
      '  ● w10  rank 1  training  box pid 4010  480 MB  CPU',
      '  ○ w3   -       spare     box pid 4003  -       -',
    ].join('\n'),
  );
});

test('status: how long a step takes on each worker, how much of it is waiting, and for whom', () => {
  const timed = (id: string, rank: number, compute: number, wait: number): RunView['workers'][number] => ({
    ...worker(id, rank, 'training'),
    stepSeconds: { data: 0.001, compute, allreduce: 0.0005, apply: 0.0005, wait },
  });
  const straggler = { worker: 'w1', waitedSeconds: 0.002, because: 'the others wait 2.00 ms a step for it (20 %)' };
  const shown = statusText(
    view({ workers: [timed('w0', 0, 0.006, 0.002), timed('w1', 1, 0.008, 0)], straggler }),
    at(100),
  );
  expect(shown.split('\n').slice(-3)).toEqual([
    '  ● w0  rank 0  training  box pid 4000  480 MB  CPU  step 10.0 ms, waits 20.0 %',
    '  ● w1  rank 1  training  box pid 4001  480 MB  CPU  step 10.0 ms, waits 0.0 %',
    'w1 is a straggler: the others wait 2.00 ms a step for it (20 %)',
  ]);
});

describe('PlainPace', () => {
  const step = (epochStep: number, epoch = 1): RunView => view({ epoch, epochStep, step: epochStep });

  test('a line each tenth of an epoch, but not two in a second', () => {
    const pace = new PlainPace();
    const due = (epochStep: number, nowMs: number): boolean => pace.isDue(step(epochStep), nowMs);
    expect([
      due(1, 0),
      due(2, 500),
      due(77, 1500),
      due(79, 2000),
      due(80, 2500),
      due(157, 2900),
      due(158, 3100),
    ]).toEqual([true, false, false, true, false, false, true]);
  });

  test('a line each ten seconds when an epoch is long', () => {
    const pace = new PlainPace();
    expect([0, 9_999, 10_000, 19_999, 20_000].map((nowMs) => pace.isDue(step(2), nowMs))).toEqual([
      true,
      false,
      true,
      false,
      true,
    ]);
  });

  test('each worker that comes is told, and nothing before the first step or while evaluating', () => {
    const pace = new PlainPace();
    const gathering = (because: string, nowMs: number): boolean => pace.isDue({ ...GATHERING, because }, nowMs);
    expect([gathering('0 of 2', 0), gathering('0 of 2', 5000), gathering('1 of 2', 5100)]).toEqual([true, false, true]);
    expect(pace.isDue(view({ step: 0, epochStep: 0 }), 60_000)).toBe(false);
    expect(pace.isDue(view({ phase: 'evaluating' }), 60_000)).toBe(false);
    expect(pace.isDue(view({ phase: 'done' }), 60_000)).toBe(false);
  });
});
