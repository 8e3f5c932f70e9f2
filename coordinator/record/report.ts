// report.json in the run directory, and once more where --report says; each whole or not there.

import { statSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { LockstepError } from '../../protocol/errors.ts';
import type { RunReport } from '../../protocol/report.ts';
import { replaceFile } from './atomic.ts';

/** A pipe or a terminal, as in `--report /dev/stdout`: it is written to, not replaced. */
function isSpecial(path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  return found !== undefined && !found.isFile();
}

/** Throws E_USAGE when `further` can't be written; report.json is there by then. */
export async function writeReport(runDirectory: string, further: string | null, report: RunReport): Promise<void> {
  const text = `${JSON.stringify(report, null, 2)}\n`;
  const own = join(runDirectory, 'report.json');
  await replaceFile(own, text);
  if (further === null) return;
  const path = resolve(further);
  try {
    if (isSpecial(path)) return await writeFile(path, text);
    await mkdir(dirname(path), { recursive: true });
    return await replaceFile(path, text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new LockstepError('E_USAGE', `--report ${further} cannot be written: ${why}`, {
      remedy: `The report is in ${own}.`,
      cause,
    });
  }
}
