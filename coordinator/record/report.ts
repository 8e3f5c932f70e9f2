// report.json in the run directory, and once more where --report says; each whole or not there.

import { statSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { LockstepError } from '../../protocol/errors.ts';
import type { RunReport } from '../../protocol/report.ts';
import { isDiskFailure, replaceFile } from './atomic.ts';

/** A pipe or a terminal, as in `--report /dev/stdout`: it is written to, not replaced. */
function isSpecial(path: string): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  return found !== undefined && !found.isFile();
}

const ownPath = (runDirectory: string): string => join(runDirectory, 'report.json');
const textOf = (report: RunReport): string => `${JSON.stringify(report, null, 2)}\n`;

/** Writes report.json. Throws what the disk says. */
export function writeReport(runDirectory: string, report: RunReport): Promise<void> {
  return replaceFile(ownPath(runDirectory), textOf(report));
}

/** Writes it to another file, too. Throws E_USAGE when that can't be written, or what the disk says when it has no room. */
export async function copyReport(runDirectory: string, further: string, report: RunReport): Promise<void> {
  const path = resolve(further);
  try {
    if (isSpecial(path)) return await writeFile(path, textOf(report));
    await mkdir(dirname(path), { recursive: true });
    return await replaceFile(path, textOf(report));
  } catch (cause) {
    if (isDiskFailure(cause)) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new LockstepError('E_USAGE', `--report ${further} cannot be written: ${why}`, {
      remedy: `The report is in ${ownPath(runDirectory)}.`,
      cause,
    });
  }
}
