// From a parsed command to its action. Actions are imported when they are called for, so that each command starts fast and
// `doctor` works on a machine where half of the rest does not.

import type { DataSetDefinition } from '../jobs/contract.ts';
import { exitCodeOf } from '../protocol/errors.ts';
import { DEFAULT_PORT } from './options/flags.ts';
import { parseCommand, type ParsedCommand, type TrainOptions } from './options.ts';
import { errorRecord, renderError } from './terminal/error.ts';
import { plain, wantsColor } from './terminal/text.ts';
import { readTls } from './tls-files.ts';
import { LOCKSTEP_VERSION } from './version.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** Help is set for a terminal of at least and at most so many columns. */
const HELP_WIDTH = { least: 60, most: 100 } as const;

/** What writing to a terminal, a pipe or a log may meet without harm to what is told of. */
const UNTOLD: ReadonlySet<string> = new Set(['EPIPE', 'ENOSPC', 'EDQUOT', 'EFBIG', 'EROFS', 'EIO']);

/** Runs one command line; returns the exit code of the contract. Errors are told on stderr. */
export async function main(argv: readonly string[], env: Environment): Promise<number> {
  const tell = (error: unknown): 1 | 2 => {
    process.stderr.write(errorText(error, isJson(argv, env), env));
    return exitCodeOf(error);
  };
  // A reader that went away (`| head`), or a log on a disk without room, is no reason to stop training.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (!UNTOLD.has(error.code ?? '')) throw error;
    });
  }
  process.on('uncaughtException', (error) => process.exit(tell(error)));
  try {
    const width = Math.max(HELP_WIDTH.least, Math.min(HELP_WIDTH.most, process.stdout.columns || HELP_WIDTH.most));
    return await act(parseCommand(argv, env, LOCKSTEP_VERSION, width), argv);
  } catch (error) {
    return tell(error);
  }
}

/** Whether --log-format json is wished; asked of the bare words, since what failed may be their parse. */
function isJson(argv: readonly string[], env: Environment): boolean {
  const at = argv.lastIndexOf('--log-format');
  const given = at >= 0 ? argv[at + 1] : argv.find((word) => word.startsWith('--log-format='))?.split('=', 2)[1];
  return (given ?? env['LOCKSTEP_LOG_FORMAT']) === 'json';
}

function errorText(error: unknown, json: boolean, env: Environment): string {
  if (json) return `${JSON.stringify({ level: 'error', time: new Date().toISOString(), ...errorRecord(error) })}\n`;
  return renderError(error, { color: wantsColor(env, process.stderr.isTTY) });
}

/** The first sign of life: the next one comes when the data are checked and the coordinator has started. */
function announce({ job, flags }: TrainOptions): void {
  if (flags.logLevel !== 'debug' && flags.logLevel !== 'info') return;
  const msg = `checking the engine and the data of ${plain(job)}`;
  const line = { level: 'info', time: new Date().toISOString(), kind: 'set-up', msg };
  process.stdout.write(flags.logFormat === 'json' ? `${JSON.stringify(line)}\n` : `set-up     ${msg}\n`);
}

async function act(command: ParsedCommand, argv: readonly string[]): Promise<number> {
  switch (command.kind) {
    case 'print':
      process.stdout.write(command.text);
      return 0;
    case 'train':
      announce(command.options);
      return (await import('./train.ts')).train(command.options, argv.slice(1));
    case 'coordinator':
      return (await import('./run-coordinator.ts')).runCoordinatorCommand(command.options);
    case 'launch':
      announce(command.options);
      return (await import('./launch/launch.ts')).launch(command.options, command.launch, command.args);
    case 'host':
      return (await import('./launch/supervisor.ts')).superviseHost();
    case 'worker': {
      const { nprocPerNode } = command.flags;
      if (nprocPerNode !== undefined) return (await import('./run-workers.ts')).runWorkers(command.flags, nprocPerNode);
      const {
        coordinator,
        natsCreds,
        job,
        tokenFile,
        engine,
        adapter,
        peerListen,
        localTransport,
        termGrace,
        dataFrom,
      } = command.flags;
      const { runWorkerCommand } = await import('./run-worker.ts');
      return runWorkerCommand({
        coordinator,
        natsCreds,
        job: job ?? null,
        tokenFile: tokenFile ?? null,
        engine: engine === 'auto' ? null : engine,
        adapter: adapter ?? null,
        peerListen: peerListen ?? null,
        localTransport,
        dataFrom,
        tls: readTls(command.flags, Date.now()),
        termGrace,
        tlsCa: command.flags.tlsCa,
      });
    }
    case 'status':
      return (await import('./status.ts')).status(
        command.url ?? null,
        readTls(command, Date.now()),
        command.watch,
        command.tokenFile ?? null,
      );
    case 'token':
      return (await import('./token.ts')).tokenCommand(command.from, command.out ?? null, Date.now());
    case 'evaluate':
      return (await import('./evaluate.ts')).evaluate(command.run, command.predictions ?? null);
    case 'report':
      return (await import('./report.ts')).report(command.run, command.output ?? null);
    case 'verify':
      return (await import('./verify.ts')).verify(command.run, command.replay ?? null);
    case 'doctor':
      return (await import('./doctor.ts')).doctor({
        natsUrl: command.natsUrl ?? null,
        listen: { host: '127.0.0.1', port: DEFAULT_PORT },
        dataSets: await builtInDataSets(),
      });
    case 'setup':
      await setUpJob(command.job, command.engine);
      process.stdout.write('Everything that training needs is set up.\n');
      return 0;
    case 'test':
      await setUpJob('cifar10-cnn', 'tensorflow');
      await setUpJob('cifar10-cnn', 'webgpu');
      return (await import('../test/run.ts')).runTests(command.args);
    case 'bench':
      return (await import('../bench/run.ts')).runBench(command.args);
  }
}

/** `engine`: a name, or `auto` for the one that training would take. */
async function setUpJob(name: string, engine: string): Promise<void> {
  const { loadJob } = await import('./job-file.ts');
  const { setUp } = await import('./setup/steps.ts');
  const chosen = engine === 'auto' ? (await (await import('./engines.ts')).chooseEngineHere('auto')).engine : engine;
  await setUp({ dataSet: (await loadJob(name)).definition.data, engine: chosen });
}

async function builtInDataSets(): Promise<DataSetDefinition[]> {
  const { builtInJobs, loadJob } = await import('./job-file.ts');
  const jobs = await Promise.all(builtInJobs().map(loadJob));
  return [...new Set(jobs.map((job) => job.definition.data))];
}
