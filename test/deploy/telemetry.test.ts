// Spans as an SDK exports them.

import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { describe, expect, it } from 'vitest';
import { startTelemetry, type Telemetry } from '../../deploy/telemetry.ts';
import type { RootCause } from '../../protocol/run-event.ts';
import { CONFIG } from '../coordinator/config.ts';
import { report } from './terminal/a-run.ts';

const CAUSE: RootCause = {
  who: 'w1',
  rank: 1,
  host: 'here',
  pid: 7,
  exitCode: null,
  signal: 'SIGKILL',
  code: 'E_PEER_LOST',
  message: 'killed by SIGKILL',
  lastLines: [],
  logFile: null,
};

function rig(): { telemetry: Telemetry; exporter: InMemorySpanExporter; at: (ms: number) => void } {
  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  let now = 1000;
  const telemetry = startTelemetry(CONFIG, '0.1.0', () => now, provider.getTracer('test'));
  return { telemetry, exporter, at: (ms) => void (now = ms) };
}

const ms = ([seconds, nanoseconds]: [number, number]): number => 1000 * seconds + nanoseconds / 1e6;

describe('a run as spans', () => {
  it('has generations, epochs and checkpoints in it, at their times, and what happened as events', () => {
    const { telemetry, exporter, at } = rig();
    const phases = { data: 0, compute: 0, allreduce: 0, apply: 0, wait: 0 };
    const step = { generation: 1, loss: 1, accuracy: 0, gradientNorm: 1, samples: 4, seconds: 0.5, phases };
    at(2000);
    telemetry.event({ kind: 'generation', generation: 1, worldSize: 2, spares: 0, because: '2 of 2 workers ready' });
    at(3000);
    telemetry.event({ kind: 'step', step: 1, ...step });
    at(3500);
    telemetry.event({ kind: 'worker-lost', cause: CAUSE });
    telemetry.event({ kind: 'generation', generation: 2, worldSize: 1, spares: 0, because: 'w1 is lost' });
    at(4000);
    telemetry.event({ kind: 'step', step: 2, ...step });
    telemetry.event({
      kind: 'epoch',
      epochs: 1,
      report: { epoch: 1, loss: 1.5, testLoss: null, testAccuracy: 0.5, seconds: 1, imagesPerSecond: 8 },
    });
    telemetry.event({ kind: 'checkpoint', step: 2, directory: 'd', seconds: 0.25 });
    at(5000);
    telemetry.event({ kind: 'finished', report: report({ digest: 'abc' }), runDirectory: 'r' });
    telemetry.close();

    const spans = exporter.getFinishedSpans();
    const run = spans.find((span) => span.name === 'lockstep.run');
    expect(
      spans.map((span) => [span.name, ms(span.startTime), ms(span.endTime), span.parentSpanContext?.spanId ?? null]),
    ).toEqual([
      ['lockstep.generation', 2000, 3500, run?.spanContext().spanId],
      ['lockstep.epoch', 2500, 4000, run?.spanContext().spanId],
      ['lockstep.checkpoint', 3750, 4000, run?.spanContext().spanId],
      ['lockstep.generation', 3500, 5000, run?.spanContext().spanId],
      ['lockstep.run', 1000, 5000, null],
    ]);
    expect(run?.attributes).toMatchObject({ 'lockstep.digest': 'abc', 'lockstep.state': 'done' });
    expect(run?.events.map(({ name, time, attributes }) => [name, ms(time), attributes?.['lockstep.code']])).toEqual([
      ['worker lost', 3500, 'E_PEER_LOST'],
    ]);
    expect(run?.status.code).toBe(0);
  });

  it('that fails is an error with its cause; one whose process ends is ended', () => {
    const failed = rig();
    failed.telemetry.event({ kind: 'failed', cause: CAUSE });
    failed.telemetry.event({ kind: 'finished', report: report({ state: 'failed', digest: null }), runDirectory: 'r' });
    expect(failed.exporter.getFinishedSpans()).toMatchObject([
      { name: 'lockstep.run', status: { code: 2, message: 'killed by SIGKILL' } },
    ]);
    const closed = rig();
    closed.telemetry.close();
    expect(closed.exporter.getFinishedSpans().length).toBe(1);
  });
});
