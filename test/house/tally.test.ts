// The suite's own count: what vitest and the checks say, as written-out reports, and what the last line must then be.

import { describe, expect, test } from 'vitest';
import { lastLine, tallyOfCheck, tallyOfVitest, total } from './tally.ts';

const reportOf = (files: Record<string, readonly string[]>, failedFiles: readonly string[] = []): string =>
  JSON.stringify({
    testResults: Object.entries(files).map(([name, statuses]) => ({
      name,
      status: failedFiles.includes(name) || statuses.includes('failed') ? 'failed' : 'passed',
      assertionResults: statuses.map((status) => ({ status, title: 'a rule' })),
    })),
  });

describe('vitest', () => {
  test('counts passed and failed tests over all files', () => {
    const report = reportOf({ 'a.test.ts': ['passed', 'failed'], 'b.test.ts': ['passed'] });
    expect(tallyOfVitest({ code: 1 }, report)).toEqual({ passed: 2, failed: 1, notes: [] });
  });

  test('a file that fails before its first test is one failure', () => {
    const report = reportOf({ 'a.test.ts': ['passed'], 'broken.test.ts': [] }, ['broken.test.ts']);
    const tally = tallyOfVitest({ code: 1 }, report);
    expect(tally).toEqual({ passed: 1, failed: 1, notes: ['broken.test.ts failed outside of its tests'] });
  });

  test('a file whose clean-up fails after passed tests is one failure', () => {
    const report = reportOf({ 'a.test.ts': ['passed', 'passed'] }, ['a.test.ts']);
    expect(tallyOfVitest({ code: 1 }, report)).toMatchObject({ passed: 2, failed: 1 });
  });

  test('a bad end without a failed test is one failure: an error that no test caught', () => {
    const tally = tallyOfVitest({ code: 1 }, reportOf({ 'a.test.ts': ['passed'] }));
    expect(tally).toEqual({ passed: 1, failed: 1, notes: ['vitest ended with code 1 without a failed test'] });
  });

  test.each([
    ['no report', null],
    ['half a report', '{"testResults": [{"na'],
    ['a report of another shape', '{"tests": 12}'],
  ])('a crash with %s is one failure', (_, report) => {
    const tally = tallyOfVitest({ signal: 'SIGSEGV' }, report);
    expect(tally).toEqual({ passed: 0, failed: 1, notes: ['vitest was killed by SIGSEGV and left no report'] });
  });

  test('ending well without any test is a failure', () => {
    expect(tallyOfVitest({ code: 0 }, reportOf({}))).toEqual({ passed: 0, failed: 1, notes: ['vitest found no test'] });
  });

  test('a test that is left out is not passed, and is told', () => {
    const report = reportOf({ 'a.test.ts': ['passed', 'skipped', 'todo', 'pending'] });
    expect(tallyOfVitest({ code: 0 }, report)).toEqual({ passed: 1, failed: 0, notes: ['3 tests were left out'] });
  });
});

describe('checks and the last line', () => {
  test('a check is one test', () => {
    expect(tallyOfCheck('lint', { code: 0 })).toEqual({ passed: 1, failed: 0, notes: [] });
    expect(tallyOfCheck('lint', { code: 1 })).toEqual({ passed: 0, failed: 1, notes: ['lint ended with code 1'] });
    expect(tallyOfCheck('lint', { signal: 'SIGKILL' })).toMatchObject({ passed: 0, failed: 1 });
  });

  test('the last line adds up all parts', () => {
    const parts = [
      tallyOfCheck('types', { code: 2 }),
      tallyOfCheck('lint', { code: 0 }),
      { passed: 40, failed: 2, notes: ['x'] },
    ];
    expect(lastLine(total(parts))).toBe('41 passed, 3 failed');
    expect(total(parts).notes).toEqual(['types ended with code 2', 'x']);
  });
});
