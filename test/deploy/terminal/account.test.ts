// What stays on the screen, as it is read.

import { describe, expect, test } from 'vitest';
import {
  configurationText,
  engineText,
  epochHeading,
  epochText,
  rootCauseText,
} from '../../../deploy/terminal/account.ts';
import { errorRecord, renderError } from '../../../deploy/terminal/error.ts';
import { LossCurve } from '../../../deploy/terminal/loss-curve.ts';
import { summaryText } from '../../../deploy/terminal/summary.ts';
import { LockstepError } from '../../../protocol/errors.ts';
import type { RootCause } from '../../../protocol/run-event.ts';
import { report } from './a-run.ts';

const at = (width: number): { width: number; color: boolean; unicode: boolean } => ({
  width,
  color: false,
  unicode: true,
});

test('the configuration is aligned, with defaults marked and long values wrapped', () => {
  const settings = [
    { name: 'workers', value: '2', isDefault: true },
    { name: 'augmentation', value: 'flip left-right, rotate within 10 degrees', isDefault: true },
    { name: 'seed', value: '7', isDefault: false },
  ];
  expect(configurationText('Lockstep 0.1.0', settings, at(80))).toBe(
    [
      'Lockstep 0.1.0',
      '  workers       2 (default)',
      '  augmentation  flip left-right, rotate within 10 degrees (default)',
      '  seed          7',
    ].join('\n'),
  );
  expect(configurationText('Lockstep 0.1.0', settings, at(60)).split('\n')).toEqual([
    'Lockstep 0.1.0',
    '  workers       2 (default)',
    '  augmentation  flip left-right, rotate within 10 degrees',
    '                (default)',
    '  seed          7',
  ]);
});

test('the engine: name, library, device, threads, the head of the fingerprint', () => {
  const { fingerprint, precision: _, ...engine } = report().engine;
  expect(engineText({ kind: 'worker-ready', worker: 'w0', engine, fingerprint })).toBe(
    'tensorflow (TensorFlow 2.21.0) on CPU, 1 thread a worker, fingerprint 9f86d081884c',
  );
});

test('epochs are rows of a table, and what was not evaluated has a dash', () => {
  const [first, second] = report().byEpoch;
  if (first === undefined || second === undefined) throw new Error('two epochs');
  expect([
    epochHeading(),
    epochText(first, 10),
    epochText({ ...second, epoch: 10, testLoss: null, testAccuracy: null, seconds: 3723 }, 10),
  ]).toEqual([
    '    epoch      loss  test loss  test accuracy     img/s         time',
    '     1/10    1.5000     1.2000         55.0 %     4,237       11.8 s',
    '    10/10    1.1000          -              -     4,312   1 h 02 min',
  ]);
});

describe('the root cause of a failure', () => {
  const cause: RootCause = {
    who: 'w1',
    rank: 1,
    host: 'box',
    pid: 4001,
    exitCode: null,
    signal: 'SIGKILL',
    code: null,
    message: 'the process was killed by SIGKILL',
    lastLines: ['step 12', '\u001B[31mError:\u001B[0m cannot allocate memory for a tensor of that size'],
    logFile: 'runs/r/logs/worker-1.log',
  };

  test('is one box: who, how it ended, the first error, the log, the last lines', () => {
    expect(rootCauseText(cause, at(80)).split('\n')).toEqual([
      '┌─ Root cause (first observed failure) ─────────────────────┐',
      '│ worker    w1, rank 1, host box, pid 4001                  │',
      '│ process   killed by SIGKILL                               │',
      '│ error     the process was killed by SIGKILL               │',
      '│ log       runs/r/logs/worker-1.log                        │',
      '│                                                           │',
      '│ its last lines:                                           │',
      '│   step 12                                                 │',
      '│   Error: cannot allocate memory for a tensor of that size │',
      '└───────────────────────────────────────────────────────────┘',
    ]);
  });

  test('fits a narrow terminal', () => {
    const lines = rootCauseText(cause, at(40)).split('\n');
    expect(lines).toEqual([
      '┌─ Root cause (first observed failure) ┐',
      '│ worker    w1, rank 1, host box, pid  │',
      '│           4001                       │',
      '│ process   killed by SIGKILL          │',
      '│ error     the process was killed by  │',
      '│           SIGKILL                    │',
      '│ log       runs/r/logs/worker-1.log   │',
      '│                                      │',
      '│ its last lines:                      │',
      '│   step 12                            │',
      '│   Error: cannot allocate memory for  │',
      '│     a tensor of that size            │',
      '└──────────────────────────────────────┘',
    ]);
  });

  test('says only what is known', () => {
    const unknown = {
      ...cause,
      rank: null,
      pid: null,
      signal: null,
      code: 'E_FINGERPRINT',
      message: 'other bits',
      lastLines: [],
      logFile: null,
    };
    expect(rootCauseText(unknown, at(80)).split('\n')).toEqual([
      '┌─ Root cause (first observed failure) ┐',
      '│ worker    w1, host box               │',
      '│ error     E_FINGERPRINT: other bits  │',
      '└──────────────────────────────────────┘',
    ]);
    expect(rootCauseText({ ...unknown, exitCode: 1 }, at(80))).toContain('│ process   exit code 1 ');
  });
});

describe('the closing summary', () => {
  const remains = { runDirectory: 'runs/r', hasCheckpoint: true, losses: [2.3, 1.2, 0.61] };

  test('of a run that is done', () => {
    expect(summaryText(report(), remains, at(100)).split('\n')).toEqual([
      'Done after 1,564 steps, 2 of 2 epochs, in 30.9 s',
      '',
      '  test accuracy  71.2 % (loss 0.8412, 10,000 samples)',
      '  training loss  2.300 █▃▁ 0.610',
      '  speed          4,275 images/s, 2 workers',
      '  a step         10.00 ms, of which',
      '    data        █▎                         5.0 %     0.50 ms',
      '    compute     ███████████████████▎      80.0 %     8.00 ms',
      '    wait        ▋                          2.5 %     0.25 ms',
      '    all-reduce  ██▍                       10.0 %     1.00 ms',
      '    apply       ▋                          2.5 %     0.25 ms',
      '  gradients      184 MB between the workers, over shared memory',
      '  peak memory    492 MB the largest worker, 121 MB the coordinator',
      '  digest         9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08',
      '  reproducible   the same digest for any number of workers with seed 7, this job and this engine',
      '',
      '  runs/r/model/model.json       the model: tf.loadLayersModel opens it',
      '  runs/r/report.json            all of the above, for programs',
      '  npx lockstep evaluate runs/r  accuracy by class',
    ]);
  });

  test('of one over NATS names the server, and whether a copy of the record is there', () => {
    const said = (bucket: string | null): string => {
      const over = { transport: 'nats', traffic: [{ transport: 'nats' as const, bytes: 184_000_000 }] };
      const run = report({ ...over, nats: { server: 'nats://h:4222', bucket } });
      return summaryText(run, remains, at(100));
    };
    expect(said('lockstep-r')).toContain('184 MB between the workers, over NATS');
    expect(said('lockstep-r')).toContain('NATS           nats://h:4222; a copy of the record in its bucket lockstep-r');
    expect(said(null)).toContain('NATS           nats://h:4222; no copy of the record: no JetStream');
  });

  test('of one that was stopped, with a directory that needs quotes, and after a loss', () => {
    const stopped = report({
      state: 'stopped',
      epochs: 10,
      testAccuracy: null,
      testLoss: null,
      reproducible: false,
      stepsLost: 12,
      workersLost: 1,
    });
    const text = summaryText(stopped, { ...remains, runDirectory: 'my runs/r/', losses: [] }, at(80));
    expect(text.split('\n')[0]).toBe('Stopped after 1,564 steps, 2 of 10 epochs, in 30.9 s');
    expect(text).not.toMatch(/test accuracy|training loss/);
    expect(text).toContain(
      '\n  workers lost   1, in 1 generation; microbatches computed again: 0\n  steps lost     12: nobody had them any more; done again\n',
    );
    expect(text).toContain('\n  reproducible   no: workers with different engines took part\n');
    const jobChanges = [{ step: 1200, from: 'a', to: 'b' }];
    expect(summaryText({ ...stopped, jobChanges }, { ...remains, losses: [] }, at(80))).toContain(
      '\n  reproducible   no: the job was changed after step 1,200\n',
    );
    expect(text.split('\n').slice(-4)).toEqual([
      '  my runs/r/model/model.json          the model: tf.loadLayersModel opens it',
      '  my runs/r/report.json               all of the above, for programs',
      "  npx lockstep evaluate 'my runs/r'   accuracy by class",
      "  ... --resume --run-dir 'my runs/r'  goes on from the last checkpoint",
    ]);
  });

  test('of one that failed before its first checkpoint: no model, nothing to resume', () => {
    const failed = report({ state: 'failed', digest: null, byEpoch: [], testAccuracy: null, testLoss: null, steps: 1 });
    const text = summaryText(failed, { ...remains, hasCheckpoint: false }, at(80));
    expect(text.split('\n')[0]).toBe('Failed after 1 step, 0 of 2 epochs, in 30.9 s');
    expect(text).not.toMatch(/digest|reproducible|evaluate|resume|model\.json/);
  });

  test('of one whose gradients were compressed names the form', () => {
    const text = summaryText(report({ gradientCompression: 'fp16' }), remains, at(80));
    expect(text).toContain('over shared memory\n  compression    fp16 with error feedback\n');
  });

  test('a model is promised by no run that failed, whatever else is known', () => {
    expect(summaryText(report({ state: 'failed' }), remains, at(80))).not.toContain('model.json');
  });

  test('in a narrow terminal the digest and the files stay in one piece', () => {
    const lines = summaryText(report(), remains, at(50)).split('\n');
    expect(lines).toContain('  digest         9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08');
    expect(lines.slice(-6)).toEqual([
      '  runs/r/model/model.json',
      '      the model: tf.loadLayersModel opens it',
      '  runs/r/report.json',
      '      all of the above, for programs',
      '  npx lockstep evaluate runs/r',
      '      accuracy by class',
    ]);
  });

  test.each([60, 80, 200])('no line of it is wider than %i columns but those that are copied', (width) => {
    const long = summaryText(report(), remains, at(width))
      .split('\n')
      .filter((line) => line.length > width);
    expect(long.filter((line) => !/digest|runs\/r/.test(line))).toEqual([]);
  });
});

test('a loss curve of any length is kept in bounded memory, in order, with its mean', () => {
  const curve = new LossCurve();
  for (let i = 0; i < 100_000; i++) curve.add(i);
  expect(curve.points.length).toBeLessThanOrEqual(2048);
  expect(curve.points.length).toBeGreaterThan(1024);
  expect(curve.points.slice(0, 2)).toEqual([31.5, 95.5]);
});

describe('errors', () => {
  test('ours: code, message, remedy', () => {
    const error = new LockstepError('E_USAGE', '--workers 0: no\u001B[2J', { remedy: 'Give more.' });
    expect(renderError(error, { color: false })).toBe('lockstep: E_USAGE: --workers 0: no\n  -> Give more.\n');
    expect(renderError(new LockstepError('E_HASH', 'x'), { color: false })).toBe('lockstep: E_HASH: x\n');
    expect(errorRecord(error)).toEqual({
      kind: 'error',
      code: 'E_USAGE',
      msg: '--workers 0: no\u001B[2J',
      remedy: 'Give more.',
    });
  });

  test('bugs: the stack, and what to send', () => {
    const error = new TypeError('x is undefined', { cause: new Error('deeper') });
    error.stack = 'TypeError: x is undefined\n    at f (file.ts:1:2)';
    expect(renderError(error, { color: false })).toBe(
      [
        'lockstep: this is a bug in Lockstep, not in what you asked for',
        '  TypeError: x is undefined',
        '      at f (file.ts:1:2)',
        '  caused by deeper',
        '  -> Please report it with these lines and what `npx lockstep doctor` prints.',
        '',
      ].join('\n'),
    );
    expect(renderError('a word', { color: false })).toContain('\n  a word\n');
  });
});
