// report.json in the run directory, and once more where --report says.

import { mkdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { RunReport } from '../../protocol/report.ts';
import { replaceFile } from './atomic.ts';

export async function writeReport(runDirectory: string, further: string | null, report: RunReport): Promise<void> {
  const text = `${JSON.stringify(report, null, 2)}\n`;
  await replaceFile(join(runDirectory, 'report.json'), text);
  if (further === null) return;
  await mkdir(dirname(resolve(further)), { recursive: true });
  await replaceFile(resolve(further), text);
}
