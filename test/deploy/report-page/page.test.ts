// The page that `lockstep report` writes: what it says of a run, and that nothing of the run's becomes markup.

import { describe, expect, it } from 'vitest';
import type { RunStory } from '../../../coordinator/main.ts';
import { eventsOf } from '../../../deploy/report-page/events.ts';
import { reportPage } from '../../../deploy/report-page/page.ts';
import { CONFIG } from '../../coordinator/config.ts';
import { report } from '../terminal/a-run.ts';

const AT = '2026-11-26T20:00:00.000Z';
const CAUSE = {
  who: 'w1',
  rank: 1,
  host: 'here',
  pid: 7,
  exitCode: null,
  signal: 'SIGKILL',
  code: 'E_WORKER',
  message: 'killed by <SIGKILL>',
  lastLines: [],
  logFile: null,
};
const RECORDS: RunStory['records'] = [
  { t: AT, kind: 'run', lockstep: '0.1.0', config: CONFIG, resumedFromStep: null },
  { t: AT, kind: 'generation', generation: 1, members: ['w0', 'w1'], because: '2 of 2 workers ready' },
  { t: AT, kind: 'begin', generation: 1, step: 0, digest: 'a' },
  { t: AT, kind: 'lost', worker: 'w1', step: 3, cause: CAUSE },
  { t: AT, kind: 'generation', generation: 2, members: ['w0'], because: 'w1 is lost' },
  { t: AT, kind: 'begin', generation: 2, step: 3, digest: 'b', distrusted: true },
  { t: AT, kind: 'commits', generation: 2, from: 4, to: 6, digest: null },
  { t: AT, kind: 'epoch', step: 6, epoch: 1, digest: 'c', loss: 1.25, testLoss: 1.5, testAccuracy: 0.625 },
  { t: AT, kind: 'finished', step: 6, digest: 'c'.repeat(64) },
];
const REPORT = report();
const STORY: RunStory = {
  directory: '/runs/<a>',
  records: RECORDS,
  steps: [1, 2, 3, 4, 5, 6].map((step) => ({ step, at: 0, samples: 64, seconds: 0.1, loss: 2 / step, accuracy: 0.5 })),
  report: REPORT,
  isUnderWay: false,
  unread: 0,
};

describe('eventsOf', () => {
  it('tells who began, who was lost and why, who went on', () => {
    expect(eventsOf(RECORDS).map(({ step, what, detail }) => [step, what, detail])).toEqual([
      [null, 'a coordinator begins', ''],
      [0, 'generation 1: 2 workers', 'w0, w1 (2 of 2 workers ready)'],
      [3, 'w1 is lost', 'E_WORKER: killed by <SIGKILL>'],
      [
        3,
        'generation 2: 1 worker',
        'what came after this step is done again: somebody had wrong bits; w0 (w1 is lost)',
      ],
      [6, 'epoch 1 ends', 'loss 1.2500, test accuracy 62.5 %'],
      [6, 'done', 'cccccccccccccccc'],
    ]);
  });
});

describe('the page', () => {
  it('says how it ended, how well, and the digest whole', () => {
    const page = reportPage(STORY, Date.parse(AT));
    expect(page).toContain('<span class="outcome done">Done</span>');
    expect(page).toContain('<code>9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08</code>');
    expect(page).toContain('2026-11-26 20:00:00 UTC');
  });

  it('shows every text of the run’s as text, and asks nothing of anybody', () => {
    const page = reportPage({ ...STORY, report: { ...REPORT, job: '<script>alert(1)</script>' } }, 0);
    expect(page).not.toMatch(/<script|<a\b|<img|<link|url\(|@import|http(s?):\/\//i);
    expect(page).toContain('&lt;script&gt;alert(1)&lt;/script&gt;');
    expect(page).toContain('killed by &lt;SIGKILL&gt;');
    expect(page).toContain('<code>/runs/&lt;a&gt;</code>');
  });

  it('of a run that is under way, or was cut off, is made from its record alone', () => {
    expect(reportPage({ ...STORY, report: null, isUnderWay: true }, 0)).toContain('>Under way</span> after 6 steps');
    expect(reportPage({ ...STORY, report: null }, 0)).toContain('>Cut off</span> after 6 steps');
    expect(reportPage({ ...STORY, report: null, steps: [], records: [] }, 0)).toContain('<h1>a run</h1>');
  });

  it('leaves out the middle of a long history, and says so', () => {
    const [begun, ...rest] = RECORDS;
    const lost = rest.find((record) => record.kind === 'lost');
    if (begun === undefined || lost === undefined) throw new Error('there are such records');
    const page = reportPage({ ...STORY, records: [begun, ...Array.from({ length: 250 }, () => lost)] }, 0);
    expect(page).toContain('51 events in between are left out');
    expect(page.split('w1 is lost').length - 1).toBe(199);
  });
});
