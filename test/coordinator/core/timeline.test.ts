import { describe, expect, it } from 'vitest';
import { TraceLines } from '../../../coordinator/core/chrome-trace.ts';
import { Timeline, type TracedWorker } from '../../../coordinator/core/timeline.ts';
import type { TraceMessage } from '../../../protocol/messages.ts';
import { SpanBuffer } from '../../../protocol/timeline.ts';
import { eventsOf, namesOf, rowsOf } from '../../trace.ts';

const W1: TracedWorker = { id: 'w1', host: 'far', pid: 4321, rank: 0, formerly: null };
const PLAN = { samples: 8, globalBatch: 4, microbatches: 2, seed: 1 };

const timeline = (more: { from?: number; to?: number; term?: number } = {}): Timeline =>
  new Timeline({
    term: 1,
    host: 'near',
    pid: 99,
    boot: 'here',
    plan: PLAN,
    steps: 4,
    from: 0,
    to: 100,
    zeroUs: 1000,
    ...more,
  });

const traceOf = (fill: (spans: SpanBuffer) => void, generation = 1): TraceMessage => {
  const spans = new SpanBuffer();
  fill(spans);
  return { kind: 'trace', generation, ...(spans.take() ?? { spans: new Uint8Array(0), lost: 0 }) };
};

const sameClock = { kind: 'clock', sentUs: 0, atUs: 0, boot: 'here' } as const;

describe('a worker', () => {
  it('is a process with its name, host and rank; its spans are on its row, buckets each on their own', () => {
    const made = timeline();
    const lines = made.clock(W1, sameClock, 2000);
    const trace = traceOf((spans) => {
      spans.add('data', 1500, 1600.25, 7, 1);
      spans.add('compute', 1600.25, 1800, 7, 1);
      spans.add('bucket', 1700, 1900, 7, 2);
      spans.add('step', 1500, 1900, 7, 0);
    }, 3);
    lines.push(...made.trace(W1, trace, 2001));
    expect(lines).toEqual([
      '{"name":"process_name","ph":"M","pid":1001,"args":{"name":"w1, rank 0, process 4321 on far"}}',
      '{"name":"process_sort_index","ph":"M","pid":1001,"args":{"sort_index":1001}}',
      '{"name":"clock","ph":"i","pid":1001,"tid":1001001,"ts":1000.000,"s":"p","args":{"how":"same clock","offsetUs":0,"uncertaintyUs":0}}',
      '{"name":"thread_name","ph":"M","pid":1001,"tid":1001001,"args":{"name":"engine"}}',
      '{"name":"thread_sort_index","ph":"M","pid":1001,"tid":1001001,"args":{"sort_index":1001001}}',
      '{"name":"data","ph":"X","pid":1001,"tid":1001001,"ts":500.000,"dur":100.250,"args":{"step":7,"microbatch":1}}',
      '{"name":"forward/backward","ph":"X","pid":1001,"tid":1001001,"ts":600.250,"dur":199.750,"args":{"step":7,"microbatch":1}}',
      '{"name":"thread_name","ph":"M","pid":1001,"tid":1001012,"args":{"name":"collective: bucket 2"}}',
      '{"name":"thread_sort_index","ph":"M","pid":1001,"tid":1001012,"args":{"sort_index":1001012}}',
      '{"name":"bucket","ph":"X","pid":1001,"tid":1001012,"ts":700.000,"dur":200.000,"args":{"step":7,"bucket":2}}',
      '{"name":"step","ph":"X","pid":1001,"tid":1001001,"ts":500.000,"dur":400.000,"args":{"step":7,"generation":3}}',
    ]);
    // Named again only when there is something new to say.
    expect(
      made.trace(
        W1,
        traceOf(() => {}),
        2002,
      ),
    ).toEqual([]);
    const [renamed = ''] = made.trace({ ...W1, rank: 1, formerly: 'w0' }, trace, 2003);
    expect(renamed).toContain('"w1 (w0 before), rank 1, process 4321 on far"');
  });

  it('on another machine is shown once its clock is known, in this one’s time, and how well it is known', () => {
    const made = timeline();
    const early = traceOf((spans) => spans.add('step', 900_100, 900_400, 1, 0));
    expect(made.trace(W1, early, 1500)).toEqual([]);
    // Sent at 2000, answered at 900,600 there, back at 2200: 898,500 ahead, to 100.
    const lines = made.clock(W1, { kind: 'clock', sentUs: 2000, atUs: 900_600, boot: 'there' }, 2200);
    const events = eventsOf(`[${lines.join(',')}]`);
    expect(events.filter(({ ph }) => ph === 'X')).toMatchObject([{ name: 'step', ts: 600, dur: 300 }]);
    expect(events.filter(({ ph }) => ph === 'i')).toMatchObject([
      { name: 'clock', s: 'p', args: { how: 'round trip', offsetUs: -898_500, uncertaintyUs: 100 } },
    ]);
    // Said again when it is known twice as well, not each time.
    const again = { kind: 'clock', sentUs: 3000, boot: 'there' } as const;
    expect(made.clock(W1, { ...again, atUs: 901_590 }, 3190)).toEqual([]);
    expect(made.clock(W1, { ...again, atUs: 901_520 }, 3040).join()).toContain('"uncertaintyUs":20');
  });

  it('whose clock never becomes known holds no more than so much, and what is lost is counted', () => {
    const made = timeline();
    const trace = traceOf((spans) => {
      spans.add('data', 1, 2, 1, 0);
      spans.add('step', 1, 3, 1, 0);
    });
    for (let i = 0; i < 700; i++) expect(made.trace(W1, trace, i)).toEqual([]);
    expect(made.end(9000).at(-1)).toContain('"args":{"spansLost":{"w1":200}}');
    expect(eventsOf(`[${made.clock(W1, sameClock, 9001).join(',')}]`).filter(({ ph }) => ph === 'X')).toHaveLength(
      1200,
    );
  });

  it('has rows that no other process has', () => {
    const made = timeline();
    const trace = traceOf((spans) => {
      for (const kind of ['step', 'bucket'] as const) spans.add(kind, 1, 2, 1, 1_000_000);
    });
    const lines = [...made.begin(0), ...made.event({ kind: 'waiting', because: 'b' }, 1), ...made.end(2)];
    for (const id of ['w0', 'w1', 'w12']) {
      lines.push(...made.clock({ ...W1, id }, sameClock, 5), ...made.trace({ ...W1, id }, trace, 6));
    }
    const events = eventsOf(`[${lines.join(',')}]`);
    const owners = new Map<number, number>();
    for (const event of events) {
      if (event.ph === 'M') continue;
      expect(owners.get(event.tid) ?? event.pid).toBe(event.pid);
      owners.set(event.tid, event.pid);
    }
    expect(new Set(owners.values()).size).toBe(4);
  });
});

it('what ends together does so in the file, too: times are rounded, then lengths are taken', () => {
  const lines = new TraceLines(0);
  const row = { pid: 1, tid: 1 };
  const written = [lines.span(row, 'outer', 0.0001, 1.0006, {}), lines.span(row, 'inner', 0.0004, 1.0006, {})];
  expect(written.map((line) => /"ts":(\S+?),"dur":(\S+?),/.exec(line)?.slice(1))).toEqual([
    ['0.000', '1.001'],
    ['0.000', '1.001'],
  ]);
});

describe('the coordinator', () => {
  it('shows generations as they form and as they train, losses, checkpoints to when they are durable, evaluations', () => {
    const made = timeline({ to: 2 });
    const phases = { data: 0, compute: 0, allreduce: 0, apply: 0, wait: 0 };
    const step = (number: number, loss: number, nowUs: number): string[] => {
      const figures = { accuracy: 0, gradientNorm: 1, samples: 4, seconds: 1, phases };
      return made.event({ kind: 'step', step: number, generation: 1, loss, ...figures }, nowUs);
    };
    const cause = {
      who: 'w1',
      rank: 1,
      host: 'far',
      pid: 5,
      exitCode: null,
      signal: 'SIGKILL',
      code: null,
      message: 'killed',
      lastLines: [],
      logFile: null,
    };
    const report = { epoch: 1, loss: 1, testLoss: 2, testAccuracy: 0.5, seconds: 1, imagesPerSecond: 1 };
    const lines = [
      ...made.begin(1000),
      ...made.forms(1, ['w0', 'w1'], 'all are here', 2000),
      ...made.event({ kind: 'generation', generation: 1, worldSize: 2, spares: 0, because: 'all are here' }, 3000),
      ...step(1, 2.5, 4000),
      ...step(2, 2.25, 5000),
      ...made.event({ kind: 'checkpoint', step: 2, directory: 'd', seconds: 0.002 }, 8000),
      ...made.event({ kind: 'epoch', report, epochs: 2 }, 9000),
      ...made.event({ kind: 'worker-lost', cause }, 9500),
      ...made.forms(2, ['w0'], 'w1 is lost', 10_000),
      ...step(3, 2, 10_500),
      ...made.end(11_000),
    ];
    const events = eventsOf(`[${lines.join(',')}]`);
    const names = namesOf(events, 'thread_name');
    const spans = [...rowsOf(events)].flatMap(([tid, row]) =>
      row.map(({ name, start, end, args }) => [names.get(tid), name, start, end, args]),
    );
    expect(new Set(spans)).toEqual(
      new Set([
        ['generations', 'generation 1 forms', 1000, 2000, { members: ['w0', 'w1'], because: 'all are here' }],
        ['generations', 'generation 1', 2000, 9000, { workers: 2, because: 'all are here' }],
        ['generations', 'generation 2 forms', 9000, 10_000, { members: ['w0'], because: 'w1 is lost' }],
        ['checkpoints', 'checkpoint of step 2', 5000, 7000, { directory: 'd' }],
        ['evaluations', 'evaluation of epoch 1', 4000, 8000, { testLoss: 2, testAccuracy: 0.5 }],
      ]),
    );
    expect(events.filter(({ ph }) => ph === 'C')).toMatchObject([
      { name: 'loss', ts: 3000, args: { loss: 2.5 } },
      { name: 'loss', ts: 4000, args: { loss: 2.25 } },
    ]);
    const marks = events.flatMap((event) => (event.ph === 'i' && event.s === 'g' ? [[event.name, event.ts]] : []));
    expect(marks).toEqual([
      ['the coordinator begins', 0],
      ['generation 1', 1000],
      ['w1 lost', 8500],
      ['generation 2', 9000],
      ['the coordinator ends', 10_000],
    ]);
    expect(namesOf(events, 'process_name').get(1)).toBe('coordinator 1, process 99 on near');
  });
});
