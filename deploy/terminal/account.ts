// The texts of a run that stay: its configuration, its engine, a line an epoch, the root cause of a failure, the closing
// account. Pure.

import type { EpochReport, RunReport } from '../../protocol/report.ts';
import type { RootCause, RunEvent } from '../../protocol/run-event.ts';
import { bar, box, bytes, duration, grouped, percent, sparkline, type Paint } from './text.ts';

export interface Setting {
  readonly name: string;
  readonly value: string;
  readonly isDefault: boolean;
}

/** The configuration as an aligned list, defaults marked. */
export function configurationText(title: string, settings: readonly Setting[], paint: Paint): string {
  const wide = Math.max(...settings.map((s) => s.name.length));
  const lines = settings.map(({ name, value, isDefault }) => {
    const line = `  ${name.padEnd(wide)}  ${value}`;
    return isDefault ? `${line}  ${paint.dim('(default)')}` : line;
  });
  return [paint.bold(title), ...lines].join('\n');
}

export function engineText(event: Extract<RunEvent, { kind: 'worker-ready' }>): string {
  const { engine } = event;
  const threads = engine.threads === 1 ? '1 thread' : `${engine.threads} threads`;
  return `${engine.name}: ${engine.library} on ${engine.device}, ${threads} a worker, fingerprint ${event.fingerprint.slice(0, 12)}`;
}

export function epochText(report: EpochReport, epochs: number): string {
  const wide = String(epochs).length;
  const test =
    report.testAccuracy === null || report.testLoss === null
      ? 'not evaluated'
      : `test loss ${report.testLoss.toFixed(4)} · test accuracy ${percent(report.testAccuracy)}`;
  return `epoch ${String(report.epoch).padStart(wide)}/${epochs} · loss ${report.loss.toFixed(4)} · ${test} · ${grouped(report.imagesPerSecond)} img/s · ${duration(report.seconds)}`;
}

export function rootCauseText(cause: RootCause, width: number): string {
  const rank = cause.rank === null ? '' : `, rank ${cause.rank}`;
  const pid = cause.pid === null ? '' : `, pid ${cause.pid}`;
  const ended =
    cause.signal !== null ? `killed by ${cause.signal}` : cause.exitCode !== null ? `exit code ${cause.exitCode}` : 'not known';
  const code = cause.code === null ? '' : ` [${cause.code}]`;
  return box(
    'Root cause (first failure)',
    [
      `worker      ${cause.who}${rank} on ${cause.host}${pid}`,
      `process     ${ended}`,
      `error       ${cause.message}${code}`,
      ...(cause.lastLines.length > 0 ? ['its last lines:', ...cause.lastLines.map((line) => `  ${line}`)] : []),
      ...(cause.logFile === null ? [] : [`log file    ${cause.logFile}`]),
    ],
    width,
  );
}

const PHASE_NAMES = [
  ['data', 'data'],
  ['compute', 'compute'],
  ['wait', 'wait for peers'],
  ['allreduce', 'all-reduce'],
  ['apply', 'apply'],
] as const;

/** The end of a run: how well, how fast, where the time went, what it left. `losses`: of the steps, for the curve. */
export function summaryText(report: RunReport, runDirectory: string, losses: readonly number[], paint: Paint): string {
  const lines: string[] = [];
  const say = (name: string, value: string): void => void lines.push(`  ${name.padEnd(14)}${value}`);
  const heading = { done: 'Done', stopped: 'Stopped', failed: 'Failed' }[report.state];
  const epochs = report.byEpoch.length;
  lines.push(
    paint.bold(`${heading} after ${grouped(report.steps)} steps`) +
      ` (${epochs} of ${report.epochs} epochs) in ${duration(report.seconds)}`,
  );
  if (report.testAccuracy !== null) {
    say('test', `accuracy ${percent(report.testAccuracy)}, loss ${(report.testLoss ?? Number.NaN).toFixed(4)}`);
  }
  if (losses.length > 1) {
    say('loss', `${(losses[0] ?? 0).toFixed(3)} ${sparkline(losses, 40)} ${(losses.at(-1) ?? 0).toFixed(3)}`);
  }
  say('speed', `${grouped(report.imagesPerSecond)} images/s with ${report.peakRssBytes.workers.length} worker(s)`);
  const total = PHASE_NAMES.reduce((sum, [key]) => sum + report.stepSeconds[key], 0);
  if (total > 0) {
    lines.push('  where a step\'s time went:');
    for (const [key, name] of PHASE_NAMES) {
      const seconds = report.stepSeconds[key];
      lines.push(`    ${name.padEnd(16)}${bar(seconds / total, 20)} ${percent(seconds / total).padStart(7)}  ${(1000 * seconds).toFixed(2)} ms`);
    }
  }
  const largest = Math.max(0, ...report.peakRssBytes.workers);
  say('memory', `${bytes(report.peakRssBytes.coordinator)} coordinator, ${bytes(largest)} largest worker (peak)`);
  if (report.digest !== null) say('digest', report.digest);
  if (!report.reproducible) say('note', 'NOT reproducible: workers with different engines took part');
  say('files', runDirectory);
  if (report.state === 'done') say('next', `npx lockstep evaluate ${runDirectory}`);
  else if (report.steps > 0) say('next', `npm start -- --resume --run-dir ${runDirectory}`);
  return lines.join('\n');
}
