// A real run that is made to suffer: its processes by name, what it says of itself while it runs, and its end. Waits for steps and
// generations, never for a time.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { RunReport } from '../../protocol/report.ts';
import type { RunView, WorkerView } from '../../protocol/run-view.ts';
import { lockstep, processesNaming, reportIn, type LockstepProcess } from '../e2e/lockstep.ts';

const POLL = { timeout: 120_000, interval: 20 };

/** 2,000 samples in batches of 64: an epoch of 32 steps, the last one short. */
export const JOB = ['cifar10-cnn', '--train-samples', '2000', '--test-samples', '500', '--seed', '7', '--epochs', '12'];
export const STEPS = 384;

export class Cluster {
  readonly directory: string;
  readonly run: LockstepProcess;
  private url = '';

  constructor(directory: string, args: readonly string[]) {
    this.directory = directory;
    this.run = lockstep([...args, '--listen', '127.0.0.1:0', '--run-dir', directory]);
  }

  async listening(): Promise<this> {
    [, this.url = ''] = await this.run.wrote(/listening\s+(\S+)/);
    return this;
  }

  /** Null while nobody answers. */
  async view(): Promise<RunView | null> {
    try {
      return (await (await fetch(`${this.url}/api/run`)).json()) as RunView;
    } catch {
      return null;
    }
  }

  /** The view as soon as it is as wished. */
  async until(what: string, isSo: (view: RunView) => boolean): Promise<RunView> {
    let last: RunView | null = null;
    await expect
      .poll(
        async () => {
          last = await this.view();
          return last !== null && isSo(last);
        },
        { ...POLL, message: what },
      )
      .toBe(true);
    if (last === null) throw new Error('nobody answers');
    return last;
  }

  async step(step: number): Promise<RunView> {
    return this.until(`step ${step}`, (view) => view.step >= step);
  }

  /** `count` members train, and have done a step together. */
  async members(count: number): Promise<RunView> {
    const before = await this.until(`${count} members`, (view) => membersOf(view).length === count);
    return this.until(
      `a step of ${count} members`,
      (view) => view.step > before.step + 1 && membersOf(view).length === count,
    );
  }

  /** The end of a run that survived all of it: same bits, nothing lost, nothing left behind. */
  async survived(digest: string): Promise<RunReport> {
    const ended = await this.run.ended;
    expect([ended.code, ended.code === 0 ? '' : ended.stdout.slice(-3000)]).toEqual([0, '']);
    const report = reportIn(this.directory);
    expect(report).toMatchObject({ state: 'done', steps: STEPS, digest, stepsLost: 0 });
    expect(stepsIn(this.directory)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
    expect(report.byEpoch.map((epoch) => epoch.epoch)).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
    expect(processesNaming(this.directory)).toEqual([]);
    return report;
  }
}

export function membersOf(view: RunView): WorkerView[] {
  return view.workers.filter((w) => w.rank !== null && (w.state === 'training' || w.state === 'evaluating'));
}

/** The process of rank `rank`. */
export function pidOf(view: RunView, rank: number): number {
  return membersOf(view).find((w) => w.rank === rank)?.pid ?? Number.NaN;
}

/** The steps in metrics.jsonl, in its order. */
function stepsIn(directory: string): number[] {
  return readFileSync(join(directory, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { step: number }).step);
}

/** Names of shared memory that belong to this program. */
export function sharedMemory(): string[] {
  return readdirSync('/dev/shm').filter((name) => name.startsWith('lockstep'));
}
