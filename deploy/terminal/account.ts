// The texts of a run that stay: its configuration, its engine, a line an epoch, the root cause of a failure. Pure. The closing
// account is in summary.ts.

import type { EpochReport } from '../../protocol/report.ts';
import type { GradientCompression } from '../../protocol/run-config.ts';
import type { RootCause, RunEvent } from '../../protocol/run-event.ts';
import { bar, box, duration, grouped, paint, percent, plain, wrapped, type BoxLine, type Style } from './text.ts';

export interface Setting {
  readonly name: string;
  readonly value: string;
  readonly isDefault: boolean;
}

/** The configuration as an aligned list, what nobody asked for marked as default. Long values are wrapped under themselves. */
export function configurationText(title: string, settings: readonly Setting[], style: Style): string {
  const colors = paint(style.color);
  const wide = Math.max(0, ...settings.map((s) => s.name.length));
  const indent = 2 + wide + 2;
  const lines = settings.flatMap(({ name, value, isDefault }) => {
    const note = isDefault ? ' (default)' : '';
    const [first = '', ...rest] = wrapped(`${plain(value)}${note}`, Math.max(20, style.width - indent));
    const rows = [`  ${colors.dim(name.padEnd(wide))}  ${first}`, ...rest.map((row) => ' '.repeat(indent) + row)];
    return isDefault ? rows.map((row) => row.replace(/\(default\)$/, colors.dim('(default)'))) : rows;
  });
  return [colors.bold(title), ...lines].join('\n');
}

/** How gradients travel, in words. */
export function compressionText(compression: GradientCompression): string {
  return compression === 'none' ? 'none' : `${compression} with error feedback`;
}

export function engineText(event: Extract<RunEvent, { kind: 'worker-ready' }>): string {
  const { engine } = event;
  const threads = engine.threads === 1 ? '1 thread' : `${engine.threads} threads`;
  return plain(
    `${engine.name} (${engine.library}) on ${engine.device}, ${threads} a worker, fingerprint ${event.fingerprint.slice(0, 12)}`,
  );
}

const EPOCH_COLUMNS = ['epoch', 'loss', 'test loss', 'test accuracy', 'img/s', 'time'];
const EPOCH_WIDTHS = [7, 8, 9, 13, 8, 11];

function epochRow(cells: readonly string[]): string {
  return `  ${cells.map((cell, i) => cell.padStart(EPOCH_WIDTHS[i] ?? 0)).join('  ')}`;
}

/** The head of the lines that `epochText` makes. */
export function epochHeading(): string {
  return epochRow(EPOCH_COLUMNS);
}

export function epochText(report: EpochReport, epochs: number): string {
  return epochRow([
    `${report.epoch}/${epochs}`,
    report.loss.toFixed(4),
    report.testLoss === null ? '-' : report.testLoss.toFixed(4),
    report.testAccuracy === null ? '-' : percent(report.testAccuracy),
    grouped(report.imagesPerSecond),
    duration(report.seconds),
  ]);
}

/** A box wider than this is tiring to read. */
const BOX_MOST = 110;

/** A lost worker in a sentence; the others go on, so its last lines stay in its log. */
export function lossText({ who, host, pid, code, message, logFile }: RootCause): string {
  const place = pid === null ? host : `${host}, pid ${pid}`;
  const error = code === null ? message : `${code}: ${message}`;
  return `${who} (${place}): ${error}${logFile === null ? '' : ` (${logFile})`}`;
}

/** What is known of a failure, in one box at most `style.width` wide. */
export function rootCauseText(cause: RootCause, style: Style): string {
  const worker = [
    cause.who,
    ...(cause.rank === null ? [] : [`rank ${cause.rank}`]),
    `host ${cause.host}`,
    ...(cause.pid === null ? [] : [`pid ${cause.pid}`]),
  ].join(', ');
  const ended =
    cause.signal !== null
      ? `killed by ${cause.signal}`
      : cause.exitCode !== null
        ? `exit code ${cause.exitCode}`
        : null;
  const field = (name: string, value: string): BoxLine => ({ text: `${name.padEnd(8)}  ${plain(value)}`, indent: 10 });
  const lines = [
    field(cause.who === 'coordinator' ? 'where' : 'worker', worker),
    ...(ended === null ? [] : [field('process', ended)]),
    field('error', cause.code === null ? cause.message : `${cause.code}: ${cause.message}`),
    ...(cause.logFile === null ? [] : [field('log', cause.logFile)]),
    ...(cause.lastLines.length === 0
      ? []
      : [
          { text: '' },
          { text: 'its last lines:' },
          ...cause.lastLines.map((line) => ({ text: `  ${plain(line).trimEnd()}`, indent: 4 })),
        ]),
  ];
  return box('Root cause (first observed failure)', lines, { ...style, width: Math.min(style.width, BOX_MOST) });
}

/** A share of a whole as a line: name, bar, percent, what it is in itself. */
export function shareText(name: string, share: number, amount: string, style: Style): string {
  const barWidth = Math.max(8, Math.min(24, style.width - 44));
  return `    ${name.padEnd(12)}${bar(share, barWidth, style.unicode)} ${percent(share).padStart(7)}  ${amount}`;
}
