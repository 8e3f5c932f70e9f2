import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createMetrics, type ShownCounters } from '../../../coordinator/http/metrics.ts';
import { CounterFile, readCounters } from '../../../coordinator/record/counters.ts';
import { VIEW } from '../http/view.ts';
import { temporaryDirectory } from './temporary.ts';

const shownAt = (step: number): ShownCounters => ({ step, metrics: {} });

/** A coordinator's metrics on a run directory, as coordinator/main.ts puts them together; killed by forgetting it. */
async function coordinatorOn(directory: string, coordinators: number) {
  const file = new CounterFile(directory);
  const metrics = createMetrics({
    run: 'r',
    transport: 'ws',
    plan: { samples: 100, globalBatch: 10, microbatches: 1, seed: 1 },
    membersWanted: 2,
    past: {
      startedAtSeconds: 1,
      coordinators,
      lastStepAtSeconds: null,
      lastCheckpointAtSeconds: null,
      shown: await readCounters(directory, (message) => {
        throw new Error(message);
      }),
    },
  });
  metrics.observe({ kind: 'generation', generation: 1, worldSize: 2, spares: 0, because: 'b' });
  return {
    metrics,
    scrape: async (): Promise<Map<string, number>> => {
      const { text, shown } = await metrics.render();
      await file.keep(shown);
      const samples = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
      return new Map(samples.map((line) => [line.replace(/ \S+$/, ''), Number(/\S+$/.exec(line)?.[0])]));
    },
  };
}

describe('what scrapes have shown', () => {
  it('is what a coordinator that takes the run directory over begins with, for the second and the third time, too', async () => {
    const directory = temporaryDirectory();
    let last = new Map<string, number>();
    for (const [process, step] of [70, 60, 90].entries()) {
      const { metrics, scrape } = await coordinatorOn(directory, process);
      const first = await scrape();
      const fallen = [...last].filter(
        ([series, value]) => /_(total|bucket|sum|count)\{/.test(series) && !((first.get(series) ?? -1) >= value),
      );
      expect(fallen).toEqual([]);
      metrics.observe({ kind: 'checkpoint', step, directory: 'd', seconds: 0.2 });
      metrics.countRefusal('E_MESSAGE');
      metrics.setView({ ...VIEW, step, microbatchesRecomputed: 5 });
      last = await scrape();
    }
    expect(last.get('lockstep_checkpoint_duration_seconds_count{run="r"}')).toBe(3);
    expect(last.get('lockstep_workers_refused_total{run="r",code="E_MESSAGE"}')).toBe(3);
    expect(last.get('lockstep_microbatches_recomputed_total{run="r"}')).toBe(15);
    expect(last.get('lockstep_images_total{run="r"}')).toBe(900);
    expect(last.get('lockstep_coordinator_restarts_total{run="r"}')).toBe(2);
  });

  it('is on disk before the answer is: whenever it is kept, the file has it or something newer', async () => {
    const directory = temporaryDirectory();
    const file = new CounterFile(directory);
    const onDisk = (): number =>
      (JSON.parse(readFileSync(join(directory, 'counters.json'), 'utf8')) as ShownCounters).step;
    await Promise.all(
      [1, 2, 3, 4].map(async (step) => {
        await file.keep(shownAt(step));
        expect(onDisk()).toBeGreaterThanOrEqual(step);
      }),
    );
    await file.keep(shownAt(5));
    expect(onDisk()).toBe(5);
  });

  it('that can’t be kept is said to whom it matters, and the next time is tried again', async () => {
    const directory = join(temporaryDirectory(), 'gone');
    const file = new CounterFile(directory);
    await expect(file.keep(shownAt(1))).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(file.keep(shownAt(2))).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('is nothing where there is no file; a damaged one is told, and is nothing, too', async () => {
    const directory = temporaryDirectory();
    const warnings: string[] = [];
    const read = async (): Promise<unknown> => readCounters(directory, (message) => warnings.push(message));
    expect([await read(), warnings]).toEqual([null, []]);
    for (const text of ['{"schema":2,', '{"schema":1,"step":1,"metrics":[]}', '{"schema":2,"step":-1,"metrics":{}}']) {
      writeFileSync(join(directory, 'counters.json'), text);
      expect(await read()).toBe(null);
    }
    expect(warnings).toEqual(Array(3).fill("counters.json can't be read: the counters in /metrics begin anew"));
  });
});
