// The small pieces of terminal text: colours, numbers, bars, curves, boxes. Strings in, strings out; nothing here knows the
// terminal. Widths count characters: double-width ones, which only names and messages of users can hold, are taken for single.

import { stripVTControlCharacters } from 'node:util';
import picocolors from 'picocolors';

/** What a terminal can show. */
export interface Style {
  /** Columns. */
  readonly width: number;
  readonly color: boolean;
  /** False: ASCII only. */
  readonly unicode: boolean;
}

export type Paint = ReturnType<typeof picocolors.createColors>;

export function paint(color: boolean): Paint {
  return picocolors.createColors(color);
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Colours: FORCE_COLOR and NO_COLOR decide, else whether the stream is a terminal that knows them. */
export function wantsColor(env: Environment, isTerminal: boolean | undefined): boolean {
  const { FORCE_COLOR: forced, NO_COLOR: none } = env;
  if (forced !== undefined && forced !== '') return forced !== '0' && forced !== 'false';
  if (none !== undefined && none !== '') return false;
  // Node leaves `isTTY` undefined on a stream that is no terminal; undefined would let picocolors guess for itself.
  return isTerminal === true && env['TERM'] !== 'dumb';
}

/** Everything but the Linux console and locales that say otherwise is taken to show Unicode. */
export function wantsUnicode(env: Environment): boolean {
  const locale = [env['LC_ALL'], env['LC_CTYPE'], env['LANG']].find((value) => value !== undefined && value !== '');
  if (env['TERM'] === 'linux') return false;
  return locale === undefined || /utf-?8$/i.test(locale) || /^C\.|^C$/.test(locale);
}

/** Text of other processes as one safe line: no escape sequences, no control characters, tabs as spaces. */
export function plain(text: string): string {
  return stripVTControlCharacters(text)
    .replaceAll('\t', '  ')
    .replaceAll(/\p{Cc}+/gu, ' ');
}

/** Characters that are seen. */
export function visibleWidth(text: string): number {
  return Array.from(stripVTControlCharacters(text)).length;
}

/** 7.3 s, 1 min 05 s, 2 h 03 min. */
export function duration(seconds: number): string {
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  if (hours > 0) return `${hours} h ${String(minutes).padStart(2, '0')} min`;
  return `${minutes} min ${String(rest).padStart(2, '0')} s`;
}

/** 0:07, 2:13, 1:02:03: for a place that is narrow. */
export function clock(seconds: number): string {
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const tail = String(rest).padStart(2, '0');
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, '0')}:${tail}` : `${minutes}:${tail}`;
}

/** 412 MB, 1.3 GB. */
export function bytes(count: number): string {
  if (count >= 999_500_000) return `${(count / 1e9).toFixed(1)} GB`;
  return `${Math.round(count / 1e6)} MB`;
}

/** 12,345. */
export function grouped(count: number): string {
  return Math.round(count).toLocaleString('en-US');
}

/** 63.2 %. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

/** `1 worker`, `2 workers`. */
export function counted(count: number, word: string): string {
  return `${grouped(count)} ${word}${count === 1 ? '' : 's'}`;
}

const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/** `share` (0 to 1) of `width` cells, to an eighth of a cell, the rest blank. */
export function bar(share: number, width: number, unicode: boolean): string {
  const clipped = Math.min(1, Math.max(0, share));
  if (!unicode) return '#'.repeat(Math.round(clipped * width)).padEnd(width);
  const eighths = Math.round(clipped * width * 8);
  return ('█'.repeat(Math.floor(eighths / 8)) + (EIGHTHS[eighths % 8] ?? '')).padEnd(width);
}

const TICKS = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII_TICKS = ['_', '.', '-', '=', '+', '*', '%', '#'];

/** Values as a line of at most `width` characters, each the mean of its stretch, from the lowest to the highest. */
export function sparkline(values: readonly number[], width: number, unicode: boolean): string {
  const finite = values.filter((value) => Number.isFinite(value));
  const count = Math.min(width, finite.length);
  const means = Array.from({ length: count }, (_, i) => {
    const part = finite.slice(Math.floor((i * finite.length) / count), Math.floor(((i + 1) * finite.length) / count));
    return part.reduce((a, b) => a + b, 0) / part.length;
  });
  const [low, high] = [Math.min(...means), Math.max(...means)];
  const ticks = unicode ? TICKS : ASCII_TICKS;
  return means.map((m) => ticks[high > low ? Math.round(((m - low) / (high - low)) * (ticks.length - 1)) : 0]).join('');
}

/** Breaks a line into pieces of at most `width` characters, between words where there are any; later ones are indented. */
export function wrapped(line: string, width: number, indent = 0): string[] {
  const pieces: string[] = [];
  let rest = Array.from(line);
  for (;;) {
    const room = Math.max(1, width - (pieces.length === 0 ? 0 : indent));
    const start = pieces.length === 0 ? '' : ' '.repeat(indent);
    if (rest.length <= room) return [...pieces, start + rest.join('')];
    const space = rest.lastIndexOf(' ', room);
    // A break so early would waste the line: cut the word instead.
    const at = space > room / 3 ? space : room;
    pieces.push(start + rest.slice(0, at).join('').trimEnd());
    rest = rest.slice(rest[at] === ' ' ? at + 1 : at);
  }
}

/** A line of a box: its text, and where its continuation begins when it is wrapped. */
export interface BoxLine {
  readonly text: string;
  readonly indent?: number;
}

/** A box around lines, at most `width` wide; longer lines are wrapped. */
export function box(title: string, lines: readonly BoxLine[], { width, unicode }: Style): string {
  const [corner, across, down] = unicode ? ['┌┐└┘', '─', '│'] : ['++++', '-', '|'];
  const longest = Math.max(title.length + 1, ...lines.map(({ text }) => visibleWidth(text)));
  const inner = Math.max(1, Math.min(width - 4, longest));
  const rows = lines.flatMap(({ text, indent }) => wrapped(text, inner, indent));
  const fill = (text: string): string => text + ' '.repeat(Math.max(0, inner - visibleWidth(text)));
  const heading = ` ${title} `.slice(0, inner + 1);
  return [
    `${corner[0]}${across}${heading}${across.repeat(inner + 1 - heading.length)}${corner[1]}`,
    ...rows.map((row) => `${down} ${fill(row)} ${down}`),
    `${corner[2]}${across.repeat(inner + 2)}${corner[3]}`,
  ].join('\n');
}
