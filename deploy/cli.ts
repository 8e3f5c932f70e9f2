// From a parsed command to its action. Actions are imported when they are called for, so that each command starts fast and
// `doctor` works on a machine where half of the rest does not.

import type { DataSetDefinition } from '../jobs/contract.ts';
import { exitCodeOf, LockstepError } from '../protocol/errors.ts';
import { DEFAULT_PORT } from './options/flags.ts';
import { parseCommand, type ParsedCommand } from './options.ts';
import { renderError } from './terminal/error.ts';
import { LOCKSTEP_VERSION } from './version.ts';

/** Runs one command line; returns the exit code of the contract. Errors are told on stderr. */
export async function main(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<number> {
  try {
    return await act(parseCommand(argv, env, LOCKSTEP_VERSION), argv);
  } catch (error) {
    process.stderr.write(renderError(error, { color: process.stderr.isTTY && env['NO_COLOR'] === undefined }));
    return exitCodeOf(error);
  }
}

async function act(command: ParsedCommand, argv: readonly string[]): Promise<number> {
  switch (command.kind) {
    case 'print':
      process.stdout.write(command.text);
      return 0;
    case 'train':
      return (await import('./train.ts')).train(command.options, argv.slice(1));
    case 'coordinator':
      return (await import('./run-coordinator.ts')).runCoordinatorCommand(command.options);
    case 'worker': {
      const { coordinator, job, tokenFile } = command.flags;
      const { runWorkerCommand } = await import('./run-worker.ts');
      await runWorkerCommand({ coordinator, job: job ?? null, tokenFile: tokenFile ?? null });
      return 0;
    }
    case 'status':
      return (await import('./status.ts')).status(command.url ?? null);
    case 'evaluate':
      return (await import('./evaluate.ts')).evaluate(command.run);
    case 'verify':
      throw new LockstepError('E_NOT_SUPPORTED', '`lockstep verify` is not in this version of Lockstep', {
        remedy: 'journal.jsonl and metrics.jsonl in the run directory hold the record.',
      });
    case 'doctor':
      return (await import('./doctor.ts')).doctor({
        natsUrl: command.natsUrl ?? null,
        listen: { host: '127.0.0.1', port: DEFAULT_PORT },
        dataSets: await builtInDataSets(),
      });
    case 'setup':
      await setUpJob(command.job);
      process.stdout.write('Everything that training needs is set up.\n');
      return 0;
    case 'test':
      await setUpJob('cifar10-cnn');
      return (await import('../test/run.ts')).runTests(command.args);
    case 'bench':
      return (await import('../bench/run.ts')).runBench(command.args);
  }
}

async function setUpJob(name: string): Promise<void> {
  const { loadJob } = await import('./job-file.ts');
  const { setUp } = await import('./setup/steps.ts');
  await setUp({ dataSet: (await loadJob(name)).definition.data });
}

async function builtInDataSets(): Promise<DataSetDefinition[]> {
  const { builtInJobs, loadJob } = await import('./job-file.ts');
  const jobs = await Promise.all(builtInJobs().map(loadJob));
  return [...new Set(jobs.map((job) => job.definition.data))];
}
