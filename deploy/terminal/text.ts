// The small pieces of terminal text: colours, durations, bars, sparklines, boxes. Pure strings in, strings out.

import picocolors from 'picocolors';

export type Paint = ReturnType<typeof picocolors.createColors>;

export function paint(color: boolean): Paint {
  return picocolors.createColors(color);
}

/** 7.3 s, 1 min 05 s, 2 h 03 min. */
export function duration(seconds: number): string {
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  if (hours > 0) return `${hours} h ${String(minutes).padStart(2, '0')} min`;
  return `${minutes} min ${String(rest).padStart(2, '0')} s`;
}

/** 412 MB, 1.3 GB. */
export function bytes(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)} GB`;
  return `${Math.round(count / 1e6)} MB`;
}

/** 12,345. */
export function grouped(count: number): string {
  return Math.round(count).toLocaleString('en-US');
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

/** A bar of `width` cells, `share` (0 to 1) of them full. */
export function bar(share: number, width: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width);
  return '█'.repeat(full) + '░'.repeat(width - full);
}

const TICKS = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/** Values as a line of at most `width` characters, each the mean of its stretch, from the lowest to the highest. */
export function sparkline(values: readonly number[], width: number): string {
  const count = Math.min(width, values.length);
  const means = Array.from({ length: count }, (_, i) => {
    const part = values.slice(Math.floor((i * values.length) / count), Math.floor(((i + 1) * values.length) / count));
    return part.reduce((a, b) => a + b, 0) / part.length;
  });
  const [low, high] = [Math.min(...means), Math.max(...means)];
  return means.map((m) => TICKS[high > low ? Math.round(((m - low) / (high - low)) * (TICKS.length - 1)) : 0]).join('');
}

/** Breaks a line into pieces of at most `width` characters. */
export function wrapped(line: string, width: number): string[] {
  const pieces: string[] = [];
  for (let rest = line; ; rest = rest.slice(width)) {
    pieces.push(rest.slice(0, width));
    if (rest.length <= width) return pieces;
  }
}

/** A box around lines, at most `width` wide; longer lines are wrapped. */
export function box(title: string, lines: readonly string[], width: number): string {
  const inner = Math.max(title.length + 2, Math.min(width - 4, Math.max(0, ...lines.map((l) => l.length))));
  const rows = lines.flatMap((line) => wrapped(line, inner)).map((line) => `│ ${line.padEnd(inner)} │`);
  return [`┌─ ${title} ${'─'.repeat(inner - title.length - 1)}┐`, ...rows, `└${'─'.repeat(inner + 2)}┘`].join('\n');
}
