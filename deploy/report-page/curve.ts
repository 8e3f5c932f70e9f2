// A curve as SVG: few enough points for any number of steps, an axis of round numbers, marks along the way. Strings out; pure.
// Colours and fonts are the page's (page.ts), by class.

export interface Point {
  readonly x: number;
  readonly y: number;
}

/** Points at most: about two a pixel of a wide screen. */
const POINTS_MAX = 1600;
const WIDTH = 880;
const HEIGHT = 270;
const MARGIN = { left: 64, right: 28, top: 12, bottom: 40 };
const TICKS = { x: 8, y: 5 };

/**
 * At most `most` of `points` (ascending in x), with every peak and trough: of each of equal stretches its lowest and its highest, in their
 * order. Numbers that are not finite are left out: a curve has none.
 */
export function thinned(points: readonly Point[], most = POINTS_MAX): Point[] {
  const finite = points.filter(({ y }) => Number.isFinite(y));
  if (finite.length <= most) return finite;
  const stretches = Math.floor(most / 2);
  return Array.from({ length: stretches }, (_, i) => {
    const start = Math.floor((i * finite.length) / stretches);
    const end = Math.floor(((i + 1) * finite.length) / stretches);
    let [low, high] = [start, start];
    for (let at = start; at < end; at++) {
      if ((finite[at]?.y ?? 0) < (finite[low]?.y ?? 0)) low = at;
      if ((finite[at]?.y ?? 0) > (finite[high]?.y ?? 0)) high = at;
    }
    return [...new Set([Math.min(low, high), Math.max(low, high)])].flatMap((at) => finite[at] ?? []);
  }).flat();
}

/** Round numbers from `low` to `high`, about `count` of them: steps of 1, 2 or 5 times a power of ten. */
export function ticks(low: number, high: number, count: number): number[] {
  if (!(high > low)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

export interface Line {
  /** A class of the page's style, and the name in the legend. */
  readonly name: string;
  readonly points: readonly Point[];
  /** With a dot at each point: there are few. */
  readonly dots?: boolean;
}

export interface Chart {
  /** What a reader who can't see it is told. */
  readonly description: string;
  readonly lines: readonly Line[];
  readonly xName: string;
  readonly yText: (value: number) => string;
  /** Where something happened: a faint line with a title. */
  readonly marks?: readonly { readonly x: number; readonly title: string; readonly kind: string }[];
}

/** The chart as an `svg` element; null when there is nothing to draw. */
export function chart({ description, lines, xName, yText, marks = [] }: Chart): string | null {
  const drawn = lines
    .map((line) => ({ ...line, points: thinned(line.points) }))
    .filter((line) => line.points.length > 0);
  const all = drawn.flatMap((line) => line.points);
  if (all.length === 0) return null;
  const [left, right] = [Math.min(...all.map((p) => p.x), 0), Math.max(...all.map((p) => p.x))];
  const lows = Math.min(...all.map((p) => p.y));
  const highs = Math.max(...all.map((p) => p.y));
  // A line that is level lies in the middle.
  const pad = highs > lows ? 0.04 * (highs - lows) : Math.max(Math.abs(lows), 1) * 0.1;
  const [low, high] = [lows - pad, highs + pad];
  const inner = { width: WIDTH - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  const x = (value: number): string =>
    (MARGIN.left + (right > left ? (value - left) / (right - left) : 0.5) * inner.width).toFixed(1);
  const y = (value: number): string => (MARGIN.top + (1 - (value - low) / (high - low)) * inner.height).toFixed(1);
  const bottom = MARGIN.top + inner.height;
  const parts: string[] = [];
  for (const tick of ticks(low, high, TICKS.y)) {
    parts.push(`<path class="grid" d="M${MARGIN.left} ${y(tick)}H${WIDTH - MARGIN.right}"/>`);
    parts.push(`<text class="y" x="${MARGIN.left - 8}" y="${y(tick)}" dy=".32em">${escaped(yText(tick))}</text>`);
  }
  for (const tick of ticks(left, right, TICKS.x)) {
    parts.push(`<text class="x" x="${x(tick)}" y="${bottom + 20}">${escaped(tick.toLocaleString('en-US'))}</text>`);
  }
  parts.push(`<text class="x name" x="${WIDTH - MARGIN.right}" y="${HEIGHT - 2}">${escaped(xName)}</text>`);
  for (const mark of marks) {
    parts.push(
      `<path class="mark ${escaped(mark.kind)}" d="M${x(mark.x)} ${MARGIN.top}V${bottom}"><title>${escaped(mark.title)}</title></path>`,
    );
  }
  for (const { name, points, dots = false } of drawn) {
    const path = points.map((p, i) => `${i === 0 ? 'M' : 'L'}${x(p.x)} ${y(p.y)}`).join('');
    parts.push(`<path class="line ${escaped(name)}" d="${path}"/>`);
    if (dots || points.length === 1)
      parts.push(...points.map((p) => `<circle class="${escaped(name)}" cx="${x(p.x)}" cy="${y(p.y)}" r="3"/>`));
  }
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escaped(description)}">${parts.join('')}</svg>`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Text of anybody's as HTML that shows it. */
export function escaped(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => ENTITIES[character] ?? character);
}
