// The end of a run as a person reads it: how well, how fast, where the time went, what it left, what to do next. Pure.

import type { Transport } from '../../protocol/link.ts';
import type { RunReport } from '../../protocol/report.ts';
import { compressionText, shareText } from './account.ts';
import { bytes, counted, duration, grouped, paint, percent, sparkline, wrapped, type Style } from './text.ts';

/** In the order of a step. */
const PHASES = [
  ['data', 'data'],
  ['compute', 'compute'],
  ['wait', 'wait'],
  ['allreduce', 'all-reduce'],
  ['apply', 'apply'],
] as const;

const CARRIERS: Readonly<Record<Transport, string>> = {
  shm: 'shared memory',
  unix: 'unix sockets',
  tcp: 'WebSocket on TCP',
  nats: 'NATS',
};

const NAME_WIDTH = 15;
const CURVE_MOST = 40;

export interface Remains {
  readonly runDirectory: string;
  /** There is something to resume from. */
  readonly hasCheckpoint: boolean;
  /** Losses of the steps, in order, for the curve. */
  readonly losses: readonly number[];
}

export function summaryText(report: RunReport, remains: Remains, style: Style): string {
  const { losses } = remains;
  const colors = paint(style.color);
  const lines: string[] = [];
  const say = (name: string, value: string): void => {
    const rows = wrapped(value, Math.max(20, style.width - 2 - NAME_WIDTH));
    for (const [i, row] of rows.entries())
      lines.push(`  ${colors.dim((i === 0 ? name : '').padEnd(NAME_WIDTH))}${row}`);
  };
  const color = { done: colors.green, stopped: colors.yellow, failed: colors.red }[report.state];
  const heading = { done: 'Done', stopped: 'Stopped', failed: 'Failed' }[report.state];
  const epochs = `${report.byEpoch.length} of ${counted(report.epochs, 'epoch')}`;
  lines.push(
    `${colors.bold(color(heading))} after ${counted(report.steps, 'step')}, ${epochs}, in ${duration(report.seconds)}`,
    '',
  );

  if (report.testAccuracy !== null && report.testLoss !== null) {
    say(
      'test accuracy',
      `${percent(report.testAccuracy)} (loss ${report.testLoss.toFixed(4)}, ${counted(report.dataSet.testSamples, 'sample')})`,
    );
  }
  const curve = sparkline(losses, Math.min(CURVE_MOST, style.width - 40), style.unicode);
  const [first, last] = [losses[0], losses.at(-1)];
  if (first !== undefined && last !== undefined && losses.length > 1) {
    say('training loss', `${first.toFixed(3)} ${curve} ${last.toFixed(3)}`);
  }
  // Where some were lost, others took their places: no one number says how many there were.
  const among = report.workersLost > 0 ? '' : `, ${counted(report.peakRssBytes.workers.length, 'worker')}`;
  say('speed', `${grouped(report.imagesPerSecond)} images/s${among}`);
  const total = PHASES.reduce((sum, [key]) => sum + report.stepSeconds[key], 0);
  if (total > 0) {
    say('a step', `${milliseconds(total)}, of which`);
    for (const [key, name] of PHASES) {
      const seconds = report.stepSeconds[key];
      lines.push(shareText(name, seconds / total, milliseconds(seconds).padStart(10), style).trimEnd());
    }
  }
  if (report.straggler !== null) say('straggler', `${report.straggler.worker}: ${report.straggler.because}`);
  for (const { transport, bytes: sent } of report.traffic) {
    say('gradients', `${bytes(sent)} between the workers, over ${CARRIERS[transport]}`);
  }
  if (report.nats !== null) {
    const { server, bucket } = report.nats;
    const copy =
      bucket === null ? 'no copy of the record: no JetStream' : `a copy of the record in its bucket ${bucket}`;
    say('NATS', `${server}; ${copy}`);
  }
  if (report.gradientCompression !== 'none') say('compression', compressionText(report.gradientCompression));
  const largest = Math.max(0, ...report.peakRssBytes.workers);
  say('peak memory', `${bytes(largest)} the largest worker, ${bytes(report.peakRssBytes.coordinator)} the coordinator`);
  if (report.workersLost > 0) {
    const again = `microbatches computed again: ${grouped(report.microbatchesRecomputed)}`;
    say('workers lost', `${grouped(report.workersLost)}, in ${counted(report.generations, 'generation')}; ${again}`);
  }
  if (report.stepsLost > 0) say('steps lost', `${grouped(report.stepsLost)}: nobody had them any more; done again`);
  if (report.digest !== null) {
    // Whole, however narrow the terminal: it is copied.
    lines.push(`  ${colors.dim('digest'.padEnd(NAME_WIDTH))}${report.digest}`);
    if (report.reproducible)
      say(
        'reproducible',
        `the same digest for any number of workers with seed ${report.seed}, this job and this engine`,
      );
    else {
      const because = report.jobChanges.map(({ step }) => `the job was changed after step ${grouped(step)}`);
      if (because.length === 0) because.push('workers with different engines took part');
      say('reproducible', colors.yellow(`no: ${because.join(', ')}`));
    }
  }
  lines.push('', ...leftText(report, remains, style.width - 2).map((line) => `  ${line}`));
  return lines.join('\n');
}

function milliseconds(seconds: number): string {
  const ms = 1000 * seconds;
  return `${ms >= 100 ? ms.toFixed(0) : ms.toFixed(2)} ms`;
}

/** What the run left behind, and what one can do with it. */
function leftText(report: RunReport, { runDirectory, hasCheckpoint }: Remains, width: number): string[] {
  const directory = runDirectory.replace(/\/+$/, '');
  const quoted = /^[\w./@%+=:,-]+$/.test(directory) ? directory : `'${directory}'`;
  const rows: (readonly [string, string])[] = [];
  if (report.state !== 'failed' && report.digest !== null) {
    rows.push([`${directory}/model/model.json`, 'the model: tf.loadLayersModel opens it']);
  }
  rows.push([`${directory}/report.json`, 'all of the above, for programs']);
  if (hasCheckpoint) {
    rows.push([`npx lockstep evaluate ${quoted}`, 'accuracy by class']);
    if (report.state !== 'done') rows.push([`... --resume --run-dir ${quoted}`, 'goes on from the last checkpoint']);
  }
  const wide = Math.max(...rows.map(([what]) => what.length));
  const fits = wide + 2 + Math.max(...rows.map(([, why]) => why.length)) <= width;
  return rows.flatMap(([what, why]) => (fits ? [`${what.padEnd(wide)}  ${why}`] : [what, `    ${why}`]));
}
