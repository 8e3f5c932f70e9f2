// The one line that lives while training runs, and the plain lines that take its place where the output is no terminal. Pure.

import type { RunView, WorkerView } from '../../protocol/run-view.ts';
import { clock, counted, grouped, paint, percent, type Paint, type Style } from './text.ts';

type Marks = Readonly<Record<WorkerView['state'], string>>;

const MARKS: Marks = {
  joining: '◌',
  preparing: '◌',
  ready: '○',
  spare: '○',
  training: '●',
  evaluating: '◆',
  finished: '✓',
  lost: '✗',
};
const ASCII_MARKS: Marks = {
  joining: '.',
  preparing: '.',
  ready: 'o',
  spare: 'o',
  training: '*',
  evaluating: '?',
  finished: '+',
  lost: 'x',
};

/** Workers shown by name, and by mark; more are counted. */
const MAX_NAMED = 8;
const MAX_MARKED = 24;

/** The states of the workers, from the most telling form to the shortest. */
function workerForms(view: RunView, unicode: boolean): string[] {
  const marks = unicode ? MARKS : ASCII_MARKS;
  const ordered = view.workers.toSorted((a, b) => (a.rank ?? Infinity) - (b.rank ?? Infinity));
  if (ordered.length === 0) return [];
  const named = ordered.map((w) => `${w.id}${marks[w.state]}`).join(' ');
  const marked = ordered.map((w) => marks[w.state]).join('');
  const active = ordered.filter((w) => w.state === 'training' || w.state === 'evaluating').length;
  return [
    ...(ordered.length <= MAX_NAMED ? [named] : []),
    ...(ordered.length <= MAX_MARKED ? [marked] : []),
    `${active}/${ordered.length} w`,
  ];
}

interface Piece {
  /** From the most telling form to the shortest. */
  readonly forms: readonly string[];
  /** Place in the line, from left to right. */
  readonly place: number;
}

/** What there is to tell, most important first. */
function piecesOf(view: RunView, unicode: boolean): Piece[] {
  const workers = { forms: workerForms(view, unicode), place: 6 };
  if (view.phase === 'gathering')
    return [{ forms: [`waiting for workers: ${view.because}`, view.because], place: 0 }, workers];
  const total = String(view.epochSteps);
  if (view.phase === 'waiting') return [{ forms: [view.because, 'waiting'], place: 0 }, workers];
  const loss = view.epochLoss ?? view.loss;
  const step = `${String(view.epochStep).padStart(total.length)}/${total}`;
  const epoch = `epoch ${String(view.epoch).padStart(String(view.epochs).length)}/${view.epochs}`;
  const all: Piece[] = [
    {
      forms: [
        view.phase === 'evaluating' || view.phase === 'stopping' ? `${epoch} ${view.phase}` : `${epoch} ${step}`,
        step,
      ],
      place: 0,
    },
    { forms: loss === null ? [] : [`loss ${loss.toFixed(4)}`], place: 2 },
    { forms: view.accuracy === null ? [] : [`acc ${percent(view.accuracy).padStart(6)}`], place: 3 },
    { forms: view.imagesPerSecond > 0 ? [`${grouped(view.imagesPerSecond)} img/s`] : [], place: 4 },
    { forms: view.secondsLeft === null ? [] : [`${clock(view.secondsLeft)} left`], place: 5 },
    workers,
  ];
  return all;
}

const BAR = { least: 6, most: 30 } as const;

function progressBar(share: number, width: number, unicode: boolean, colors: Paint): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  const [done, left] = unicode ? ['━', '─'] : ['=', '-'];
  return colors.cyan(done.repeat(full)) + colors.dim(left.repeat(width - full));
}

/** The line of this moment, at most `style.width` wide: what is less important is shortened or left out. */
export function liveLine(view: RunView, style: Style): string {
  const colors = paint(style.color);
  const separator = style.unicode ? ' · ' : ' | ';
  const shown: { text: string; place: number }[] = [];
  let room = style.width;
  for (const { forms, place } of piecesOf(view, style.unicode)) {
    const between = shown.length === 0 ? 0 : separator.length;
    const text = forms.find((form) => form.length + between <= room);
    if (text === undefined) {
      if (forms.length > 0) break;
      continue;
    }
    shown.push({ text, place });
    room -= text.length + between;
  }
  const hasBar = view.phase === 'training' && room >= BAR.least + 1;
  const bar = hasBar
    ? ` ${progressBar(view.epochStep / view.epochSteps, Math.min(BAR.most, room - 1), style.unicode, colors)}`
    : '';
  const [first, ...rest] = shown.toSorted((a, b) => a.place - b.place).map(({ text }) => text);
  return [colors.bold(first ?? '') + bar, ...rest].join(colors.dim(separator));
}

/** The same as a line that stays. */
export function plainLine(view: RunView): string {
  const pieces = piecesOf(view, true).toSorted((a, b) => a.place - b.place);
  const texts = pieces.map(({ forms }) => forms[0]).filter((text) => text !== undefined);
  return texts.map((text) => text.replaceAll(/ +/g, ' ')).join(' · ');
}

/** What a run is doing, for `lockstep status`: a line of the whole, then one a worker. */
export function statusText(view: RunView, style: Style): string {
  const colors = paint(style.color);
  const marks = style.unicode ? MARKS : ASCII_MARKS;
  const rows = view.workers
    .toSorted((a, b) => (a.rank ?? Infinity) - (b.rank ?? Infinity))
    .map((w) => [
      `${marks[w.state]} ${w.id}`,
      w.rank === null ? '-' : `rank ${w.rank}`,
      w.state,
      `${w.host} pid ${w.pid}`,
      w.rssBytes === null ? '-' : `${Math.round(w.rssBytes / 1e6)} MB`,
      w.device ?? '-',
      w.stepSeconds === null ? '' : stepText(w.stepSeconds),
    ]);
  const widths = [0, 1, 2, 3, 4, 5].map((column) => Math.max(0, ...rows.map((row) => (row[column] ?? '').length)));
  const best = view.byEpoch.at(-1);
  const tested =
    best === undefined || best.testAccuracy === null
      ? []
      : [
          `after epoch ${best.epoch}: test accuracy ${percent(best.testAccuracy)}, test loss ${(best.testLoss ?? 0).toFixed(4)}`,
        ];
  return [
    `${colors.bold(view.run)} (${view.job}): ${view.phase}, ${view.because}`,
    `step ${grouped(view.step)} of ${grouped(view.steps)}, generation ${view.generation}, ${counted(view.workersLost, 'worker')} lost`,
    ...(view.phase === 'gathering' ? [] : [plainLine(view)]),
    ...tested,
    ...rows.map((row) => `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}`.trimEnd()),
    ...view.alarms.map(({ part, because }) => colors.red(`the ${part} cannot be written: ${because}`)),
    ...(view.straggler === null ? [] : [`${view.straggler.worker} is a straggler: ${view.straggler.because}`]),
  ].join('\n');
}

/** How long a worker's step takes, and how much of it is waiting for slower ones. */
function stepText(phases: NonNullable<WorkerView['stepSeconds']>): string {
  const { data, compute, wait, allreduce, apply } = phases;
  const whole = data + compute + wait + allreduce + apply;
  return `step ${(1000 * whole).toFixed(1)} ms, waits ${percent(wait / whole)}`;
}

/** Least and most time between two plain lines. */
const PLAIN_LEAST_MS = 1000;
const PLAIN_MOST_MS = 10_000;

/** Decides when a plain line is due: each tenth of an epoch, every ten seconds, and while workers gather, each that comes. */
export class PlainPace {
  private lastMs = Number.NEGATIVE_INFINITY;
  private lastMark = '';

  /** Asks for this moment; true means that a line is written now. */
  isDue(view: RunView, nowMs: number): boolean {
    if (view.phase !== 'gathering' && (view.phase !== 'training' || view.step === 0)) return false;
    const tenth = Math.floor((10 * view.epochStep) / view.epochSteps);
    const mark = view.phase === 'gathering' ? view.because : `${view.epoch} ${tenth}`;
    const since = nowMs - this.lastMs;
    if (since < PLAIN_LEAST_MS || (mark === this.lastMark && since < PLAIN_MOST_MS)) return false;
    this.lastMs = nowMs;
    this.lastMark = mark;
    return true;
  }
}
