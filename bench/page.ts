// What observers cost a run: a scraper that asks for /metrics again as soon as it is answered, 50 pages, and one that stops reading.
// One run trains throughout; windows with and without observers take turns, so that the machine's moods meet both. Told are the
// steps a second, the coordinator's processor time and its memory. The observers run on the same cores: the steps that they cost with what
// they use themselves are in it, so that is told, too.
//
// `--repeats N`: windows of each kind, 8 by default.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { interleaved, median, TYPESCRIPT } from './measure.ts';
import type { BenchOptions } from './run.ts';
import { cpuSeconds, urlIn, viewIn } from './run-under-way.ts';
import type { Row } from './table.ts';

const ENTRY = fileURLToPath(new URL('../deploy/lockstep.mjs', import.meta.url));
const OBSERVERS = fileURLToPath(new URL('page-process.ts', import.meta.url));
const WINDOW_MS = 6000;
/** What a window's beginning may still have of the one before. */
const SETTLE_MS = 500;
const KINDS = ['observed', 'alone'] as const;

const sleep = async (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

function rssBytes(pid: number): number {
  const [, kilobytes = '0'] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return 1024 * Number(kilobytes);
}

interface Window {
  readonly stepsPerSecond: number;
  readonly cpuShare: number;
  /** Of the observers' own process. */
  readonly observersShare: number;
  readonly rssBytes: number;
}

export async function page({ repeats = 8 }: BenchOptions): Promise<Row[]> {
  const scratch = mkdtempSync(join(tmpdir(), 'lockstep-page-'));
  const directory = join(scratch, 'run');
  const flags = ['--workers', '2', '--epochs', '1000', '--seed', '7', '--test-samples', '0', '--log-level', 'error'];
  const place = ['--listen', '127.0.0.1:0', '--run-dir', directory];
  const training = spawn(process.execPath, [ENTRY, 'train', 'cifar10-cnn', ...flags, ...place], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const ended = once(training, 'exit');
  const windows = new Map<string, Window[]>();
  try {
    let begun = await viewIn(directory);
    for (; begun === null || begun.step < 200; begun = await viewIn(directory)) await sleep(100);
    const { pid } = begun.coordinator;
    const url = urlIn(directory);
    for (const kind of interleaved(KINDS, repeats)) {
      const observers =
        kind === 'alone'
          ? null
          : spawn(process.execPath, [...TYPESCRIPT, OBSERVERS, url], { stdio: ['pipe', 'pipe', 'inherit'] });
      if (observers !== null) await once(observers.stdout, 'data');
      await sleep(SETTLE_MS);
      const own = (): number => (observers?.pid === undefined ? 0 : cpuSeconds(observers.pid));
      const [before, cpuBefore, ownBefore, at] = [await viewIn(directory), cpuSeconds(pid), own(), performance.now()];
      await sleep(WINDOW_MS);
      const [after, cpuAfter, ownAfter] = [await viewIn(directory), cpuSeconds(pid), own()];
      const seconds = (performance.now() - at) / 1000;
      const window = {
        stepsPerSecond: ((after?.step ?? 0) - (before?.step ?? 0)) / seconds,
        cpuShare: (cpuAfter - cpuBefore) / seconds,
        observersShare: (ownAfter - ownBefore) / seconds,
        rssBytes: rssBytes(pid),
      };
      windows.set(kind, [...(windows.get(kind) ?? []), window]);
      const share = (100 * window.cpuShare).toFixed(1);
      process.stderr.write(
        `${kind}: ${window.stepsPerSecond.toFixed(1)} steps/s, coordinator ${share} % of a core, ${(window.rssBytes / 1e6).toFixed(0)} MB\n`,
      );
      if (observers !== null) {
        const gone = once(observers, 'exit');
        observers.stdin.end();
        await gone;
      }
    }
  } finally {
    training.kill('SIGINT');
    await ended;
    rmSync(scratch, { recursive: true, force: true });
  }
  const of = (kind: string, value: (window: Window) => number): number[] => (windows.get(kind) ?? []).map(value);
  const observed = 'a scraper in a loop, 50 pages, one that stops reading';
  const row = (what: string, unit: string, value: (window: Window) => number, isMoreBetter: boolean): Row => {
    const [ours, peer] = [median(of('observed', value)), median(of('alone', value))];
    const ratio = isMoreBetter ? ours / peer : peer / ours;
    return { case: `${observed}: ${what}`, ours, peer, peerName: 'nobody', ratio, unit, repeats };
  };
  // Each window against its neighbour: a machine that is slow for a while is slow for both.
  const pairs = of('observed', (w) => w.stepsPerSecond).map(
    (steps, i) => steps / (of('alone', (w) => w.stepsPerSecond)[i] ?? Number.NaN),
  );
  const memory = of('observed', (w) => w.rssBytes);
  const [first = 0, last = 0] = [memory[0], memory.at(-1)];
  return [
    row('training', 'steps/s', (w) => w.stepsPerSecond, true),
    {
      ...row('training, of a window against its neighbour', 'of 1', (w) => w.stepsPerSecond, true),
      ours: median(pairs),
      peer: 1,
      ratio: median(pairs),
    },
    row('the coordinator’s processor', '% of a core', (w) => 100 * w.cpuShare, false),
    {
      ...row('the observers’ own processor', '% of a core', (w) => 100 * w.observersShare, false),
      peer: null,
      peerName: 'on the same cores as the training',
      ratio: null,
    },
    row('the coordinator’s memory', 'MB', (w) => w.rssBytes / 1e6, false),
    {
      case: `${observed}: the coordinator’s memory, last window against the first`,
      ours: last / 1e6,
      peer: first / 1e6,
      peerName: 'the first window',
      ratio: first / last,
      unit: 'MB',
      repeats: 1,
    },
  ];
}
