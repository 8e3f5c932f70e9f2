// Shows a run as it goes: a live line and lasting lines on a terminal, plain lines elsewhere, or one JSON object a line with
// --log-format json. A shell: what is written is made by the pure texts beside it.

import { createLogUpdate } from 'log-update';
import { pino } from 'pino';
import type { RunEvent } from '../../protocol/run-event.ts';
import type { RunView } from '../../protocol/run-view.ts';
import { configurationText, engineText, epochText, rootCauseText, summaryText, type Setting } from './account.ts';
import { liveLine, PlainPace, plainLine } from './live.ts';
import { duration, paint } from './text.ts';

export interface Display {
  configuration(title: string, settings: readonly Setting[]): void;
  event(event: RunEvent): void;
  view(view: RunView): void;
  close(): void;
}

/** Losses kept for the closing curve; thinned by half when there are more. */
const MAX_LOSSES = 4096;

export function createDisplay(options: {
  readonly format: 'pretty' | 'json';
  readonly level: string;
  readonly stdout: NodeJS.WriteStream;
  readonly env: Readonly<Record<string, string | undefined>>;
}): Display {
  return options.format === 'json' ? jsonDisplay(options.level) : prettyDisplay(options);
}

function jsonDisplay(level: string): Display {
  const log = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, pino.destination({ fd: 1, sync: true }));
  const levelOf = (event: RunEvent): 'debug' | 'info' | 'warn' | 'error' => {
    if (event.kind === 'step') return 'debug';
    if (event.kind === 'warning' || event.kind === 'worker-refused') return 'warn';
    return event.kind === 'failed' ? 'error' : 'info';
  };
  let lastEpochStep = -1;
  return {
    configuration: (title, settings) =>
      log.info({ kind: 'configuration', settings: Object.fromEntries(settings.map((s) => [s.name, s.value])) }, title),
    event: (event) => log[levelOf(event)](event, event.kind),
    view: (view) => {
      // A line now and then for people who follow the log; every step is at level debug.
      const tenth = Math.floor((10 * view.epochStep) / view.epochSteps);
      const mark = view.epoch * 100 + tenth;
      if (view.phase !== 'training' || mark === lastEpochStep) return;
      lastEpochStep = mark;
      const { step, epoch, loss, imagesPerSecond } = view;
      log.info({ kind: 'progress', epoch, step, loss, imagesPerSecond }, 'progress');
    },
    close: () => log.flush(),
  };
}

function prettyDisplay(options: Parameters<typeof createDisplay>[0]): Display {
  const { stdout, env } = options;
  const isLive = stdout.isTTY && env['TERM'] !== 'dumb';
  const hasColor = env['FORCE_COLOR'] !== undefined || (isLive && env['NO_COLOR'] === undefined);
  const p = paint(hasColor);
  const update = createLogUpdate(stdout);
  const pace = new PlainPace();
  const quiet = options.level === 'warn' || options.level === 'error';
  const width = (): number => stdout.columns ?? 100;
  let losses: number[] = [];
  let keepEvery = 1;
  let steps = 0;
  let saidEngines: string[] = [];

  const say = (text: string, important = false): void => {
    if (quiet && !important) return;
    if (isLive) update.clear();
    stdout.write(`${text}\n`);
  };

  const noteLoss = (loss: number): void => {
    if (steps++ % keepEvery !== 0) return;
    losses.push(loss);
    if (losses.length < MAX_LOSSES) return;
    losses = losses.filter((_, i) => i % 2 === 0);
    keepEvery *= 2;
  };

  const tell = (event: RunEvent): void => {
    switch (event.kind) {
      case 'step':
        noteLoss(event.loss);
        return;
      case 'listening':
        say(`watch it    ${event.url}  ${p.dim('(/metrics for Prometheus)')}`);
        return;
      case 'resumed':
        say(`resumed     after step ${event.step}, from ${event.from}`);
        return;
      case 'warning':
        say(`${p.yellow('warning:')} ${event.message}`, true);
        return;
      case 'worker-ready': {
        const text = engineText(event);
        // Workers with the same engine are told of once.
        if (!saidEngines.includes(text)) say(`engine      ${text}`);
        saidEngines = [...saidEngines, text];
        return;
      }
      case 'worker-refused':
        say(`${p.red('refused:')} ${event.because} [${event.code}]`, true);
        return;
      case 'generation': {
        const spares = event.spares > 0 ? `, ${event.spares} spare` : '';
        say(`training    generation ${event.generation}: ${event.worldSize} worker(s)${spares} (${event.because})`);
        return;
      }
      case 'epoch':
        say(epochText(event.report, event.epochs));
        return;
      case 'checkpoint':
        if (options.level === 'debug') say(p.dim(`checkpoint  step ${event.step} in ${duration(event.seconds)}: ${event.directory}`));
        return;
      case 'stopping':
        say(`stopping    ${event.because}: finishing the step in flight and leaving a checkpoint`);
        return;
      case 'failed':
        say(p.red(rootCauseText(event.cause, width())), true);
        return;
      case 'finished':
        if (isLive) update.clear();
        say(`\n${summaryText(event.report, event.runDirectory, losses, p)}`);
        return;
      case 'worker-joined':
        if (options.level === 'debug') say(p.dim(`joined      ${event.worker} on ${event.host}, pid ${event.pid}`));
        return;
    }
  };

  return {
    configuration: (title, settings) => say(configurationText(title, settings, p)),
    event: tell,
    view: (view) => {
      if (quiet || view.phase === 'done' || view.phase === 'stopped' || view.phase === 'failed') return;
      if (isLive) update(liveLine(view, width() - 1, p));
      else if (pace.isDue(view, performance.now())) stdout.write(`${plainLine(view)}\n`);
    },
    close: () => {
      if (isLive) {
        update.clear();
        update.done();
      }
    },
  };
}
