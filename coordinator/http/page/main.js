// The page: shows what stream.js knows, twice a second at most, and says when that is old.

import { createChart } from './chart.js';
import { at, make, rows, say, sayOrHide } from './dom.js';
import { NONE, number, percent, short, time, whole } from './format.js';
import { showHistory, showWorkers } from './members.js';
import { modelPanel } from './model-panel.js';
import { known, listen, staleSeconds } from './stream.js';

const ENDED = ['done', 'stopped', 'failed'];
const TONES = { done: 'good', failed: 'bad', stopped: 'bad', waiting: 'bad' };
/** Whom a screen reader is told of. */
const ANNOUNCED = ['joined', 'lost', 'mismatch', 'failed', 'finished', 'waiting'];

const loss = createChart(at('lossChart'), {
  title: 'Loss',
  format: (value, isTick) => (isTick ? short(value) : value.toFixed(3)),
  series: [
    { name: 'training', kind: 'line', value: (p) => p[1], low: (p) => p[2], high: (p) => p[3] },
    { name: 'test', kind: 'dots', value: (epoch) => epoch.testLoss },
  ],
});
const accuracy = createChart(at('accuracyChart'), {
  title: 'Accuracy',
  format: (value, isTick) => (isTick ? `${short(100 * value)} %` : percent(value)),
  series: [
    { name: 'training', kind: 'line', value: (p) => p[4] },
    { name: 'test', kind: 'dots', value: (epoch) => epoch.testAccuracy },
  ],
});
const speed = createChart(at('speedChart'), {
  title: 'Images a second',
  format: (value, isTick) => (isTick ? short(value) : whole(value)),
  fromZero: true,
  series: [{ name: 'all workers', kind: 'line', value: (p) => p[5], area: true }],
});

/** Means of neighbours, where a curve is one global batch a point: a batch's own accuracy is all noise. */
function smoothed(points) {
  const each = Math.max(1, Math.round(points.length / 128));
  if (each === 1) return points;
  const found = [];
  for (let end = points.length; end > 0; end -= each) {
    const group = points.slice(Math.max(0, end - each), end);
    const mean = (i) => {
      const values = group.map((point) => point[i]).filter((value) => value !== null);
      return values.length === 0 ? null : values.reduce((a, b) => a + b, 0) / values.length;
    };
    const least = Math.min(...group.map((p) => p[2] ?? Infinity));
    const greatest = Math.max(...group.map((p) => p[3] ?? -Infinity));
    const last = group.at(-1)[0];
    const range = Number.isFinite(least) ? [least, greatest] : [null, null];
    found.push([last, mean(1), ...range, mean(4), mean(5)]);
  }
  return found.toReversed();
}

/** Epochs that the bar is divided into, at most. */
const BAR_EPOCHS_MAX = 40;

/** Where in the bar each epoch ends. */
function showEpochTicks({ epochs, epochSteps, steps }) {
  const ticks = at('epochTicks');
  const key = `${epochs} ${epochSteps} ${steps}`;
  if (ticks.dataset.key === key) return;
  ticks.dataset.key = key;
  const count = epochs > BAR_EPOCHS_MAX ? 0 : Math.ceil(steps / epochSteps) - 1;
  ticks.replaceChildren(
    ...Array.from({ length: Math.max(0, count) }, (_, i) => {
      const tick = make('i', {});
      tick.style.left = `${(100 * (i + 1) * epochSteps) / steps}%`;
      return tick;
    }),
  );
}

function showNumbers(run, epochs) {
  document.title = `${run.job} · ${run.phase} · epoch ${run.epoch} of ${run.epochs}`;
  say('job', run.job);
  say('run', run.run);
  say('phase', run.phase);
  at('phase').dataset.tone = TONES[run.phase] ?? '';
  say('because', run.because);
  sayOrHide('alarms', run.alarms.map((a) => `The ${a.part} cannot be written: ${a.because}`).join('; '));
  at('progress').value = run.steps === 0 ? 0 : run.step / run.steps;
  showEpochTicks(run);
  say('epoch', String(run.epoch));
  say('epochs', `of ${whole(run.epochs)}`);
  say('step', whole(run.step));
  say('steps', `of ${whole(run.steps)}`);
  say('loss', number(run.epochLoss ?? run.loss, 4));
  say('accuracy', percent(run.accuracy));
  say('testLoss', number(run.testLoss, 4));
  say('testAccuracy', percent(run.testAccuracy));
  say('speed', run.imagesPerSecond > 0 ? whole(run.imagesPerSecond) : NONE);
  const isOver = ENDED.includes(run.phase);
  say('left', time(isOver ? run.secondsElapsed : run.secondsLeft));
  say('leftWord', isOver ? 'in all' : 'left');
  say('lost', whole(run.stepsLost));
  say('elapsed', time(run.secondsElapsed));
  say('generation', String(run.generation));
  say('checkpoint', run.checkpointStep === null ? NONE : `step ${whole(run.checkpointStep)}`);
  say('transport', run.transport);
  say('pid', `${run.coordinator.pid} on ${run.coordinator.host}`);
  rows(
    'byEpoch',
    epochs
      .map((e) => [
        e.epoch,
        number(e.loss, 4),
        number(e.testLoss, 4),
        percent(e.testAccuracy),
        whole(e.imagesPerSecond),
        time(e.seconds),
      ])
      .toReversed(),
    'No epoch is complete yet.',
  );
}

function showCurves() {
  const { view, points, epochs, happenings } = known;
  const dots = epochs.map((report) => ({ ...report, step: Math.min(report.epoch * view.epochSteps, view.steps) }));
  const marks = happenings
    .filter(({ kind }) => kind === 'lost')
    .map(({ step, text }) => ({ step, kind: 'lost', text: `lost: ${text}` }));
  const steps = points.at(-1)?.[0] ?? 0;
  const shown = { points: smoothed(points), dots, marks, steps, epochSteps: view.epochSteps };
  loss.show(shown);
  accuracy.show(shown);
  speed.show(shown);
}

function show(fresh) {
  const { view, epochs, happenings } = known;
  showNumbers(view, epochs);
  if (!document.hidden) showCurves();
  showWorkers(view, happenings);
  showHistory(view, happenings);
  const told = fresh.filter(({ kind }) => ANNOUNCED.includes(kind));
  if (told.length > 0) say('announce', told.map(({ kind, text }) => `${kind}: ${text}`).join('. '));
  modelPanel.checkpoint(view.checkpointStep);
  showAge();
}

function showAge() {
  const seconds = staleSeconds();
  const isOver = known.view !== null && ENDED.includes(known.view.phase);
  let stale = '';
  if (seconds === null && performance.now() > 4000) stale = 'The coordinator does not answer.';
  if (seconds !== null && seconds > 0)
    stale = isOver
      ? 'The run is over and its coordinator has ended.'
      : `The coordinator does not answer. What is shown is ${time(seconds)} old.`;
  const state = stale === '' ? (known.view === null ? 'connecting' : 'live') : isOver ? 'over' : 'stale';
  at('link').dataset.state = state;
  say('linkText', state);
  sayOrHide('stale', stale);
  at('stale').dataset.tone = isOver ? 'calm' : 'bad';
  document.body.dataset.state = state;
}

void listen(show);
setInterval(showAge, 500);
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && known.view !== null) showCurves();
});
