// A chart over steps, in SVG: lines with the range that they were drawn from, dots at the ends of epochs, marks where a worker was lost.
// A pointer or the arrow keys read a value off it, and a table says the same. Drawn anew as a whole: at most some 512 points.

import { draw, make } from './dom.js';
import { short, whole } from './format.js';

const LEFT = 46;
const RIGHT = 12;
const TOP = 14;
const BOTTOM = 26;
const TABLE_ROWS = 20;
const MARKS_MAX = 40;
/** Pixels that an epoch's number needs. */
const EPOCH_PX = 44;

/** Round numbers about `count` of which lie between `least` and `greatest`. */
export function ticks(least, greatest, count) {
  const span = greatest - least;
  if (!(span > 0)) return [least];
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(least / step - 1e-9); i * step <= greatest + 1e-9 * step; i++) found.push(i * step || 0);
  return found;
}

/** Consecutive pieces of a line in which all values are known. */
function pieces(points, valueOf) {
  const found = [[]];
  for (const point of points) {
    if (valueOf(point) === null) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((piece) => piece.length > 0);
}

/**
 * @param figure the <figure> to fill
 * @param options title, `series`: [{ name, kind: 'line' | 'dots', value(point), low?, high?, area? }], `format(value)`,
 *   `fromZero`: whether the axis begins at 0
 */
export function createChart(figure, { title, series, format, fromZero = false }) {
  const readout = make('output', { className: 'readout' });
  const legend = make('ul', { className: 'legend' });
  const names = series.map(({ name }, i) => {
    const value = make('b', {});
    legend.append(make('li', { className: `series-${i} ${series[i].kind}` }, make('i', {}), `${name} `, value));
    return value;
  });
  const plot = make('div', { className: 'plot', tabIndex: 0 });
  plot.setAttribute('role', 'slider');
  plot.setAttribute('aria-label', `${title}, by step`);
  const empty = make('p', { className: 'none' }, 'No step is done yet.');
  const head = make('thead', {});
  const body = make('tbody', {});
  const table = make('table', { className: 'numbers' }, head, body);
  const scroll = make('div', { className: 'scroll tall', tabIndex: 0 }, table);
  scroll.setAttribute('role', 'region');
  scroll.setAttribute('aria-label', `${title} as a table`);
  const details = make('details', { className: 'as-table' }, make('summary', {}, 'As a table'), scroll);
  figure.replaceChildren(make('figcaption', {}, make('h2', {}, title), legend, readout), plot, empty, details);
  head.append(
    make('tr', {}, ...['Step', ...series.map(({ name }) => name)].map((text) => make('th', { scope: 'col' }, text))),
  );

  let data = null;
  let drawn = null;
  /** Index of the point that is read off; null while nobody does. */
  let cursor = null;

  const valuesAt = (step) =>
    series.map((one) => {
      if (one.kind === 'line') return data.points.find((point) => point[0] >= step) ?? data.points.at(-1);
      return data.dots.findLast((point) => point.step <= step) ?? null;
    });

  const textAt = (step) => {
    const points = valuesAt(step);
    const values = series.map((one, i) => {
      const point = points[i];
      const value = point === null ? null : one.value(point);
      const epoch = one.kind === 'dots' && point !== null ? ` after epoch ${point.epoch}` : '';
      return value === null ? null : `${one.name} ${format(value)}${epoch}`;
    });
    return [`step ${whole(step)}`, ...values.filter((text) => text !== null)].join(' · ');
  };

  const scale = (width, height) => {
    const { points, dots, steps } = data;
    let [least, greatest] = fromZero ? [0, 0] : [Infinity, -Infinity];
    const see = (value) => {
      if (value === null || value === undefined) return;
      least = Math.min(least, value);
      greatest = Math.max(greatest, value);
    };
    // The first steps of a loss are a cliff: the axis has room for the means, and for the ranges of all but the first.
    for (const one of series)
      for (const [i, point] of (one.kind === 'line' ? points : dots).entries()) {
        see(one.value(point));
        if (one.low !== undefined && (i > 0 || points.length < 8)) {
          see(one.low(point));
          see(one.high(point));
        }
      }
    if (least > greatest) [least, greatest] = [0, 1];
    if (least === greatest) [least, greatest] = fromZero ? [0, greatest || 1] : [least - 0.5, greatest + 0.5];
    const pad = fromZero ? 0 : 0.04 * (greatest - least);
    const low = fromZero ? 0 : Math.max(least - pad, least >= 0 ? 0 : -Infinity);
    const high = greatest + (fromZero ? 0.06 * greatest : pad);
    const last = Math.max(steps, 2);
    return {
      low,
      high,
      last,
      x: (step) => LEFT + ((step - 1) / (last - 1)) * (width - LEFT - RIGHT),
      y: (value) => TOP + (1 - (Math.min(Math.max(value, low), high) - low) / (high - low)) * (height - TOP - BOTTOM),
    };
  };

  const axes = ({ low, high, last, x, y }, width, height) => {
    const parts = [];
    for (const value of ticks(low, high, Math.max(3, Math.round(height / 36)))) {
      parts.push(draw('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
      const label = draw('text', { class: 'tick', x: LEFT - 8, y: y(value) + 4, 'text-anchor': 'end' });
      label.textContent = format(value, true);
      parts.push(label);
    }
    for (const step of ticks(1, last, Math.max(2, Math.round(width / 130)))) {
      if (step < 1) continue;
      const label = draw('text', {
        class: 'tick',
        x: x(step),
        y: height - 7,
        'text-anchor': x(step) > width - RIGHT - 24 ? 'end' : 'middle',
      });
      label.textContent = short(step);
      parts.push(label);
    }
    // Where an epoch ends; numbered where there is room.
    const { epochSteps } = data;
    const ends = Math.floor(last / epochSteps);
    const apart = ((width - LEFT - RIGHT) * epochSteps) / last;
    const each = Math.max(1, Math.ceil(EPOCH_PX / Math.max(apart, 0.01)));
    for (let epoch = each; epoch <= ends; epoch += each) {
      const at = x(Math.min(epoch * epochSteps, last));
      parts.push(draw('line', { class: 'epoch', x1: at, x2: at, y1: TOP, y2: height - BOTTOM }));
      const label = draw('text', { class: 'epoch-name', x: at - 4, y: TOP + 9, 'text-anchor': 'end' });
      label.textContent = `e${epoch}`;
      parts.push(label);
    }
    return parts;
  };

  const lines = ({ x, y, low }) => {
    const parts = [];
    for (const [i, one] of series.entries()) {
      if (one.kind === 'dots') {
        const path = data.dots.filter((dot) => one.value(dot) !== null);
        const line = path.map((dot, k) => `${k === 0 ? 'M' : 'L'}${x(dot.step)} ${y(one.value(dot))}`).join('');
        parts.push(draw('path', { class: `line dotted series-${i}`, d: line || 'M0 0' }));
        // Hundreds of dots would be a caterpillar.
        const few = path.length <= 60 ? path : path.slice(-1);
        for (const dot of few)
          parts.push(draw('circle', { class: `dot series-${i}`, cx: x(dot.step), cy: y(one.value(dot)), r: 3.5 }));
        continue;
      }
      for (const piece of pieces(data.points, one.value)) {
        const line = piece.map((point, k) => `${k === 0 ? 'M' : 'L'}${x(point[0])} ${y(one.value(point))}`).join('');
        if (one.low !== undefined) {
          const upper = piece.map((point) => `${x(point[0])} ${y(one.high(point))}`);
          const lower = piece.map((point) => `${x(point[0])} ${y(one.low(point))}`).toReversed();
          parts.push(draw('path', { class: `band series-${i}`, d: `M${[...upper, ...lower].join('L')}Z` }));
        }
        if (one.area === true) {
          const [first, last] = [piece[0], piece.at(-1)];
          const area = `${line}L${x(last[0])} ${y(low)}L${x(first[0])} ${y(low)}Z`;
          parts.push(draw('path', { class: `band series-${i}`, d: area }));
        }
        if (piece.length === 1) {
          const [only] = piece;
          parts.push(draw('circle', { class: `dot series-${i}`, cx: x(only[0]), cy: y(one.value(only)), r: 2.5 }));
        }
        parts.push(draw('path', { class: `line series-${i}`, d: line }));
      }
    }
    return parts;
  };

  const marks = ({ x }, height) =>
    data.marks.slice(-MARKS_MAX).flatMap(({ step, kind, text }) => {
      const at = x(Math.max(step, 1));
      const line = draw('line', { class: `mark ${kind}`, x1: at, x2: at, y1: TOP, y2: height - BOTTOM });
      const sign = draw('text', { class: `mark ${kind}`, x: at, y: TOP - 3, 'text-anchor': 'middle' });
      sign.textContent = kind === 'lost' ? '✕' : '+';
      const told = draw('title', {});
      told.textContent = text;
      return [draw('g', {}, told, line, sign)];
    });

  const showCursor = () => {
    drawn.cursor.replaceChildren();
    const step = cursor === null ? data.points.at(-1)[0] : data.points[cursor][0];
    plot.setAttribute('aria-valuenow', String(step));
    plot.setAttribute('aria-valuetext', textAt(step));
    readout.textContent = cursor === null ? '' : textAt(step);
    if (cursor === null) return;
    const { scales, height } = drawn;
    const at = scales.x(step);
    drawn.cursor.append(draw('line', { class: 'cursor', x1: at, x2: at, y1: TOP, y2: height - BOTTOM }));
    for (const [i, point] of valuesAt(step).entries()) {
      const value = point === null ? null : series[i].value(point);
      if (value === null || series[i].kind === 'dots') continue;
      drawn.cursor.append(draw('circle', { class: `dot series-${i}`, cx: at, cy: scales.y(value), r: 4 }));
    }
  };

  const fillTable = () => {
    if (!details.open || data === null) return;
    const each = Math.max(1, Math.ceil(data.points.length / TABLE_ROWS));
    const chosen = data.points.filter((_, i) => (data.points.length - 1 - i) % each === 0).toReversed();
    body.replaceChildren(
      ...chosen.map(([step]) => {
        const cells = valuesAt(step).map((point, i) => {
          const value = point === null ? null : series[i].value(point);
          return make('td', {}, value === null ? '–' : format(value));
        });
        return make('tr', {}, make('th', { scope: 'row' }, whole(step)), ...cells);
      }),
    );
  };

  const render = () => {
    const isEmpty = data === null || data.points.length === 0;
    empty.hidden = !isEmpty;
    plot.hidden = isEmpty;
    details.hidden = isEmpty;
    if (isEmpty) return;
    const { width, height } = plot.getBoundingClientRect();
    if (width === 0) return;
    const scales = scale(width, height);
    const cursorLayer = draw('g', {});
    drawn = { scales, height, cursor: cursorLayer };
    if (cursor !== null) cursor = Math.min(cursor, data.points.length - 1);
    const svg = draw('svg', { viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' });
    svg.append(...axes(scales, width, height), ...marks(scales, height), ...lines(scales), cursorLayer);
    plot.replaceChildren(svg);
    plot.setAttribute('aria-valuemin', String(data.points[0][0]));
    plot.setAttribute('aria-valuemax', String(data.points.at(-1)[0]));
    for (const [i, one] of series.entries()) {
      const last = (one.kind === 'line' ? data.points : data.dots).findLast((point) => one.value(point) !== null);
      names[i].textContent = last === undefined ? '' : format(one.value(last));
    }
    showCursor();
    fillTable();
  };

  const moveTo = (index) => {
    cursor = index === null ? null : Math.min(Math.max(index, 0), data.points.length - 1);
    showCursor();
  };
  plot.addEventListener('pointermove', ({ clientX }) => {
    if (drawn === null) return;
    const { left, width } = plot.getBoundingClientRect();
    const step = 1 + ((clientX - left - LEFT) / (width - LEFT - RIGHT)) * (drawn.scales.last - 1);
    const after = data.points.findIndex((point) => point[0] >= step);
    moveTo(after === -1 ? data.points.length - 1 : after);
  });
  plot.addEventListener('pointerleave', () => drawn !== null && moveTo(null));
  plot.addEventListener('blur', () => drawn !== null && moveTo(null));
  plot.addEventListener('keydown', (event) => {
    if (drawn === null) return;
    const end = data.points.length - 1;
    const now = cursor ?? end;
    const page = Math.max(1, Math.round(end / 10));
    const to = {
      ArrowLeft: now - 1,
      ArrowDown: now - 1,
      ArrowRight: now + 1,
      ArrowUp: now + 1,
      PageDown: now - page,
      PageUp: now + page,
      Home: 0,
      End: end,
      Escape: null,
    };
    if (!Object.hasOwn(to, event.key)) return;
    event.preventDefault();
    moveTo(to[event.key]);
  });
  details.addEventListener('toggle', fillTable);
  new ResizeObserver(render).observe(plot);

  return {
    /** `points`: of the curve; `dots`: epochs with their last `step`; `steps`: of the axis; `marks`: [{ step, kind, text }] */
    show: (next) => {
      data = next;
      render();
    },
  };
}
