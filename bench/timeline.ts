// What a timeline costs: the whole job on two workers, in windows of steps that are in the timeline and of as many that are not, within one
// run, so that both meet the same machine: before them, in them, after them. Compared are steps a second and the processor time that a step
// takes over all processes of the run, which is steadier where others use the machine, too; and what the file takes is told.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { median } from './measure.ts';
import type { BenchOptions } from './run.ts';
import type { Row } from './table.ts';

const ENTRY = fileURLToPath(new URL('../deploy/lockstep.mjs', import.meta.url));
/** Steps until the graph is traced and caches are warm. */
const WARM_STEPS = 200;
const WINDOW_STEPS = 400;
/** Without, with, without. */
const EDGES = [0, 1, 2, 3].map((window) => WARM_STEPS + window * WINDOW_STEPS);
const LOOK_MS = 20;
/** Of /proc/PID/stat, Linux. */
const TICKS_A_SECOND = 100;

interface View {
  readonly step: number;
  readonly coordinator: { readonly pid: number };
  readonly workers: readonly { readonly pid: number }[];
}

interface Edge {
  readonly atMs: number;
  readonly step: number;
  readonly cpuSeconds: number;
}

/** Processor seconds of a process, all its threads. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
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
  const view = async (): Promise<View | null> => {
    try {
      const { url } = JSON.parse(readFileSync(join(directory, 'endpoint.json'), 'utf8')) as { url: string };
      return (await (await fetch(`${url}/api/run`)).json()) as View;
    } catch {
      return null;
    }
  };
  const edges: Edge[] = [];
  try {
    while (edges.length < EDGES.length) {
      if (child.exitCode !== null) throw new Error(`the run ended with ${child.exitCode}`);
      const now = await view();
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
  return [
    row('throughput', 'steps/s', 'speed', true),
    row('processor time', 'ms a step', 'cpu', false),
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
