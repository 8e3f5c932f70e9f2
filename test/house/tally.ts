// Counts what the parts of the suite say, so that the last line covers all of them. A part that crashes, or that ends badly
// without naming a failed test, is one failure: silence never counts as success. Pure: run.ts starts the parts.

import { z } from 'zod';

export interface Tally {
  readonly passed: number;
  readonly failed: number;
  /** What a reader must know beyond the counts: crashes, tests that were left out. */
  readonly notes: readonly string[];
}

/** How a child process ended: an exit code, or the signal that killed it. */
export type End = { readonly code: number } | { readonly signal: string };

const fileSchema = z.object({
  name: z.string(),
  status: z.string(),
  assertionResults: z.array(z.object({ status: z.string() })),
});
const reportSchema = z.object({ testResults: z.array(fileSchema) });

function wordsOf(end: End): string {
  return 'code' in end ? `ended with code ${end.code}` : `was killed by ${end.signal}`;
}

/** A check is one test. */
export function tallyOfCheck(name: string, end: End): Tally {
  if ('code' in end && end.code === 0) return { passed: 1, failed: 0, notes: [] };
  return { passed: 0, failed: 1, notes: [`${name} ${wordsOf(end)}`] };
}

/** From vitest's end and the text of its JSON report; null when it left none. */
export function tallyOfVitest(end: End, report: string | null): Tally {
  const files = parse(report);
  if (files === null) return { passed: 0, failed: 1, notes: [`vitest ${wordsOf(end)} and left no report`] };

  const notes: string[] = [];
  const statuses = files.flatMap((file) => file.assertionResults.map(({ status }) => status));
  const passed = statuses.filter((status) => status === 'passed').length;
  let failed = statuses.filter((status) => status === 'failed').length;
  const leftOut = statuses.length - passed - failed;
  if (leftOut > 0) notes.push(`${leftOut} tests were left out`);

  for (const { name, status, assertionResults } of files) {
    if (status !== 'failed' || assertionResults.some((one) => one.status === 'failed')) continue;
    failed++;
    notes.push(`${name} failed outside of its tests`);
  }
  const isWell = 'code' in end && end.code === 0;
  if (!isWell && failed === 0) {
    failed++;
    notes.push(`vitest ${wordsOf(end)} without a failed test`);
  }
  if (statuses.length === 0) {
    failed = Math.max(failed, 1);
    notes.push('vitest found no test');
  }
  return { passed, failed, notes };
}

function parse(report: string | null): z.infer<typeof fileSchema>[] | null {
  if (report === null) return null;
  try {
    return reportSchema.parse(JSON.parse(report)).testResults;
  } catch {
    return null;
  }
}

export function total(tallies: readonly Tally[]): Tally {
  return {
    passed: tallies.reduce((sum, { passed }) => sum + passed, 0),
    failed: tallies.reduce((sum, { failed }) => sum + failed, 0),
    notes: tallies.flatMap(({ notes }) => notes),
  };
}

/** The suite's last line. */
export function lastLine({ passed, failed }: Tally): string {
  return `${passed} passed, ${failed} failed`;
}
