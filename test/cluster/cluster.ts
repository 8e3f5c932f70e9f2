// A real run that is made to suffer: its processes by name, what it says of itself while it runs, and its end. Waits for steps and
// generations, never for a time.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { vi } from 'vitest';
import type { RunView, WorkerView } from '../../protocol/run-view.ts';
import { lockstep, type LockstepProcess } from '../e2e/lockstep.ts';

const WAIT = { timeout: 120_000, interval: 20 };

/** 2,000 samples in batches of 64: an epoch of 32 steps, the last one short. */
export const JOB = ['cifar10-cnn', '--train-samples', '2000', '--test-samples', '500', '--seed', '7', '--epochs', '12'];
export const STEPS = 384;

export class Cluster {
  readonly directory: string;
  readonly run: LockstepProcess;
  private url = '';

  constructor(directory: string, args: readonly string[], env: Record<string, string> = {}) {
    this.directory = directory;
    this.run = lockstep([...args, '--listen', '127.0.0.1:0', '--run-dir', directory], { env });
  }

  async listening(): Promise<this> {
    [, this.url = ''] = await this.run.wrote(/listening\s+(\S+)/);
    return this;
  }

  /** Null while nobody answers. */
  async view(): Promise<RunView | null> {
    try {
      // A coordinator that is stopped takes the call, and says nothing.
      const signal = AbortSignal.timeout(1000);
      return (await (await fetch(`${this.url}/api/run`, { signal })).json()) as RunView;
    } catch {
      return null;
    }
  }

  /** The view as soon as it is as wished; rejects, saying `what` was waited for, when it never is. */
  async until(what: string, isSo: (view: RunView) => boolean): Promise<RunView> {
    return vi.waitFor(async () => {
      const view = await this.view();
      if (view === null || !isSo(view)) throw new Error(`not yet: ${what}`);
      return view;
    }, WAIT);
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
}

export function membersOf(view: RunView): WorkerView[] {
  return view.workers.filter((w) => w.rank !== null && (w.state === 'training' || w.state === 'evaluating'));
}

/** The process of rank `rank`. */
export function pidOf(view: RunView, rank: number): number {
  return membersOf(view).find((w) => w.rank === rank)?.pid ?? Number.NaN;
}

/** The steps in metrics.jsonl, in its order. */
export function stepsIn(directory: string): number[] {
  return readFileSync(join(directory, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { step: number }).step);
}

/** Names of shared memory that belong to this program. */
export function sharedMemory(): string[] {
  return readdirSync('/dev/shm').filter((name) => name.startsWith('lockstep'));
}
