// What being watched costs: the whole job on two workers, in windows of some seconds that are taken in turn with a scraper that asks the
// coordinator and each worker for its metrics every second, and without. One run, so that both meet the same machine. Compared are steps a
// second and the processor time that a step takes, over all processes of the run; the second is steadier where others use the machine, too.
// Where they do, both are still too coarse for what is small: so a scrape is also measured by itself, as processor time of the one process
// that answers, with the metrics of a run of two workers and, for the coordinator, the file that it writes before it answers.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createMetrics } from '../coordinator/http/metrics.ts';
import { CounterFile } from '../coordinator/record/counters.ts';
import { ownMetrics } from '../worker/metrics/own-metrics.ts';
import { median } from './measure.ts';
import type { BenchOptions } from './run.ts';
import { cpuSeconds, urlIn, viewIn } from './run-under-way.ts';
import type { RunView } from '../protocol/run-view.ts';
import type { Row } from './table.ts';

const ENTRY = fileURLToPath(new URL('../deploy/lockstep.mjs', import.meta.url));
const WINDOW_MS = 2000;
const SCRAPE_EVERY_MS = 1000;
/** Steps until the graph is traced and caches are warm. */
const WARM_STEPS = 200;
/** As Prometheus sends it. */
const ACCEPT = 'application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5';

interface Window {
  readonly stepsPerSecond: number;
  readonly cpuMsPerStep: number;
}

const sleep = async (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

const SCRAPES = 300;
const PHASES = { data: 0.0004, compute: 0.006, allreduce: 0.0003, apply: 0.0003, wait: 0.0008 };
const REPORT = {
  step: 1,
  samples: 64,
  lossSum: 128,
  correct: 16,
  gradientNorm: 0.5,
  seconds: 0.008,
  phases: PHASES,
  rssBytes: 3e8,
};

/** Milliseconds of processor time that a call takes, all threads of this process together. */
async function cpuMsOf(call: () => Promise<unknown>): Promise<number> {
  for (let i = 0; i < SCRAPES / 10; i++) await call();
  const before = process.cpuUsage();
  for (let i = 0; i < SCRAPES; i++) await call();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000 / SCRAPES;
}

/** What the coordinator of a run of two workers does to answer a scrape. */
async function coordinatorScrape(directory: string): Promise<number> {
  const plan = { samples: 50_000, globalBatch: 64, microbatches: 4, seed: 1 };
  const past = {
    startedAtSeconds: 1,
    coordinators: 0,
    lastStepAtSeconds: null,
    lastCheckpointAtSeconds: null,
    shown: null,
  };
  const made = createMetrics({ run: 'cifar10-cnn-20261124-142936', transport: 'ws', plan, membersWanted: 2, past });
  for (const [worker, peer] of [
    ['w0', 'w1'],
    ['w1', 'w0'],
  ] as const) {
    made.observeWorkerStep(worker, REPORT, false);
    made.observeTraffic(worker, peer, { peer: 0, transport: 'shm', bytesOut: 1, bytesIn: 1 });
  }
  const file = new CounterFile(directory);
  return cpuMsOf(async () => {
    made.observeWorkerStep('w0', REPORT, false);
    const { shown } = await made.render(ACCEPT);
    await file.keep(shown);
  });
}

async function workerScrape(): Promise<number> {
  const made = ownMetrics({ run: 'cifar10-cnn-20261124-142936', worker: 'w0', startedAtSeconds: 1 });
  made.observeStep(REPORT);
  return cpuMsOf(async () => {
    const { user, system } = process.cpuUsage();
    const { rss, heapUsed, arrayBuffers } = process.memoryUsage();
    const memoryBytes = { resident: rss, heap: heapUsed, buffers: arrayBuffers, engine: 0 };
    await made.render({ cpuSeconds: { user, system }, memoryBytes, gpu: null }, ACCEPT);
  });
}

export async function metrics({ repeats = 30 }: BenchOptions): Promise<Row[]> {
  const scratch = mkdtempSync(join(tmpdir(), 'lockstep-metrics-'));
  const directory = join(scratch, 'run');
  const flags = ['--workers', '2', '--epochs', '1000', '--seed', '7', '--test-samples', '0'];
  const place = ['--listen', '127.0.0.1:0', '--run-dir', directory, '--log-level', 'error'];
  const child = spawn(process.execPath, [ENTRY, 'train', 'cifar10-cnn', ...flags, ...place], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const ended = once(child, 'exit');
  const view = async (): Promise<RunView> => {
    const now = await viewIn(directory);
    if (now === null) throw new Error('the coordinator does not answer');
    return now;
  };
  const scrape = async ({ workers }: RunView): Promise<void> => {
    const urls = [`${urlIn(directory)}/metrics`, ...workers.flatMap(({ metricsUrl }) => metricsUrl ?? [])];
    await Promise.all(urls.map(async (url) => (await fetch(url, { headers: { accept: ACCEPT } })).text()));
  };
  const edge = async (): Promise<{ at: number; step: number; cpu: number }> => {
    const { step, coordinator, workers } = await view();
    const pids = [coordinator.pid, ...workers.map(({ pid }) => pid)];
    return { at: performance.now(), step, cpu: pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0) };
  };
  const window = async (isWatched: boolean): Promise<Window> => {
    const before = await edge();
    const now = await view();
    for (let i = 1; i <= WINDOW_MS / SCRAPE_EVERY_MS; i++) {
      if (isWatched) await scrape(now);
      await sleep(before.at + i * SCRAPE_EVERY_MS - performance.now());
    }
    const after = await edge();
    const steps = after.step - before.step;
    return {
      stepsPerSecond: (1000 * steps) / (after.at - before.at),
      cpuMsPerStep: (1000 * (after.cpu - before.cpu)) / steps,
    };
  };
  const pairs: { watched: Window; alone: Window }[] = [];
  try {
    for (let now = await viewIn(directory); (now?.step ?? 0) < WARM_STEPS; now = await viewIn(directory)) {
      if (child.exitCode !== null) throw new Error(`the run ended with ${child.exitCode}`);
      await sleep(100);
    }
    for (let i = 0; i < repeats; i++) {
      // Neither always comes first.
      const first = await window(i % 2 === 0);
      const second = await window(i % 2 !== 0);
      const [watched, alone] = i % 2 === 0 ? [first, second] : [second, first];
      pairs.push({ watched, alone });
      process.stderr.write(
        `watched ${watched.stepsPerSecond.toFixed(1)} steps/s, ${watched.cpuMsPerStep.toFixed(3)} ms a step; alone ${alone.stepsPerSecond.toFixed(1)}, ${alone.cpuMsPerStep.toFixed(3)}\n`,
      );
    }
  } finally {
    child.kill('SIGINT');
    await ended;
    rmSync(directory, { recursive: true, force: true });
  }
  mkdirSync(directory);
  const costs = { coordinator: await coordinatorScrape(directory), worker: await workerScrape() };
  rmSync(scratch, { recursive: true, force: true });
  const row = (title: string, unit: string, value: (figures: Window) => number, isMoreBetter: boolean): Row => ({
    case: title,
    ours: median(pairs.map(({ watched }) => value(watched))),
    peer: median(pairs.map(({ alone }) => value(alone))),
    peerName: 'the same without a scraper',
    // Of each pair: what changes slowly falls out.
    ratio: median(pairs.map(({ watched, alone }) => (value(watched) / value(alone)) ** (isMoreBetter ? 1 : -1))),
    unit,
    repeats: pairs.length,
  });
  const scrapeRow = (who: string, cpuMs: number): Row => ({
    case: `one scrape of ${who}, processor time`,
    ours: cpuMs,
    peer: SCRAPE_EVERY_MS / 100,
    peerName: '1 % of a core, one scrape a second',
    ratio: SCRAPE_EVERY_MS / 100 / cpuMs,
    unit: 'ms',
    repeats: SCRAPES,
  });
  return [
    scrapeRow('the coordinator', costs.coordinator),
    scrapeRow('a worker', costs.worker),
    row('two workers, scraped each second: throughput', 'steps/s', ({ stepsPerSecond }) => stepsPerSecond, true),
    row('two workers, scraped each second: processor time', 'ms a step', ({ cpuMsPerStep }) => cpuMsPerStep, false),
  ];
}
