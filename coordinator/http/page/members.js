// Who is in and what happened to them: the workers with where their steps' time goes, and the history.

import { at, make, rows, say, sayOrHide } from './dom.js';
import { clock, counted, megabytes, ms, NONE, whole } from './format.js';

/** In the order of a step. */
const PHASES = [
  ['data', 'data'],
  ['compute', 'compute'],
  ['wait', 'wait for others'],
  ['allreduce', 'all-reduce'],
  ['apply', 'apply'],
];

const KINDS = {
  began: 'coordinator',
  joined: 'joined',
  lost: 'lost',
  refused: 'refused',
  generation: 'generation',
  waiting: 'waiting',
  mismatch: 'mismatch',
  warning: 'warning',
  resumed: 'resumed',
  stopping: 'stopping',
  failed: 'failed',
  finished: 'finished',
};

const total = (phases) => PHASES.reduce((sum, [key]) => sum + phases[key], 0);

at('phases').append(...PHASES.map(([key, name]) => make('li', { className: `phase-${key}` }, make('i', {}), name)));
at('phaseHead').append(
  make(
    'tr',
    {},
    ...['Worker', ...PHASES.map(([, name]) => name), 'whole step'].map((text) => make('th', { scope: 'col' }, text)),
  ),
);

/** What each worker's element was made from, so that only what changed is made anew. */
const shown = new Map();

function workerItem(worker, longest) {
  const { id, rank, state, device, rssBytes, host, pid, stepSeconds } = worker;
  const name = make('p', { className: 'who' }, make('b', {}, id), rank === null ? '' : ` rank ${rank}`);
  const badge = make('span', { className: 'pill' }, state);
  badge.dataset.state = state;
  name.append(badge);
  const bar = make('div', { className: 'stack' });
  if (stepSeconds !== null) {
    bar.setAttribute('role', 'img');
    const parts = PHASES.map(([key, text]) => `${text} ${ms(stepSeconds[key])}`).join(', ');
    bar.setAttribute('aria-label', `A step: ${parts}`);
    for (const [key, text] of PHASES) {
      const part = make('i', { className: `phase-${key}`, title: `${text}: ${ms(stepSeconds[key])}` });
      part.style.width = `${(100 * stepSeconds[key]) / longest}%`;
      bar.append(part);
    }
  }
  const step = make('p', { className: 'step' }, stepSeconds === null ? NONE : ms(total(stepSeconds)));
  const where = [device, rssBytes === null ? null : megabytes(rssBytes), `${host}, process ${pid}`];
  return make('li', {}, name, bar, step, make('p', { className: 'soft where' }, where.filter(Boolean).join(' · ')));
}

export function showWorkers(view, happenings) {
  const { workers } = view;
  const longest = Math.max(...workers.map(({ stepSeconds }) => (stepSeconds === null ? 0 : total(stepSeconds))), 1e-9);
  const key = JSON.stringify([workers, longest]);
  if (shown.get('workers') !== key) {
    shown.set('workers', key);
    const list = workers.map((worker) => workerItem(worker, longest));
    at('workers').replaceChildren(
      ...(list.length === 0 ? [make('li', { className: 'none' }, 'No worker has joined yet.')] : list),
    );
    const timed = workers.filter(({ stepSeconds }) => stepSeconds !== null);
    rows(
      'phaseRows',
      timed.map(({ id, stepSeconds }) => [
        id,
        ...PHASES.map(([phase]) => ms(stepSeconds[phase])),
        ms(total(stepSeconds)),
      ]),
      'No step is done yet.',
    );
  }
  const formed = happenings.findLast(({ kind }) => kind === 'generation');
  say('quorum', formed === undefined ? view.because : formed.text);
  sayOrHide('straggler', view.straggler === null ? '' : `${view.straggler.worker} is slow: ${view.straggler.because}.`);
}

export function showHistory(view, happenings) {
  const { workersLost } = view;
  const recovered = view.microbatchesRecomputed;
  const again = recovered === 0 ? '' : `, ${counted(recovered, 'microbatch').replace(/chs$/, 'ches')} computed again`;
  say('tally', workersLost === 0 ? 'nobody lost' : `${counted(workersLost, 'worker')} lost${again}`);
  const newest = happenings.at(-1)?.id ?? 0;
  const key = `${happenings[0]?.id}-${newest}-${happenings[0]?.t}`;
  if (shown.get('history') === key) return;
  shown.set('history', key);
  const items = happenings.toReversed().map(({ t, kind, step, text }) => {
    const tag = make('span', { className: 'kind' }, KINDS[kind]);
    const item = make(
      'li',
      {},
      make('time', { dateTime: new Date(t).toISOString() }, clock(t)),
      tag,
      make('span', { className: 'what' }, text),
      make('span', { className: 'soft at' }, step === 0 ? '' : `step ${whole(step)}`),
    );
    item.dataset.kind = kind;
    return item;
  });
  const older = (happenings[0]?.id ?? 1) - 1;
  if (older > 0) items.push(make('li', { className: 'none' }, `and ${whole(older)} earlier`));
  at('history').replaceChildren(...items);
}
