// What a timeline costs: the whole job on two workers, in windows of steps that are in the timeline and of as many that are not, within one
// run, so that both meet the same machine: before them, in them, after them. Compared are steps a second and the processor time that a step
// takes over all processes of the run, which is steadier where others use the machine, too; and what the file takes is told. Where others do,
// both are too coarse for what is small: so what a step costs is also measured by itself, on the worker that records and sends it and on
// the coordinator that takes it and writes it.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Timeline } from '../coordinator/core/timeline.ts';
import { openTimelineFile } from '../coordinator/record/timeline-file.ts';
import { decodeWorkerMessage, encodeMessage, type TraceMessage } from '../protocol/messages.ts';
import { Recorder } from '../worker/timeline/recorder.ts';
import { median } from './measure.ts';
import type { BenchOptions } from './run.ts';
import { cpuSeconds, viewIn } from './run-under-way.ts';
import type { Row } from './table.ts';

const ENTRY = fileURLToPath(new URL('../deploy/lockstep.mjs', import.meta.url));
/** Steps until the graph is traced and caches are warm. */
const WARM_STEPS = 200;
const WINDOW_STEPS = 400;
/** Without, with, without. */
const EDGES = [0, 1, 2, 3].map((window) => WARM_STEPS + window * WINDOW_STEPS);
const LOOK_MS = 20;

interface Edge {
  readonly atMs: number;
  readonly step: number;
  readonly cpuSeconds: number;
}

/** One run: what it stood at as it passed the edges of the windows, and the bytes of its timeline. */
async function run(): Promise<{ edges: Edge[]; bytes: number }> {
  const scratch = mkdtempSync(join(tmpdir(), 'lockstep-timeline-'));
  const directory = join(scratch, 'run');
  const file = join(scratch, 'timeline.json');
  const [, from = 0, to = 0, last = 0] = EDGES;
  const flags = [
    '--workers',
    '2',
    '--epochs',
    '1000',
    '--max-steps',
    `${last + 50}`,
    '--seed',
    '7',
    '--test-samples',
    '0',
  ];
  const place = ['--listen', '127.0.0.1:0', '--run-dir', directory, '--log-level', 'error'];
  const wish = ['--timeline', file, '--timeline-steps', `${from + 1}-${to}`];
  const child = spawn(process.execPath, [ENTRY, 'train', 'cifar10-cnn', ...flags, ...place, ...wish], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const ended = once(child, 'exit');
  const edges: Edge[] = [];
  try {
    while (edges.length < EDGES.length) {
      if (child.exitCode !== null) throw new Error(`the run ended with ${child.exitCode}`);
      const now = await viewIn(directory);
      if (now !== null && now.step >= (EDGES[edges.length] ?? 0)) {
        const pids = [now.coordinator.pid, ...now.workers.map(({ pid }) => pid)];
        const seconds = pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
        edges.push({ atMs: performance.now(), step: now.step, cpuSeconds: seconds });
      }
      await new Promise((resolve) => {
        setTimeout(resolve, LOOK_MS);
      });
    }
    await ended;
    return { edges, bytes: statSync(file).size };
  } finally {
    child.kill('SIGINT');
    await ended;
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Steps in one message, at some 80 a second. */
const BATCH = 4;
const BATCHES = 2000;

/** Milliseconds of processor time that a call takes, all threads of this process together. */
async function cpuMsOf(call: () => unknown): Promise<number> {
  for (let i = 0; i < BATCHES / 10; i++) await call();
  const before = process.cpuUsage();
  for (let i = 0; i < BATCHES; i++) await call();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000 / BATCHES;
}

/** Milliseconds of processor time for a step of two microbatches and one bucket. */
async function stepCosts(): Promise<{ worker: number; coordinator: number }> {
  const seconds = (): number => performance.now() / 1000;
  const recorder = new Recorder({ originUs: () => 0, seconds, boot: () => 'b' });
  recorder.asked({ kind: 'clock', sentUs: 0, from: 0, to: Number.MAX_SAFE_INTEGER });
  let step = 0;
  const record = (): Uint8Array => {
    for (let i = 0; i < BATCH; i++) {
      const trace = recorder.of(++step);
      const times = Array.from({ length: 8 }, seconds) as [number, number, number, number];
      trace?.microbatch(0, times);
      trace?.microbatch(1, times);
      trace?.allReduce(
        times[0],
        times[3],
        { waitSeconds: 0, reduceSeconds: 0, traffic: [], marks: Float64Array.of(...times) },
        0,
      );
      trace?.add('apply', times[0], times[1]);
      trace?.add('step', times[0], times[3]);
    }
    const message: TraceMessage | null = recorder.take(1);
    return message === null ? new Uint8Array(0) : encodeMessage(message);
  };
  const worker = await cpuMsOf(record);
  const bytes = record();
  const scratch = mkdtempSync(join(tmpdir(), 'lockstep-timeline-'));
  const head = { run: 'r', begunAtUs: 0, zeroUs: 0, boot: 'b' };
  const file = await openTimelineFile({ path: join(scratch, 't.json'), head, isResumed: false, observe: () => {} });
  const plan = { samples: 50_000, globalBatch: 64, microbatches: 4, seed: 1 };
  const about = { term: 1, host: 'h', pid: 1, boot: 'b', plan, steps: 10_000, from: 0, to: 10_000, zeroUs: 0 };
  const written = new Timeline(about);
  const from = { id: 'w0', host: 'h', pid: 2, rank: 0, formerly: null };
  file.add(written.clock(from, { kind: 'clock', sentUs: 0, atUs: 0, boot: 'b' }, 0));
  const coordinator = await cpuMsOf(async () => {
    const heard = decodeWorkerMessage(bytes);
    if (heard.kind === 'trace') file.add(written.trace(from, heard, 0));
    // What is written meanwhile is in it.
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  });
  await file.close('{}');
  rmSync(scratch, { recursive: true, force: true });
  return { worker: worker / BATCH, coordinator: coordinator / BATCH };
}

export async function timeline({ repeats = 5 }: BenchOptions): Promise<Row[]> {
  const found: { with: { speed: number; cpu: number }; without: { speed: number; cpu: number } }[] = [];
  let bytesAStep = 0;
  for (let i = 0; i < repeats; i++) {
    const { edges, bytes } = await run();
    const windows = edges.slice(1).map((edge, w) => {
      const before = edges[w] ?? edge;
      const steps = edge.step - before.step;
      return {
        speed: (1000 * steps) / (edge.atMs - before.atMs),
        cpu: (1000 * (edge.cpuSeconds - before.cpuSeconds)) / steps,
      };
    });
    const [first, traced, last] = windows;
    if (first === undefined || traced === undefined || last === undefined) throw new Error('there are three windows');
    const without = { speed: (first.speed + last.speed) / 2, cpu: (first.cpu + last.cpu) / 2 };
    found.push({ with: traced, without });
    bytesAStep = bytes / WINDOW_STEPS;
    process.stderr.write(
      `with ${traced.speed.toFixed(1)} steps/s, ${traced.cpu.toFixed(3)} ms a step; without ${without.speed.toFixed(1)}, ${without.cpu.toFixed(3)}\n`,
    );
  }
  const row = (title: string, unit: string, key: 'speed' | 'cpu', isMoreBetter: boolean): Row => ({
    case: `two workers, a timeline written: ${title}`,
    ours: median(found.map((one) => one.with[key])),
    peer: median(found.map((one) => one.without[key])),
    peerName: 'the steps before and after, which are not in it',
    // Of each run: what changes slowly falls out.
    ratio: median(found.map((one) => (one.with[key] / one.without[key]) ** (isMoreBetter ? 1 : -1))),
    unit,
    repeats,
  });
  const costs = await stepCosts();
  /** Of the processor time of one of the two workers. */
  const percent = median(found.map(({ without }) => without.cpu)) / 2 / 100;
  const cost = (title: string, ms: number): Row => ({
    case: `one worker’s step in a timeline, ${title}`,
    ours: ms,
    peer: percent,
    peerName: '1 % of its processor time',
    ratio: percent / ms,
    unit: 'ms',
    repeats: BATCHES,
  });
  return [
    row('throughput', 'steps/s', 'speed', true),
    row('processor time', 'ms a step', 'cpu', false),
    cost('recorded and sent', costs.worker),
    cost('taken and written by the coordinator', costs.coordinator),
    {
      case: 'its file, of a step on two workers',
      ours: bytesAStep / 1000,
      peer: null,
      peerName: 'nothing to compare with',
      ratio: null,
      unit: 'kB',
      repeats,
    },
  ];
}
