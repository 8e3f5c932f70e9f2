// What is new to a page that has seen some of a run: whatever it missed, it ends up with what a page that is opened now gets.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Feed, type News } from '../../../coordinator/core/feed.ts';
import { HAPPENINGS_MAX, type Happening } from '../../../coordinator/core/happenings.ts';
import type { EpochReport } from '../../../protocol/report.ts';
import type { RootCause, RunEvent } from '../../../protocol/run-event.ts';
import { VIEW } from '../http/view.ts';

const phases = { data: 0, compute: 0, allreduce: 0, apply: 0, wait: 0 };
const stepEvent = (step: number): RunEvent => ({
  kind: 'step',
  step,
  generation: 1,
  loss: 1 / step,
  accuracy: 0.5,
  gradientNorm: 1,
  samples: 8,
  seconds: 0.5,
  phases,
});
const epochOf = (epoch: number): EpochReport => ({
  epoch,
  loss: 1,
  testLoss: 1,
  testAccuracy: 0.5,
  seconds: 1,
  imagesPerSecond: 8,
});
const cause: RootCause = {
  who: 'w1',
  rank: 1,
  host: 'blue',
  pid: 12,
  exitCode: null,
  signal: 'SIGKILL',
  code: null,
  message: 'killed by SIGKILL',
  lastLines: [],
  logFile: null,
};

describe('a feed', () => {
  it('tells everything to who has seen nothing, and nothing again to who has seen it', () => {
    const feed = new Feed();
    feed.observe(stepEvent(1), 1000);
    feed.observe({ kind: 'worker-lost', cause }, 2000);
    const revision = feed.next(VIEW);
    const all = feed.since(0, VIEW);
    expect(all.curve?.points).toHaveLength(1);
    expect(all.epochs).toEqual({ from: 0, reports: VIEW.byEpoch });
    expect(all.happenings).toEqual([
      { id: 1, t: 2000, kind: 'lost', step: 1, worker: 'w1', text: 'w1 on blue: killed by SIGKILL' },
    ]);
    expect(feed.since(revision, VIEW)).toMatchObject({ curve: null, epochs: null, happenings: [] });
  });

  it('tells the present without the epochs, which have a part of their own, and of lost workers the last two', () => {
    const worker = VIEW.workers[0]!;
    const gone = [1, 2, 3].map((i) => ({ ...worker, id: `gone${i}`, rank: null, state: 'lost' as const }));
    const { view } = new Feed().since(0, { ...VIEW, workers: [...gone, ...VIEW.workers] });
    expect('byEpoch' in view).toBe(false);
    expect(view.workers.map(({ id }) => id)).toEqual(['w0', 'w1', 'w2', 'gone2', 'gone3']);
  });

  it('applied whenever, by whoever missed whatever, is what a new page gets', () => {
    type Seen = { revision: number; points: unknown[]; epochs: unknown[]; happenings: Happening[] };
    const apply = (seen: Seen, news: News): Seen => ({
      revision: seen.revision,
      points: news.curve === null ? seen.points : [...seen.points.slice(0, news.curve.from), ...news.curve.points],
      epochs: news.epochs === null ? seen.epochs : [...seen.epochs.slice(0, news.epochs.from), ...news.epochs.reports],
      happenings: [...seen.happenings, ...news.happenings],
    });
    const action = fc.oneof(
      fc.record({ kind: fc.constant('steps' as const), count: fc.integer({ min: 1, max: 700 }) }),
      fc.record({ kind: fc.constant('back' as const), by: fc.integer({ min: 1, max: 300 }) }),
      fc.record({ kind: fc.constant('epoch' as const) }),
      fc.record({ kind: fc.constant('epochs-gone' as const) }),
      fc.record({ kind: fc.constant('lost' as const) }),
      fc.record({ kind: fc.constant('look' as const) }),
      fc.record({ kind: fc.constant('publish' as const) }),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
        const feed = new Feed();
        let step = 0;
        let byEpoch: EpochReport[] = [];
        let seen: Seen = { revision: 0, points: [], epochs: [], happenings: [] };
        const look = (): void => {
          const revision = feed.next({ byEpoch });
          seen = { ...apply(seen, feed.since(seen.revision, { ...VIEW, byEpoch })), revision };
        };
        for (const one of actions) {
          if (one.kind === 'steps') for (let i = 0; i < one.count; i++) feed.observe(stepEvent(++step), 0);
          else if (one.kind === 'back') step = Math.max(0, step - one.by);
          else if (one.kind === 'epoch') byEpoch = [...byEpoch, epochOf(byEpoch.length + 1)];
          else if (one.kind === 'epochs-gone') byEpoch = byEpoch.slice(0, -1);
          else if (one.kind === 'lost') feed.observe({ kind: 'worker-lost', cause }, 0);
          else if (one.kind === 'publish') feed.next({ byEpoch });
          else look();
        }
        look();
        const fresh = apply(
          { revision: 0, points: [], epochs: [], happenings: [] },
          feed.since(0, { ...VIEW, byEpoch }),
        );
        expect(seen.points).toEqual(fresh.points);
        expect(seen.epochs).toEqual(fresh.epochs);
        expect(seen.epochs).toEqual(byEpoch);
        expect(seen.happenings).toEqual(fresh.happenings);
      }),
      { numRuns: 200 },
    );
  });

  it('keeps the newest happenings, numbered on', () => {
    const feed = new Feed();
    for (let i = 0; i < HAPPENINGS_MAX + 5; i++) feed.observe({ kind: 'warning', message: `number ${i}` }, i);
    const { happenings } = feed.since(0, VIEW);
    expect([happenings.length, happenings[0]?.id, happenings[0]?.text]).toEqual([HAPPENINGS_MAX, 6, 'number 5']);
  });

  it('begins with what was on record before', () => {
    const feed = new Feed();
    feed.recall({ kind: 'run', resumedFromStep: null }, 1000);
    feed.recall({ kind: 'generation', generation: 1, members: ['w0', 'w1'], because: '2 of 2 workers ready' }, 2000);
    feed.recall({ kind: 'commits', to: 70 }, 3000);
    feed.recall({ kind: 'lost', worker: 'w1', step: 70, cause }, 4000);
    feed.recallStep({ step: 1, loss: 2, accuracy: 0.5, samples: 8, seconds: 1 });
    feed.observe({ kind: 'worker-joined', worker: 'w2', host: 'red', pid: 14 }, 5000);
    const { happenings, curve } = feed.since(0, VIEW);
    expect(happenings.map(({ t, kind, step, text }) => [t, kind, step, text])).toEqual([
      [1000, 'began', 0, 'A coordinator began the run.'],
      [2000, 'generation', 0, 'Generation 1 of 2 workers: 2 of 2 workers ready'],
      [4000, 'lost', 70, 'w1 on blue: killed by SIGKILL'],
      [5000, 'joined', 70, 'w2 on red, process 14'],
    ]);
    expect(curve?.points).toEqual([[1, 2, 2, 2, 0.5, 8]]);
  });
});
