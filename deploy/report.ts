// `lockstep report RUN`: the run as one HTML file (report-page/), next to its report.json or where --output says.

import { mkdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { readStory, replaceFile } from '../coordinator/main.ts';
import { LockstepError } from '../protocol/errors.ts';
import { reportPage } from './report-page/page.ts';

/** Throws E_RUN_NOT_FOUND, E_RECORD_DAMAGED, or E_USAGE where the file can't be written. */
export async function report(directory: string, output: string | null): Promise<number> {
  const story = await readStory(directory);
  const path = output === null ? join(story.directory, 'report.html') : resolve(output);
  try {
    await mkdir(dirname(path), { recursive: true });
    await replaceFile(path, reportPage(story, Date.now()));
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new LockstepError('E_USAGE', `${path} cannot be written: ${why}`, {
      remedy: 'Give another place with --output.',
      cause,
    });
  }
  process.stdout.write(`${path}\n`);
  return 0;
}
