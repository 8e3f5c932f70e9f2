// The one line that lives while training runs, and the plain lines that take its place where the output is no terminal.

import type { RunView, WorkerView } from '../../protocol/run-view.ts';
import { bar, duration, grouped, percent, type Paint } from './text.ts';

const MARKS: Readonly<Record<WorkerView['state'], string>> = {
  joining: '…',
  preparing: '…',
  ready: '○',
  spare: '○',
  training: '●',
  evaluating: '◆',
  finished: '✔',
  lost: '✖',
};

/** Workers as marks, in the order of their ranks: `●●` is two in training. */
function marksOf(view: RunView): string {
  const ordered = view.workers.toSorted((a, b) => (a.rank ?? Infinity) - (b.rank ?? Infinity));
  return ordered.length <= 16 ? ordered.map((w) => MARKS[w.state]).join('') : `${ordered.length} workers`;
}

/** What a line is made of, most important first; as much as fits `width` is shown. */
function piecesOf(view: RunView, withBar: boolean): string[] {
  if (view.phase === 'gathering') return [`waiting for workers: ${view.because}`, marksOf(view)];
  const progress = withBar ? `${bar(view.epochStep / view.epochSteps, 16)} ` : '';
  return [
    `epoch ${view.epoch}/${view.epochs} ${progress}${view.epochStep}/${view.epochSteps}`,
    ...(view.phase === 'evaluating' ? ['evaluating'] : []),
    ...(view.phase === 'stopping' ? ['stopping'] : []),
    `loss ${(view.epochLoss ?? view.loss ?? Number.NaN).toFixed(4)}`,
    ...(view.accuracy === null ? [] : [`accuracy ${percent(view.accuracy)}`]),
    `${grouped(view.imagesPerSecond)} img/s`,
    ...(view.secondsLeft === null ? [] : [`${duration(view.secondsLeft)} left`]),
    marksOf(view),
  ];
}

/** At most `width` characters; what does not fit is left out from the end. */
export function liveLine(view: RunView, width: number, paint: Paint): string {
  const shown: string[] = [];
  let length = 0;
  for (const piece of piecesOf(view, width >= 70)) {
    const next = length + (shown.length > 0 ? 3 : 0) + piece.length;
    if (next > width) break;
    shown.push(piece);
    length = next;
  }
  const [first = '', ...rest] = shown;
  return [paint.cyan(first), ...rest].join(paint.dim(' · '));
}

export function plainLine(view: RunView): string {
  return piecesOf(view, false).join(' · ');
}

/** Longest time without a plain line. */
const PLAIN_EVERY_MS = 10_000;

/** Decides when a plain line is due: when the phase changes, and every ten seconds. */
export class PlainPace {
  private lastMs = Number.NEGATIVE_INFINITY;
  private lastPhase = '';

  isDue(view: RunView, nowMs: number): boolean {
    const changed = view.phase !== this.lastPhase && view.phase !== 'evaluating';
    const hasNews = view.step > 0 || view.phase === 'gathering';
    if (!(changed && view.phase === 'gathering') && !(hasNews && nowMs - this.lastMs >= PLAIN_EVERY_MS)) return false;
    this.lastMs = nowMs;
    this.lastPhase = view.phase;
    return true;
  }
}
