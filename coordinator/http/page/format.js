// Numbers and times as people read them. What is not known is a dash.

export const NONE = '–';

export const number = (value, digits) => (value === null ? NONE : value.toFixed(digits));
export const whole = (value) => Math.round(value).toLocaleString('en-US');
export const percent = (share) => (share === null ? NONE : `${(100 * share).toFixed(1)} %`);
export const megabytes = (bytes) => (bytes === null ? NONE : `${whole(bytes / 1e6)} MB`);
export const ms = (seconds) => `${(1000 * seconds).toFixed(seconds < 0.1 ? 2 : 0)} ms`;
export const counted = (count, one) => `${whole(count)} ${one}${count === 1 ? '' : 's'}`;

const two = (n) => String(n).padStart(2, '0');

/** `12 s`, `2 min 05 s`, `1 h 02 min`. */
export function time(seconds) {
  if (seconds === null) return NONE;
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
}

/** Local time of day; with the day where it is another than today. */
export function clock(t) {
  const at = new Date(t);
  const day = at.toDateString() === new Date().toDateString() ? '' : `${at.getDate()}.${at.getMonth() + 1}. `;
  return `${day}${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** For an axis: `1,200`, `12k`, `1.5M`. */
export function short(value) {
  if (Math.abs(value) >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (Math.abs(value) >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  return value.toLocaleString('en-US', { maximumFractionDigits: 3 });
}
