// Verification on a record that is written out by hand, whole and with damage of each kind. 10 samples in batches of 4: steps of 4, 4 and 2
// samples, two epochs; stopped after step 4, resumed from step 3, so that step 4 is done twice.

import { describe, expect, it } from 'vitest';
import { placeText } from '../../../coordinator/core/finding.ts';
import type { JournalLine, RecordedEntry } from '../../../coordinator/core/history.ts';
import { verifyRun, type RecordedRun } from '../../../coordinator/core/verify.ts';
import type { RunConfig } from '../../../protocol/run-config.ts';
import { CONFIG } from '../config.ts';

const digest = (step: number): string => String(step).repeat(64);
const commits = (generation: number, from: number, to: number, of: string | null = null): RecordedEntry => ({
  kind: 'commits',
  generation,
  from,
  to,
  digest: of,
});
const begin = (resumedFromStep: number | null, change: Partial<RunConfig> = {}): RecordedEntry => ({
  kind: 'run',
  config: { ...CONFIG, ...change },
  resumedFromStep,
});
const generation = (n: number, members: string[], shares?: number[][]): RecordedEntry => ({
  kind: 'generation',
  generation: n,
  members,
  ...(shares !== undefined && { shares }),
  because: 'b',
});
const epoch = (n: number): RecordedEntry => ({ kind: 'epoch', epoch: n, step: 3 * n, digest: digest(3 * n) });
const checkpoint = (step: number): RecordedEntry => ({
  kind: 'checkpoint',
  step,
  digest: digest(step),
  directory: `checkpoints/step-${step}`,
});

/** Line 1 is the first. */
const JOURNAL: readonly RecordedEntry[] = [
  begin(null),
  generation(1, ['w0', 'w1']),
  commits(1, 1, 2),
  commits(1, 3, 3, digest(3)),
  epoch(1),
  checkpoint(3),
  commits(1, 4, 4),
  { kind: 'failed', step: 4 },
  begin(3),
  generation(2, ['w0', 'w1', 'w2']),
  commits(2, 4, 6, digest(6)),
  epoch(2),
  checkpoint(6),
  { kind: 'finished', step: 6, digest: digest(6) },
];
const SAMPLES = [4, 4, 2, 4, 4, 2];
const UNASKED = { accuracy: 0, gradientNorm: 1 };

function recorded(change: Partial<RecordedRun> & { records?: readonly RecordedEntry[] } = {}): RecordedRun {
  const { records = JOURNAL, ...rest } = change;
  return {
    journal: records.map((record, i): JournalLine => ({ line: i + 1, record })),
    metrics: SAMPLES.map((samples, i) => ({ line: i + 1, step: i + 1, samples, loss: i / 8, ...UNASKED })),
    checkpoints: [3, 6].map((step) => ({ step, digest: digest(step), file: `checkpoints/step-${step}` })),
    report: { state: 'done', steps: 6, digest: digest(6), finalLoss: 5 / 8, reproducible: true },
    modelDigest: digest(6),
    isUnderWay: false,
    findings: [],
    notes: [],
    ...rest,
  };
}

/** The journal with line `line` replaced; by several, or none. */
const withLine = (line: number, ...instead: RecordedEntry[]): RecordedEntry[] =>
  JOURNAL.toSpliced(line - 1, 1, ...instead);

const found = (run: RecordedRun): string[] =>
  verifyRun(run).findings.map((finding) => `${finding.code} ${placeText(finding)}`);

describe('a whole record', () => {
  it('is found whole, and gives its account: steps, what was done anew, samples, who computed what', () => {
    const account = verifyRun(recorded());
    expect(account.findings).toEqual([]);
    expect(account.notes).toEqual([]);
    expect(account.history).toMatchObject({ parts: 2, steps: 6, redone: 1, end: 'finished' });
    expect(account.epochs).toEqual([
      { epoch: 1, steps: 3, samples: 10, isWhole: true },
      { epoch: 2, steps: 3, samples: 10, isWhole: true },
    ]);
    // Steps 1 to 3 by two workers, two microbatches each: of 1 sample each in a batch of 4; of 0, 1, 0, 1 in the short one. Then by
    // three: one microbatch, one, and two.
    expect(account.workers).toEqual([
      { worker: 'w0', microbatches: 9, samples: 7 },
      { worker: 'w1', microbatches: 9, samples: 8 },
      { worker: 'w2', microbatches: 6, samples: 5 },
    ]);
    expect([account.claims, [...account.digests.keys()]]).toEqual([9, [3, 6]]);
    expect([account.checkpoints, account.modelStep]).toEqual([[3, 6], 6]);
  });

  it('gives each microbatch to whom its generation shared it out', () => {
    const shares = [
      [1, 3],
      [0, 2],
    ];
    const account = verifyRun(recorded({ records: withLine(2, generation(1, ['w0', 'w1'], shares)) }));
    expect(account.findings).toEqual([]);
    // The short batch's two samples are in the microbatches 1 and 3.
    expect(account.workers.map(({ worker, samples }) => [worker, samples])).toEqual([
      ['w0', 8],
      ['w1', 7],
      ['w2', 5],
    ]);
  });

  it('takes what a generation did that nobody of it could tell of at the time, while the next one was behind it', () => {
    const lost = (worker: string): RecordedEntry => ({ kind: 'lost', worker });
    const alone = [begin(null), generation(1, ['w0']), commits(1, 1, 2), lost('w0'), generation(2, ['w1'])];
    // w1 did step 3 anew from an older state; w0, back as w2, had come to step 5 by then.
    const back = [commits(2, 3, 3, digest(3)), epoch(1), checkpoint(3), commits(1, 4, 5), generation(3, ['w1', 'w2'])];
    const rest = [commits(3, 6, 6, digest(6)), epoch(2), checkpoint(6), JOURNAL[13] as RecordedEntry];
    const account = verifyRun(recorded({ records: [...alone, ...back, ...rest] }));
    expect(account.findings).toEqual([]);
    expect(account.workers.map(({ worker, samples }) => [worker, samples])).toEqual([
      ['w0', 4 + 4 + 4 + 4],
      ['w1', 2 + 1],
      ['w2', 1],
    ]);
    // Of one that was in sight it is damage: a stale generation has acted.
    const inSight = [...alone.filter(({ kind }) => kind !== 'lost'), ...back, ...rest];
    expect(found(recorded({ records: inSight }))).toEqual(['E_RECORD_GENERATION journal.jsonl:8']);
  });

  it('takes a record that was restored from a checkpoint and the generations since, whose steps their workers told again', () => {
    const restored = [begin(null), generation(1, ['w0']), commits(1, 1, 3, digest(3)), epoch(1), checkpoint(3)];
    const since = [generation(2, ['w0', 'w1']), { kind: 'lost', worker: 'w1' } as const, generation(3, ['w0'])];
    const told = [begin(3), commits(2, 4, 4), commits(3, 5, 5), generation(4, ['w2']), commits(4, 6, 6, digest(6))];
    const records = [...restored, ...since, ...told, epoch(2), checkpoint(6), ...JOURNAL.slice(13)];
    expect(verifyRun(recorded({ records })).findings).toEqual([]);
  });

  it('tells what was lost with a coordinator and its workers from damage: the next one has said which steps nobody could tell of', () => {
    const told: RecordedEntry = { kind: 'unrecorded', from: 4, to: 5 };
    const records = JOURNAL.toSpliced(10, 1, told, commits(2, 6, 6, digest(6)));
    const metrics = recorded().metrics.filter(({ step }) => step < 4 || step > 5);
    const account = verifyRun(recorded({ records, metrics }));
    expect(account.findings).toEqual([]);
    expect(account.notes).toEqual([expect.stringMatching(/^2 steps up to 5: done, but on no record/)]);
    expect(account.epochs[1]).toEqual({ epoch: 2, steps: 3, samples: 10, isWhole: true });
    // The same without a word of it is damage, and so is a word of steps beyond a gap.
    expect(found(recorded({ records: records.toSpliced(10, 1), metrics }))).toContain(
      'E_RECORD_STEPS journal.jsonl:11',
    );
    const beyond = records.with(10, { kind: 'unrecorded', from: 5, to: 5 });
    expect(found(recorded({ records: beyond.toSpliced(6, 1), metrics }))).toContain('E_RECORD_STEPS journal.jsonl:10');
  });

  it('that says which step’s weights it ended with is held to those: a run may stop while it does steps again', () => {
    const records = [...JOURNAL.slice(0, 6), commits(1, 4, 4), { kind: 'stopped', step: 4 } as RecordedEntry];
    const metrics = recorded().metrics.slice(0, 4);
    const [first] = recorded().checkpoints;
    const stopped = { records, metrics, checkpoints: first === undefined ? [] : [first], modelDigest: digest(3) };
    const report = { state: 'stopped', steps: 4, finalLoss: 3 / 8, reproducible: true };
    expect(found(recorded({ ...stopped, report: { ...report, digest: digest(3), digestStep: 3 } }))).toEqual([]);
    const wrong = found(recorded({ ...stopped, report: { ...report, digest: digest(4), digestStep: 3 } }));
    expect(wrong).toEqual(['E_RECORD_DIGEST report.json']);
  });

  it('of a run that was killed is whole as far as it goes: what a second may have lost is a note', () => {
    const killed = recorded({ records: JOURNAL.slice(0, 7), report: null, modelDigest: null, checkpoints: [] });
    const account = verifyRun({ ...killed, metrics: killed.metrics.slice(0, 3) });
    expect(account.findings).toEqual([]);
    expect(account.history.end).toBeNull();
    expect(account.notes).toEqual([
      expect.stringContaining('ended without a word'),
      'metrics.jsonl: it has 3 steps, and journal.jsonl 4',
    ]);
  });

  it('of a run that is under way may have a checkpoint that its journal had not when it was read', () => {
    const records = JOURNAL.slice(0, 7);
    const run = recorded({ records, report: null, modelDigest: null, isUnderWay: true });
    expect(found(run)).toEqual([]);
    expect(found({ ...run, isUnderWay: false })).toEqual(['E_RECORD_STEPS checkpoints/step-6']);
  });

  it('of a generation that still steps while the next one is prepared is whole', () => {
    const records: RecordedEntry[] = [
      begin(null),
      generation(1, ['w0']),
      { kind: 'begin', generation: 1, step: 0, digest: digest(0) },
      commits(1, 1, 2),
      generation(2, ['w0', 'w1']),
      commits(1, 3, 3),
      { kind: 'begin', generation: 2, step: 3, digest: digest(3) },
    ];
    const rest = [epoch(1), commits(2, 4, 6), epoch(2), { kind: 'finished', step: 6, digest: digest(6) } as const];
    expect(found(recorded({ records: [...records, ...rest] }))).toEqual([]);
  });

  it('of a coordinator that another one took over from is whole: what its workers tell again was not done anew', () => {
    const records: RecordedEntry[] = [
      begin(null),
      generation(1, ['w0']),
      commits(1, 1, 2),
      generation(2, ['w0', 'w1']),
      commits(2, 3, 5),
      epoch(1),
      checkpoint(2),
      begin(2),
      commits(2, 3, 5),
      epoch(1),
      generation(3, ['w0']),
      { kind: 'begin', generation: 3, step: 5, digest: digest(5) },
      commits(3, 6, 6),
      epoch(2),
      { kind: 'finished', step: 6, digest: digest(6) },
    ];
    const account = verifyRun(recorded({ records }));
    expect(account.findings).toEqual([]);
    expect(account.history).toMatchObject({ parts: 2, redone: 0 });
    // Also where the checkpoint is from before the generation that died with it.
    const earlier = records
      .with(7, begin(1))
      .toSpliced(8, 0, commits(1, 2, 2))
      .with(6, checkpoint(1));
    expect(found(recorded({ records: earlier }))).toEqual([]);
    // Nobody is left who did the first steps; those who took the state over go on from it.
    expect(found(recorded({ records: records.with(7, begin(0)).toSpliced(6, 1) }))).toEqual([]);
    // Who comes back late tells of steps that are being done again.
    const late = [
      ...records.slice(0, 7),
      begin(2),
      generation(3, ['w1']),
      commits(3, 3, 3),
      commits(2, 4, 5),
      epoch(1),
    ];
    const rest = [commits(3, 6, 6), epoch(2), { kind: 'finished', step: 6, digest: digest(6) } as const];
    expect(found(recorded({ records: [...late, ...rest] }))).toEqual([]);
    // An epoch that ends while there is no coordinator may have been evaluated for nobody.
    const unheard = verifyRun(recorded({ records: records.filter(({ kind }, i) => kind !== 'epoch' || i > 9) }));
    expect(unheard.findings).toEqual([]);
    expect(unheard.notes).toEqual([
      expect.stringContaining('1 epoch ended while a worker or the coordinator was lost'),
    ]);
  });

  it('where engines of other bits took part, or the job was changed, need not come to the same bits when a step is done anew', () => {
    const other = 'f'.repeat(64);
    const records = [...withLine(7, commits(1, 4, 4, other))];
    records[10] = commits(2, 4, 4, digest(4));
    records.splice(11, 0, commits(2, 5, 6));
    expect(found(recorded({ records }))).toEqual(['E_RECORD_DIGEST journal.jsonl:11']);
    const report = { state: 'done', steps: 6, digest: digest(6), finalLoss: 5 / 8, reproducible: false };
    expect(found(recorded({ records, report }))).toEqual([]);
    const changed = records.with(8, { ...begin(3), jobChangedFrom: 'e'.repeat(64) } as RecordedEntry);
    expect(found(recorded({ records: changed }))).toEqual([]);
  });
});

describe('damage is found, by file and line', () => {
  it.each<[string, readonly RecordedEntry[], string[]]>([
    [
      'a commit that is missing',
      withLine(4),
      [
        'E_RECORD_STEPS journal.jsonl:4',
        'E_RECORD_STEPS journal.jsonl:5',
        'E_RECORD_STEPS journal.jsonl:6',
        'E_RECORD_SAMPLES journal.jsonl:3',
      ],
    ],
    [
      'a step that is committed twice',
      withLine(4, commits(1, 2, 3, digest(3))),
      ['E_RECORD_STEPS journal.jsonl:4', 'E_RECORD_SAMPLES journal.jsonl:4'],
    ],
    [
      'steps in the wrong direction',
      withLine(11, commits(2, 6, 4)),
      [
        'E_RECORD_STEPS journal.jsonl:11',
        'E_RECORD_STEPS journal.jsonl:12',
        'E_RECORD_STEPS journal.jsonl:13',
        'E_RECORD_STEPS journal.jsonl:14',
        'E_RECORD_STEPS metrics.jsonl:6',
        'E_RECORD_STEPS checkpoints/step-6',
        'E_RECORD_STEPS report.json',
        'E_RECORD_DIGEST report.json',
        'E_RECORD_DIGEST model/model.json',
      ],
    ],
    [
      'a generation whose number was used before',
      withLine(10, generation(1, ['w0', 'w1', 'w2'])),
      [
        'E_RECORD_GENERATION journal.jsonl:10',
        'E_RECORD_GENERATION journal.jsonl:11',
        'E_RECORD_SAMPLES journal.jsonl:11',
        'E_RECORD_SAMPLES journal.jsonl:11',
        'E_RECORD_SAMPLES journal.jsonl:11',
        'E_RECORD_SAMPLES journal.jsonl:11',
      ],
    ],
    [
      'commits of a generation that nobody began',
      withLine(3, commits(7, 1, 2)),
      // What nobody computed has used no sample.
      [
        'E_RECORD_GENERATION journal.jsonl:3',
        'E_RECORD_SAMPLES journal.jsonl:3',
        'E_RECORD_SAMPLES journal.jsonl:3',
        'E_RECORD_SAMPLES journal.jsonl:4',
      ],
    ],
    [
      'commits of a generation that was over',
      withLine(11, commits(2, 4, 4), generation(3, ['w0']), commits(3, 5, 5), commits(2, 6, 6)),
      ['E_RECORD_GENERATION journal.jsonl:14'],
    ],
    [
      'a generation that begins after a step that was not done',
      withLine(10, generation(2, ['w0', 'w1', 'w2']), { kind: 'begin', generation: 2, step: 5, digest: digest(5) }),
      ['E_RECORD_STEPS journal.jsonl:11', 'E_RECORD_STEPS journal.jsonl:12', 'E_RECORD_SAMPLES journal.jsonl:12'],
    ],
    [
      'a generation that begins two steps back',
      JOURNAL.toSpliced(7, 0, generation(3, ['w0']), { kind: 'begin', generation: 3, step: 2, digest: digest(2) }),
      ['E_RECORD_STEPS journal.jsonl:9', 'E_RECORD_GENERATION journal.jsonl:12'],
    ],
    [
      'a generation that begins, and nobody has formed',
      withLine(7, { kind: 'begin', generation: 9, step: 3, digest: digest(3) }),
      ['E_RECORD_GENERATION journal.jsonl:7', 'E_RECORD_STEPS journal.jsonl:8'],
    ],
    [
      'a generation that begins with other weights',
      withLine(10, generation(2, ['w0', 'w1', 'w2']), { kind: 'begin', generation: 2, step: 3, digest: digest(4) }),
      ['E_RECORD_DIGEST journal.jsonl:11'],
    ],
    ['a member that is there twice', withLine(2, generation(1, ['w0', 'w0'])), ['E_RECORD_GENERATION journal.jsonl:2']],
    [
      'a generation of nobody',
      withLine(2, generation(1, [])),
      [
        'E_RECORD_GENERATION journal.jsonl:2',
        'E_RECORD_SAMPLES journal.jsonl:3',
        'E_RECORD_SAMPLES journal.jsonl:3',
        'E_RECORD_SAMPLES journal.jsonl:4',
        'E_RECORD_SAMPLES journal.jsonl:4',
      ],
    ],
    [
      'shares in which a microbatch is missing',
      withLine(
        2,
        generation(
          1,
          ['w0', 'w1'],
          [
            [0, 1],
            [1, 2],
          ],
        ),
      ),
      ['E_RECORD_GENERATION journal.jsonl:2', ...[3, 3, 4, 4].map((line) => `E_RECORD_SAMPLES journal.jsonl:${line}`)],
    ],
    [
      'more members than microbatches',
      withLine(2, generation(1, ['a', 'b', 'c', 'd', 'e'])),
      ['E_RECORD_GENERATION journal.jsonl:2'],
    ],
    [
      'a resumed part that goes on after a step that was not done',
      withLine(9, begin(5)),
      ['E_RECORD_STEPS journal.jsonl:9', 'E_RECORD_STEPS journal.jsonl:11', 'E_RECORD_SAMPLES journal.jsonl:11'],
    ],
    ['a second run in the same record', withLine(9, begin(null)), ['E_RECORD_STEPS journal.jsonl:9']],
    ['another seed on the way', withLine(9, begin(3, { seed: 2 })), ['E_RECORD_SAMPLES journal.jsonl:9']],
    [
      'an epoch that ends in the wrong place',
      withLine(12, { ...epoch(2), step: 5 } as RecordedEntry),
      ['E_RECORD_STEPS journal.jsonl:12'],
    ],
    ['an epoch that ends twice', withLine(12, epoch(2), epoch(2)), ['E_RECORD_STEPS journal.jsonl:13']],
    ['an epoch whose end is not on record', withLine(12), ['E_RECORD_STEPS journal.jsonl:11']],
    ['a checkpoint of a step that was not done', withLine(6, checkpoint(5)), ['E_RECORD_STEPS journal.jsonl:6']],
    [
      'an end before the last step',
      withLine(14, { kind: 'finished', step: 5, digest: digest(5) }),
      ['E_RECORD_STEPS journal.jsonl:14'],
    ],
    ['a record that does not begin with the run', JOURNAL.slice(1), ['E_RECORD_DAMAGED journal.jsonl:1']],
    [
      'a digest that an epoch and its commit do not share',
      withLine(5, { ...epoch(1), digest: 'e'.repeat(64) } as RecordedEntry),
      ['E_RECORD_DIGEST journal.jsonl:5'],
    ],
  ])('%s', (_, records, expected) => {
    expect(found(recorded({ records }))).toEqual(expected);
  });

  it.each<[string, Partial<RecordedRun>, string[]]>([
    [
      'a step that metrics.jsonl lacks',
      { metrics: recorded().metrics.toSpliced(2, 1) },
      ['E_RECORD_STEPS metrics.jsonl:4'],
    ],
    [
      'a step that is there twice',
      { metrics: recorded().metrics.toSpliced(2, 0, { line: 9, step: 2, samples: 4, loss: 0, ...UNASKED }) },
      ['E_RECORD_STEPS metrics.jsonl:9'],
    ],
    [
      'last steps that metrics.jsonl lacks',
      { metrics: recorded().metrics.slice(0, 5) },
      ['E_RECORD_STEPS metrics.jsonl:5'],
    ],
    [
      'a step of more samples than its batch has',
      { metrics: recorded().metrics.with(2, { line: 3, step: 3, samples: 4, loss: 0.25, ...UNASKED }) },
      ['E_RECORD_SAMPLES metrics.jsonl:3'],
    ],
    [
      'a checkpoint of other weights',
      { checkpoints: [{ step: 3, digest: digest(4), file: 'checkpoints/step-3' }] },
      ['E_RECORD_DIGEST checkpoints/step-3'],
    ],
    [
      'a report of other weights',
      { report: { state: 'done', steps: 6, digest: digest(5), finalLoss: 5 / 8, reproducible: true } },
      ['E_RECORD_DIGEST report.json'],
    ],
    [
      'a report of another end',
      { report: { state: 'failed', steps: 5, digest: digest(6), finalLoss: 5 / 8, reproducible: true } },
      ['E_RECORD_STEPS report.json', 'E_RECORD_STEPS report.json'],
    ],
    [
      'a final loss that is another in its last bit',
      { report: { state: 'done', steps: 6, digest: digest(6), finalLoss: 5 / 8 + 2 ** -53, reproducible: true } },
      ['E_RECORD_DIGEST report.json'],
    ],
    ['a model of other weights', { modelDigest: digest(5) }, ['E_RECORD_DIGEST model/model.json']],
    [
      'a model of an earlier step, where the run is finished',
      { modelDigest: digest(3) },
      ['E_RECORD_DIGEST model/model.json'],
    ],
    [
      'what could not be read',
      { findings: [{ code: 'E_RECORD_DAMAGED', file: 'journal.jsonl', line: 3, message: 'x' }] },
      ['E_RECORD_DAMAGED journal.jsonl:3'],
    ],
  ])('%s', (_, change, expected) => {
    expect(found(recorded(change))).toEqual(expected);
  });
});
