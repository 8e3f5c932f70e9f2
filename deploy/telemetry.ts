// A run as OpenTelemetry spans: the run, in it its generations, epochs and checkpoints, with what happened in between as events of the
// run. Through the API alone: without an SDK in the process (`NODE_OPTIONS="--import ./telemetry.mjs"`) all of it does nothing.
// Steps are no spans: there are a hundred a second; --timeline and the metrics are for them.

import { context, SpanStatusCode, trace, type Attributes, type Span, type Tracer } from '@opentelemetry/api';
import type { RunConfig } from '../protocol/run-config.ts';
import type { RunEvent } from '../protocol/run-event.ts';

export interface Telemetry {
  event(event: RunEvent): void;
  /** Ends what is still open: the process ends before the run does. */
  close(): void;
}

/** @param now Unix time in milliseconds */
export function startTelemetry(
  config: RunConfig,
  version: string,
  now: () => number,
  tracer: Tracer = trace.getTracer('lockstep', version),
): Telemetry {
  const run = tracer.startSpan('lockstep.run', {
    startTime: now(),
    attributes: {
      'lockstep.run': config.run,
      'lockstep.job': config.jobName,
      'lockstep.seed': config.seed,
      'lockstep.batch_size': config.globalBatch,
      'lockstep.microbatches': config.microbatches,
      'lockstep.steps': config.steps,
      'lockstep.engine': config.engine,
      'lockstep.transport': config.transport,
    },
  });
  const inside = trace.setSpan(context.active(), run);
  const begin = (name: string, startTime: number, attributes: Attributes): Span =>
    tracer.startSpan(name, { startTime, attributes }, inside);
  let generation: Span | null = null;
  let epochBegan: number | null = null;
  let failure: string | null = null;
  let isOver = false;
  const note = (name: string, attributes: Attributes): void => {
    run.addEvent(name, attributes, now());
  };
  const end = (): void => {
    if (isOver) return;
    isOver = true;
    generation?.end(now());
    if (failure !== null) run.setStatus({ code: SpanStatusCode.ERROR, message: failure });
    run.end(now());
  };

  return {
    event: (event) => {
      switch (event.kind) {
        case 'generation':
          generation?.end(now());
          generation = begin('lockstep.generation', now(), {
            'lockstep.generation': event.generation,
            'lockstep.world_size': event.worldSize,
            'lockstep.because': event.because,
          });
          return;
        case 'waiting':
          generation?.end(now());
          generation = null;
          return note('waiting', { 'lockstep.because': event.because });
        case 'step':
          // It is told when it is done.
          epochBegan ??= now() - 1000 * event.seconds;
          return;
        case 'epoch': {
          const { report } = event;
          const span = begin('lockstep.epoch', epochBegan ?? now() - 1000 * report.seconds, {
            'lockstep.epoch': report.epoch,
            'lockstep.loss': report.loss,
            'lockstep.images_per_second': report.imagesPerSecond,
            ...(report.testLoss !== null && { 'lockstep.test_loss': report.testLoss }),
            ...(report.testAccuracy !== null && { 'lockstep.test_accuracy': report.testAccuracy }),
          });
          span.end(now());
          epochBegan = null;
          return;
        }
        case 'checkpoint':
          return begin('lockstep.checkpoint', now() - 1000 * event.seconds, { 'lockstep.step': event.step }).end(now());
        case 'worker-lost':
          return note('worker lost', {
            'lockstep.worker': event.cause.who,
            'lockstep.because': event.cause.message,
            ...(event.cause.code !== null && { 'lockstep.code': event.cause.code }),
          });
        case 'worker-joined':
          return note('worker joined', { 'lockstep.worker': event.worker, 'host.name': event.host });
        case 'worker-refused':
          return note('worker refused', { 'lockstep.worker': event.worker, 'lockstep.code': event.code });
        case 'mismatch':
          return note('mismatch', { 'lockstep.step': event.step, 'lockstep.because': event.because });
        case 'warning':
          return note('warning', { 'lockstep.because': event.message });
        case 'resumed':
          return note('resumed', { 'lockstep.step': event.step });
        case 'stopping':
          return note('stopping', { 'lockstep.because': event.because });
        case 'failed':
          failure = event.cause.message;
          return;
        case 'finished':
          run.setAttributes({
            'lockstep.state': event.report.state,
            ...(event.report.digest !== null && { 'lockstep.digest': event.report.digest }),
            ...(event.report.testAccuracy !== null && { 'lockstep.test_accuracy': event.report.testAccuracy }),
          });
          return end();
        case 'listening':
        case 'worker-ready':
          return;
      }
    },
    close: end,
  };
}
