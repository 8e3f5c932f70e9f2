// Shows a run as it goes: a live line and lasting lines on a terminal, plain lines elsewhere, or one JSON object a line with
// --log-format json. A shell: what is written is made by the pure texts beside it.
//
// The cursor is never hidden: a coordinator that is killed could not show it again.

import { createLogUpdate } from 'log-update';
import type { RunEvent } from '../../protocol/run-event.ts';
import type { RunView } from '../../protocol/run-view.ts';
import {
  configurationText,
  engineText,
  epochHeading,
  epochText,
  lossText,
  rootCauseText,
  type Setting,
} from './account.ts';
import { jsonDisplay } from './json-log.ts';
import { liveLine, PlainPace, plainLine } from './live.ts';
import { LossCurve } from './loss-curve.ts';
import { summaryText } from './summary.ts';
import { workerLineText } from './worker-line.ts';
import {
  counted,
  duration,
  paint,
  plain,
  visibleWidth,
  wantsColor,
  wantsUnicode,
  wrapped,
  type Style,
} from './text.ts';

export interface Display {
  configuration(title: string, settings: readonly Setting[]): void;
  event(event: RunEvent): void;
  /** Of the launch itself: `label` is the word that begins the line. */
  notice(notice: Notice): void;
  /** What a worker wrote. */
  workerLine(worker: string, text: string): void;
  view(view: RunView): void;
  close(): void;
}

export interface Notice {
  readonly level: 'info' | 'warn';
  readonly label: string;
  readonly message: string;
}

export interface DisplayOptions {
  readonly format: 'pretty' | 'json';
  readonly level: string;
  readonly stdout: NodeJS.WriteStream;
  readonly env: Readonly<Record<string, string | undefined>>;
}

const LEVELS = ['debug', 'info', 'warn', 'error'];
type Level = 'debug' | 'info' | 'warn' | 'error';

/** Width of lines where no terminal says how wide it is. */
const FILE_WIDTH = 100;
/** The word that begins a line: `listening`, `engine`. */
const LABEL_WIDTH = 11;

export function createDisplay(options: DisplayOptions): Display {
  return options.format === 'json' ? jsonDisplay(options.level, options.stdout) : prettyDisplay(options);
}

function prettyDisplay(options: DisplayOptions): Display {
  const { stdout, env } = options;
  const isLive = stdout.isTTY && env['TERM'] !== 'dumb';
  const color = wantsColor(env, stdout.isTTY);
  const unicode = wantsUnicode(env);
  const colors = paint(color);
  const least = LEVELS.indexOf(options.level);
  const update = createLogUpdate(stdout, { showCursor: true });
  const pace = new PlainPace();
  const curve = new LossCurve();
  const engines = new Set<string>();
  let epochsShown = 0;
  let hasFailed = false;
  let hasCheckpoint = false;
  let live = '';
  // A terminal of width 0 has not been told its size.
  const style = (): Style => ({ width: stdout.columns || FILE_WIDTH, color, unicode });

  const redraw = (line: string): void => {
    live = line;
    if (line !== '') update(line);
  };
  const say = (level: Level, text: string): void => {
    if (LEVELS.indexOf(level) < least) return;
    if (isLive) update.clear();
    stdout.write(`${text}\n`);
    if (isLive) redraw(live);
  };
  const labelled = (level: Level, label: string, text: string): void => {
    const [first = '', ...rest] = wrapped(plain(text), Math.max(20, style().width - LABEL_WIDTH));
    say(
      level,
      [
        (level === 'warn' ? colors.yellow : colors.dim)(label.padEnd(LABEL_WIDTH)) + first,
        ...rest.map((row) => ' '.repeat(LABEL_WIDTH) + row),
      ].join('\n'),
    );
  };

  // A narrower terminal has broken the live line into rows of its own by now: take those below the first away, so that what
  // log-update takes away is all that is left of it.
  const onResize = (): void => {
    if (live === '') return;
    const rows = Math.ceil(visibleWidth(live) / style().width);
    if (rows > 1) stdout.write(`\u001B[${rows - 1}A\u001B[J`);
    update.clear();
    live = '';
  };
  if (isLive) stdout.on('resize', onResize);

  const tell = (event: RunEvent): void => {
    switch (event.kind) {
      case 'listening':
        return labelled('info', 'listening', `${event.url} (page, /metrics, /api/run)`);
      case 'resumed':
        hasCheckpoint = true;
        return labelled('info', 'resumed', `after step ${event.step}, from ${event.from}`);
      case 'warning':
        return labelled('warn', 'warning', event.message);
      case 'worker-joined':
        return labelled('debug', 'joined', `${event.worker} on ${event.host}, pid ${event.pid}`);
      case 'worker-ready': {
        // Workers with the same engine are told of once.
        const text = engineText(event);
        const isNew = !engines.has(text);
        engines.add(text);
        return labelled(isNew ? 'info' : 'debug', 'engine', isNew ? text : `${event.worker}: the same`);
      }
      case 'worker-refused':
        return labelled('warn', 'refused', `${event.worker}: ${event.because} (${event.code})`);
      case 'generation': {
        const spares = event.spares > 0 ? `, ${counted(event.spares, 'spare')}` : '';
        return labelled(
          'info',
          'training',
          `generation ${event.generation}: ${counted(event.worldSize, 'worker')}${spares}; ${event.because}`,
        );
      }
      case 'waiting':
        return labelled('warn', 'waiting', event.because);
      case 'worker-lost':
        return labelled('warn', 'lost', lossText(event.cause));
      case 'step':
        return curve.add(event.loss);
      case 'epoch':
        if (epochsShown++ === 0) say('info', colors.dim(epochHeading()));
        return say('info', epochText(event.report, event.epochs));
      case 'checkpoint':
        hasCheckpoint = true;
        return labelled('debug', 'checkpoint', `step ${event.step} in ${duration(event.seconds)}: ${event.directory}`);
      case 'mismatch':
        return labelled('warn', 'mismatch', event.because);
      case 'stopping':
        return labelled('warn', 'stopping', `${event.because}: finishing the step in flight and leaving a checkpoint`);
      case 'failed':
        // What fails after the first is a consequence.
        if (!hasFailed) say('error', colors.red(rootCauseText(event.cause, style())));
        hasFailed = true;
        return;
      case 'finished':
        live = '';
        return say(
          'info',
          `\n${summaryText(event.report, { runDirectory: event.runDirectory, hasCheckpoint, losses: curve.points }, style())}`,
        );
    }
  };

  return {
    configuration: (title, settings) => say('info', `${configurationText(title, settings, style())}\n`),
    event: tell,
    notice: ({ level, label, message }) => labelled(level, label, message),
    workerLine: (worker, text) => say('info', workerLineText(worker, text, style())),
    view: (view) => {
      if (LEVELS.indexOf('info') < least) return;
      const isOver = view.phase === 'done' || view.phase === 'stopped' || view.phase === 'failed';
      if (!isLive) {
        if (pace.isDue(view, performance.now())) stdout.write(`${plainLine(view)}\n`);
      } else if (!isOver) {
        // A line as wide as the terminal would be wrapped by some.
        const { width, ...rest } = style();
        redraw(liveLine(view, { ...rest, width: width - 1 }));
      }
    },
    close: () => {
      if (!isLive) return;
      stdout.off('resize', onResize);
      update.clear();
      live = '';
    },
  };
}
