// A run as one JSON object a line, for programs that collect logs: the events as they are, with a level, a time and a sentence.
// Steps are at level debug; a line of progress, at the pace of the plain lines, is at level info.

import { pino, stdTimeFunctions } from 'pino';
import type { RunEvent } from '../../protocol/run-event.ts';
import type { Display } from './display.ts';
import { engineText } from './account.ts';
import { PlainPace, plainLine } from './live.ts';
import { plain } from './text.ts';

const WARNINGS: ReadonlySet<RunEvent['kind']> = new Set([
  'warning',
  'worker-refused',
  'worker-lost',
  'waiting',
  'mismatch',
  'stopping',
]);

function levelOf(event: RunEvent): 'debug' | 'info' | 'warn' | 'error' {
  if (event.kind === 'step' || event.kind === 'worker-joined') return 'debug';
  if (WARNINGS.has(event.kind)) return 'warn';
  return event.kind === 'failed' ? 'error' : 'info';
}

function sentenceOf(event: RunEvent): string {
  switch (event.kind) {
    case 'listening':
      return `listening on ${event.url}`;
    case 'resumed':
      return `resumed after step ${event.step}`;
    case 'warning':
      return event.message;
    case 'worker-joined':
      return `${event.worker} joined`;
    case 'worker-ready':
      return `${event.worker} is ready: ${engineText(event)}`;
    case 'worker-refused':
      return `${event.worker} was refused: ${event.because}`;
    case 'generation':
      return `generation ${event.generation}: ${event.because}`;
    case 'waiting':
      return event.because;
    case 'worker-lost':
      return `${event.cause.who} is lost: ${event.cause.message}`;
    case 'step':
      return `step ${event.step}`;
    case 'epoch':
      return `epoch ${event.report.epoch} of ${event.epochs}`;
    case 'checkpoint':
      return `checkpoint after step ${event.step}`;
    case 'mismatch':
      return `mismatch: ${event.because}`;
    case 'stopping':
      return `stopping: ${event.because}`;
    case 'failed':
      return `${event.cause.who} failed: ${event.cause.message}`;
    case 'finished':
      return `${event.report.state} after step ${event.report.steps}`;
  }
}

export function jsonDisplay(level: string, stdout: { write(text: string): unknown }): Display {
  const log = pino(
    {
      level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    { write: (line) => void stdout.write(line) },
  );
  const pace = new PlainPace();
  return {
    configuration: (title, settings) =>
      log.info({ kind: 'configuration', settings: Object.fromEntries(settings.map((s) => [s.name, s.value])) }, title),
    event: (event) => log[levelOf(event)](event, sentenceOf(event)),
    notice: ({ label, message, ...notice }) => log[notice.level]({ kind: 'launch', label }, message),
    workerLine: (worker, text) => log.info({ kind: 'worker-line', worker }, plain(text)),
    view: (view) => {
      if (!pace.isDue(view, performance.now())) return;
      const { phase, epoch, step, steps, epochLoss, accuracy, imagesPerSecond, secondsLeft } = view;
      log.info(
        { kind: 'progress', phase, epoch, step, steps, epochLoss, accuracy, imagesPerSecond, secondsLeft },
        plainLine(view),
      );
    },
    close: () => {},
  };
}
