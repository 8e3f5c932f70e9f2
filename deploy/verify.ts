// `lockstep verify RUN`: reads what a run has left and says whether it holds together; with --replay STEP that step is computed again
// (replay.ts), in a process of its own. The account goes to stdout, what is wrong to stderr, each with code, file and line.

import { readRun, verifyRun } from '../coordinator/main.ts';
import { inEngineProcess, isEngineProcess } from './engine-process.ts';
import { accountText, findingsText } from './terminal/verified.ts';

/** Returns the exit code: 0 where all is well, 1 where something is wrong. Throws E_RUN_NOT_FOUND, or what a replay can't do without. */
export async function verify(directory: string, step: number | null): Promise<number> {
  if (step !== null && !isEngineProcess()) return inEngineProcess(['verify', directory, '--replay', String(step)]);
  const run = await readRun(directory);
  const account = verifyRun(run);
  process.stdout.write(`${accountText(directory, account, { width: process.stdout.columns || 100 })}\n`);
  process.stderr.write(findingsText(account.findings));
  // The engine is loaded by who computes only.
  const wrong = step === null ? [] : await (await import('./replay.ts')).replay(directory, run, account, step);
  process.stderr.write(findingsText(wrong));
  return account.findings.length + wrong.length === 0 ? 0 : 1;
}
