// What else could run beside the engine, and whether it pays on this machine: the engine on a thread of its own, so that the
// process's event loop is never blocked; data prepared one microbatch ahead by a thread of each worker.

import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { engineEnvironment } from '../worker/engine/environment.ts';
import { interleaved, median, TYPESCRIPT } from './measure.ts';
import type { BenchOptions } from './run.ts';
import type { Row } from './table.ts';
import { ours } from './throughput.ts';

const PROCESS = fileURLToPath(new URL('step-thread-process.ts', import.meta.url));

interface Measured {
  readonly ms: number;
  readonly blockedMs: number;
}

function step(where: readonly string[]): Measured {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...TYPESCRIPT, PROCESS, ...where], {
    encoding: 'utf8',
    env: { ...process.env, ...engineEnvironment(1) },
  });
  if (status !== 0) throw new Error(`step-thread-process.ts failed: ${stderr}`);
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Measured;
}

export async function pipeline(options: BenchOptions): Promise<Row[]> {
  const { repeats = 3, microbatches } = options;
  const cores = availableParallelism();
  const found = new Map<string, number[]>();
  const note = (name: string, value: number): void => {
    process.stderr.write(`${name}: ${value.toFixed(2)}\n`);
    found.set(name, [...(found.get(name) ?? []), value]);
  };
  const runs: Record<string, () => Promise<void> | void> = {
    'main thread': () => {
      const { ms, blockedMs } = step([]);
      note('ms, main thread', ms);
      note('blocked, main thread', blockedMs);
    },
    'own thread': () => {
      const { ms, blockedMs } = step(['--thread']);
      note('ms, own thread', ms);
      note('blocked, own thread', blockedMs);
    },
  };
  for (const augment of ['off', 'on'] as const) {
    for (const threads of [0, 1]) {
      const name = `data threads ${threads}, augmentation ${augment}`;
      const flags = ['--data-threads', String(threads)];
      runs[name] = async () => note(name, await ours(cores, augment, microbatches, [], flags));
    }
  }
  for (const name of interleaved(Object.keys(runs), repeats)) await runs[name]?.();

  const of = (name: string): number => median(found.get(name) ?? []);
  const less = (title: string, unit: string, mine: number, other: number, peerName: string): Row => ({
    case: title,
    ours: mine,
    peer: other,
    peerName,
    ratio: other / mine,
    unit,
    repeats,
  });
  return [
    less(
      'a microbatch of 16, engine on the main thread',
      'ms',
      of('ms, main thread'),
      of('ms, own thread'),
      'on its own',
    ),
    less(
      'the event loop blocked meanwhile, 99 %',
      'ms',
      of('blocked, main thread'),
      of('blocked, own thread'),
      'on its own',
    ),
    ...(['off', 'on'] as const).map((augment): Row => {
      const [mine, other] = [0, 1].map((threads) => of(`data threads ${threads}, augmentation ${augment}`));
      return {
        case: `cifar10-cnn, ${cores} workers, augmentation ${augment}, data read when needed`,
        ours: mine ?? Number.NaN,
        peer: other ?? Number.NaN,
        peerName: 'a data thread each',
        ratio: (mine ?? Number.NaN) / (other ?? Number.NaN),
        unit: 'images/s',
        repeats,
      };
    }),
  ];
}
