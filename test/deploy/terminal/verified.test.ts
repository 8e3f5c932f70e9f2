// What `lockstep verify` says, of accounts that are made by hand.

import { expect, test } from 'vitest';
import { verifyRun, type Finding, type RecordedRun } from '../../../coordinator/main.ts';
import { accountText, findingsText } from '../../../deploy/terminal/verified.ts';
import { runConfigSchema } from '../../../protocol/run-config.ts';

const config = runConfigSchema.parse({
  run: 'r',
  job: { kind: 'built-in', name: 'j', sha256: '0'.repeat(64) },
  jobName: 'j',
  seed: 1,
  globalBatch: 4,
  microbatches: 4,
  epochs: 10,
  steps: 20,
  learningRate: 0.1,
  augment: false,
  trainSamples: 8,
  testSamples: 0,
  engine: 'e',
  precision: 'float32',
  transport: 'ws',
  checkpointEverySteps: 0,
});

/** Generations of one step each, that were killed in the end. */
function killedAfter(generations: number): RecordedRun {
  const all = Array.from({ length: generations }, (_, i) => i + 1);
  const records = all.flatMap((n) => [
    { kind: 'generation', generation: n, members: ['w0', `w${n}`], because: 'b' } as const,
    { kind: 'commits', generation: n, from: n, to: n, digest: null } as const,
    ...(n % 2 === 0 ? [{ kind: 'epoch', epoch: n / 2, step: n, digest: 'd'.repeat(64) } as const] : []),
  ]);
  return {
    journal: [{ kind: 'run', config, resumedFromStep: null } as const, ...records].map((record, i) => ({
      line: i + 1,
      record,
    })),
    metrics: all.map((n) => ({ line: n, step: n, samples: 4, loss: 1, accuracy: 1, gradientNorm: 1 })),
    checkpoints: [],
    report: null,
    modelDigest: null,
    isUnderWay: false,
    findings: [],
    notes: [],
  };
}

test('of a short run: each generation, epoch and worker, and what can not be known', () => {
  expect(accountText('runs/r', verifyRun(killedAfter(3)), { width: 80 })).toBe(
    [
      'runs/r: the record holds together',
      '',
      '  end            not on record, after 3 of 20 steps',
      '  begun          once',
      '  generations    1: 1 step by w0, w1',
      '                 2: 1 step by w0, w2',
      '                 3: 1 step by w0, w3',
      '  epochs         1: 8 of 8 samples, each of them once',
      '                 2: 4 of 8 samples, each of them once',
      '  workers        w0: 6 samples, in 6 microbatches',
      '                 w1: 2 samples, in 2 microbatches',
      '                 w2: 2 samples, in 2 microbatches',
      '                 w3: 2 samples, in 2 microbatches',
      '  digests        of 1 step, in 1 place',
      '  checkpoints    none',
      '  note           its last coordinator ended without a word: up to a second of',
      '                 its record may be missing',
    ].join('\n'),
  );
});

test('of a long one the last generations, and how many were before', () => {
  const text = accountText('r', verifyRun(killedAfter(20)), { width: 80 });
  expect(text).toContain('  generations    8 before these\n                 9: 1 step by w0, w9\n');
});

test('what is wrong is counted in the account, and told one a line by code, file and line', () => {
  const findings: Finding[] = [
    { code: 'E_RECORD_STEPS', file: 'journal.jsonl', line: 7, message: 'step 3 is committed again' },
    { code: 'E_CHECKPOINT_CORRUPT', file: 'checkpoints/step-4', line: null, message: 'weights.bin was altered' },
  ];
  const account = verifyRun({ ...killedAfter(2), findings });
  expect(accountText('r', account, { width: 80 }).split('\n')[0]).toBe('r: 2 things wrong with the record');
  expect(findingsText(account.findings)).toBe(
    'lockstep: E_RECORD_STEPS: journal.jsonl:7: step 3 is committed again\n' +
      'lockstep: E_CHECKPOINT_CORRUPT: checkpoints/step-4: weights.bin was altered\n',
  );
});
