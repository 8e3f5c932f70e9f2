import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { MAX_REPORTED_STEPS, type StepReport, type WorkerMessage } from '../../protocol/messages.ts';
import { ReportBatch } from '../../worker/report-batch.ts';

const step = (number: number): StepReport => ({
  step: number,
  samples: 4,
  lossSum: 8,
  correct: 1,
  gradientNorm: 1,
  seconds: 0.5,
  phases: { data: 0.1, compute: 0.2, allreduce: 0.1, apply: 0.05, wait: 0.05 },
  rssBytes: 1000,
});

let sent: WorkerMessage[] = [];
const batch = (): ReportBatch => new ReportBatch(7, (message) => sent.push(message));
const stepsOf = (message: WorkerMessage | undefined): number[] =>
  message?.kind === 'report' ? message.steps.map((s) => s.step) : [];

beforeEach(() => {
  sent = [];
  vi.useFakeTimers();
});
afterEach(() => vi.useRealTimers());

it('steps travel together, in their order, after a twentieth of a second at most', () => {
  const reports = batch();
  for (const n of [1, 2, 3]) reports.add(step(n), []);
  vi.advanceTimersByTime(49);
  expect(sent).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(sent).toEqual([{ kind: 'report', generation: 7, steps: [step(1), step(2), step(3)], links: [] }]);
  reports.add(step(4), []);
  vi.advanceTimersByTime(50);
  expect(stepsOf(sent[1])).toEqual([4]);
});

it('another message comes after the steps that came before it', () => {
  const reports = batch();
  reports.add(step(1), []);
  reports.before({ kind: 'linked', generation: 7, step: 1, digest: 'a'.repeat(64) });
  expect(sent.map((m) => m.kind)).toEqual(['report', 'linked']);
  vi.advanceTimersByTime(1000);
  expect(sent).toHaveLength(2);
});

it('a report never has more steps than the protocol allows', () => {
  const reports = batch();
  for (let n = 0; n <= MAX_REPORTED_STEPS; n++) reports.add(step(n), []);
  expect(stepsOf(sent[0])).toHaveLength(MAX_REPORTED_STEPS);
  reports.flush();
  expect(stepsOf(sent[1])).toEqual([MAX_REPORTED_STEPS]);
});

it('what links carried is summed since the last report', () => {
  const reports = batch();
  const link = (peer: number, bytesOut: number, bytesIn: number) =>
    ({ peer, transport: 'shm', bytesOut, bytesIn }) as const;
  reports.add(step(1), [link(0, 10, 1), link(2, 5, 5)]);
  reports.add(step(2), [link(0, 20, 2)]);
  reports.flush();
  reports.add(step(3), [link(0, 1, 1)]);
  reports.flush();
  const links = sent.map((message) => (message.kind === 'report' ? message.links : null));
  expect(links).toEqual([[link(0, 30, 3), link(2, 5, 5)], [link(0, 1, 1)]]);
});
