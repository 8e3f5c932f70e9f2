import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { Worker } from '../../coordinator/core/worker.ts';
import { openTimeline, type TimelineOptions } from '../../coordinator/timeline.ts';
import type { ClockMessage, CoordinatorMessage, WorkerMessage } from '../../protocol/messages.ts';
import { SpanBuffer } from '../../protocol/timeline.ts';
import { eventsOf, rowsOf } from '../trace.ts';
import { CONFIG } from './config.ts';
import { temporaryDirectory } from './record/temporary.ts';

const workerOf = (id: string, more: Partial<Worker> = {}): Worker =>
  ({ id, host: 'h', pid: 7, rank: 0, isConnected: true, state: 'training', rejoined: null, ...more }) as Worker;

/** A coordinator of these workers, and what it says to them. */
function around(file: string, more: Partial<TimelineOptions> = {}) {
  const workers = new Map([['w0', workerOf('w0')]]);
  const said: [string, CoordinatorMessage][] = [];
  const failures: (string | null)[] = [];
  const options: TimelineOptions = {
    wish: { file, from: 2, to: 5 },
    config: CONFIG,
    term: 1,
    isResumed: false,
    observe: (failure) => failures.push(failure?.message ?? null),
    warn: () => {},
    workers,
    send: (worker, message) => said.push([worker, message]),
    isOurs: () => true,
    ...more,
  };
  return { options, workers, said, failures };
}

const clockOf = ([, message]: [string, CoordinatorMessage] = ['', { kind: 'probe' }]): ClockMessage => {
  if (message.kind !== 'clock') throw new Error(`it said ${message.kind}`);
  return message;
};
const hello = { kind: 'hello' } as WorkerMessage;
const traceOf = (step: number): WorkerMessage => {
  const spans = new SpanBuffer();
  spans.add('step', 10, 20, step, 0);
  return { kind: 'trace', generation: 1, ...(spans.take() ?? { spans: new Uint8Array(0), lost: 0 }) };
};

it('asks a worker as it comes, and again once it has answered; what it tells is in the file', async () => {
  const file = join(temporaryDirectory(), 't.json');
  const { options, workers, said } = around(file);
  const timeline = await openTimeline(options);
  timeline?.heard('w0', hello);
  expect(said).toEqual([['w0', { kind: 'clock', sentUs: expect.any(Number) as number, from: 2, to: 5 }]]);
  timeline?.tick();
  expect(said).toHaveLength(1);
  timeline?.heard('w0', traceOf(3));
  const { sentUs } = clockOf(said[0]);
  // An answer to what was never asked is none.
  timeline?.heard('w0', { kind: 'clock', sentUs: sentUs + 1, atUs: 0, boot: null });
  timeline?.tick();
  expect(said).toHaveLength(1);
  for (let trips = 0; trips < 4; trips++) {
    timeline?.heard('w0', { kind: 'clock', sentUs: clockOf(said.at(-1)).sentUs, atUs: 0, boot: 'another' });
    timeline?.tick();
  }
  expect(said).toHaveLength(5);
  // Nobody asks who is lost.
  timeline?.heard('w0', { kind: 'clock', sentUs: clockOf(said.at(-1)).sentUs, atUs: 0, boot: 'another' });
  workers.set('w0', workerOf('w0', { state: 'lost' }));
  timeline?.tick();
  expect(said).toHaveLength(5);
  await timeline?.close();
  const rows = rowsOf(eventsOf(readFileSync(file, 'utf8')));
  expect([...rows.values()].flat().map(({ name, args }) => [name, args['step']])).toEqual([['step', 3]]);
});

it('a new run whose file can’t be written is refused; one that goes on has an alarm instead', async () => {
  const file = join(temporaryDirectory(), 'nowhere', 't.json');
  const fresh = around(file);
  await expect(openTimeline(fresh.options)).rejects.toMatchObject({
    code: 'E_USAGE',
    message: expect.stringContaining(`--timeline ${file}: ENOENT`) as string,
  });
  const resumed = around(file, { isResumed: true });
  expect(await openTimeline(resumed.options)).toBe(null);
  expect(resumed.failures).toEqual([expect.stringContaining('ENOENT')]);
});

it('writes nothing more once another coordinator has the run', async () => {
  const file = join(temporaryDirectory(), 't.json');
  let isOurs = true;
  const { options } = around(file, { isOurs: () => isOurs });
  const timeline = await openTimeline(options);
  await timeline?.close();
  const again = await openTimeline({ ...options, isResumed: true, term: 2 });
  isOurs = false;
  again?.forms(9, ['w0'], 'b');
  await again?.close();
  const marks = eventsOf(readFileSync(file, 'utf8')).flatMap((event) => (event.ph === 'i' ? [event.name] : []));
  expect(marks.slice(0, 2)).toEqual(['the coordinator begins', 'the coordinator ends']);
  expect(marks).not.toContain('generation 9');
});
