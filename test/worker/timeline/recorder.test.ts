import { expect, it } from 'vitest';
import { spansOf } from '../../../protocol/timeline.ts';
import { Recorder } from '../../../worker/timeline/recorder.ts';

/** Its seconds begin when the machine's clock shows 5 s. */
const recorder = (): Recorder => new Recorder({ originUs: () => 5e6, seconds: () => 0.25, boot: () => 'b' });
const ask = (from: number, to: number, sentUs = 7) => ({ kind: 'clock', sentUs, from, to }) as const;

it('records nothing before it is asked, and what it is asked for then, in the machine’s time', () => {
  const made = recorder();
  expect([made.isWanted, made.of(1), made.take(1)]).toEqual([false, null, null]);
  expect(made.asked(ask(2, 3))).toEqual({ kind: 'clock', sentUs: 7, atUs: 5.25e6, boot: 'b' });
  expect([1, 2, 3, 4].map((step) => made.of(step) !== null)).toEqual([false, true, true, false]);
  made.of(3)?.add('apply', 0.5, 0.75);
  const message = made.take(9);
  expect(message).toMatchObject({ kind: 'trace', generation: 9, lost: 0 });
  expect(spansOf(message?.spans ?? new Uint8Array(0))).toEqual([
    { kind: 'apply', startUs: 5.5e6, endUs: 5.75e6, step: 3, detail: 0 },
  ]);
  expect(made.take(9)).toBe(null);
});

it('keeps what it has for the next coordinator, and gives it to one that asks', () => {
  const made = recorder();
  made.asked(ask(0, 9));
  made.of(1)?.add('step', 0, 1);
  made.forget();
  expect([made.isWanted, made.of(2), made.take(1)]).toEqual([false, null, null]);
  made.asked(ask(0, 9));
  expect(spansOf(made.take(1)?.spans ?? new Uint8Array(0)).map(({ step }) => step)).toEqual([1]);
});

it('tells a microbatch in its parts, and of a wait for its slot when there was one', () => {
  const made = recorder();
  made.asked(ask(0, 9));
  made.of(4)?.microbatch(2, [0, 0.001, 0.00101, 0.003]);
  made.of(4)?.microbatch(3, [0.003, 0.004, 0.006, 0.008]);
  const told = spansOf(made.take(1)?.spans ?? new Uint8Array(0));
  expect(told.map(({ kind, startUs, endUs, detail }) => [kind, startUs - 5e6, endUs - 5e6, detail])).toEqual([
    ['data', 0, 1000, 2],
    ['compute', 1000, 3000, 2],
    ['data', 3000, 4000, 3],
    ['slot', 4000, 6000, 3],
    ['compute', 6000, 8000, 3],
  ]);
});

it('tells an all-reduce as waiting and exchange, and each bucket on its way', () => {
  const made = recorder();
  made.asked(ask(0, 9));
  const marks = Float64Array.of(1, 2, 3, 4, 1.5, 2, 2, 5);
  const timing = { waitSeconds: 2, reduceSeconds: 3, traffic: [], marks };
  made.of(1)?.allReduce(1, 6, timing, 0.5);
  const told = spansOf(made.take(1)?.spans ?? new Uint8Array(0));
  expect(told.map(({ kind, startUs, endUs, detail }) => [kind, startUs / 1e6 - 5, endUs / 1e6 - 5, detail])).toEqual([
    ['allreduce', 1, 6, 0],
    ['wait', 1, 3, 500_000],
    ['exchange', 3, 6, 0],
    ['bucket', 1, 4, 0],
    ['send', 1, 2, 0],
    ['sum', 2, 3, 0],
    ['gather', 3, 4, 0],
    ['bucket', 1.5, 5, 1],
    ['send', 1.5, 2, 1],
    ['gather', 2, 5, 1],
  ]);
});
