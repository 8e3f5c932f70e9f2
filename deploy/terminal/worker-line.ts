// A line that a worker wrote, after the worker's name: its local rank, on several hosts with the host's. Each worker keeps one colour. Pure.

import { paint, plain, type Style } from './text.ts';

const COLORS = ['cyan', 'magenta', 'green', 'yellow', 'blue', 'red'] as const;

/** The same colour for the same name. */
function colorOf(worker: string): (typeof COLORS)[number] {
  let sum = 0;
  for (const character of worker) sum = (31 * sum + (character.codePointAt(0) ?? 0)) % 65_521;
  return COLORS[sum % COLORS.length] ?? 'cyan';
}

/** `[h1:0] joined run ...` */
export function workerLineText(worker: string, text: string, { color }: Pick<Style, 'color'>): string {
  return `${paint(color)[colorOf(worker)](`[${plain(worker)}]`)} ${plain(text)}`;
}
