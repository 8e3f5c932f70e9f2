// The commands and their help texts, as commander wants them. It only splits the line into words here and finds misspelt flags
// and commands; values, environment and defaults are the table's (flags.ts), so that a refusal can name where a value came from.

import { Command, Option } from 'commander';
import { DEFAULT_EXPIRY, ENGINE_WORDS, FLAGS, type FlagSpec } from './flags.ts';
import { LAUNCH_FLAGS } from './launch-flags.ts';

/** The words of one command, before any value is looked at. */
export interface Words {
  readonly command: string;
  readonly args: readonly string[];
  /** Flags given on the line, by camel-cased name; `true` for a switch. */
  readonly given: Readonly<Record<string, string | true>>;
}

const EXAMPLES = `
Examples:
  npx lockstep train cifar10-cnn --workers 4 --epochs 3
  npx lockstep train ./my-job.ts --batch-size 128 --report report.json
  npx lockstep train cifar10-cnn --resume            go on from the last checkpoint
  npm start -- --max-steps 40 --seed 7               the same as: train cifar10-cnn ...

Each flag can be set in the environment: --max-steps is LOCKSTEP_MAX_STEPS. A flag wins.
Ctrl-C finishes the step in flight and leaves a checkpoint; a second one gives up at once.
Exit codes: 0 done, 1 failed in running, 2 bad input, 130 interrupted (after a checkpoint).`;

const TRAIN = `Trains JOB on this machine: a coordinator and its workers, each a process, started and supervised.

JOB is a built-in job (cifar10-cnn) or the path of a .ts or .js file; jobs/cifar10-cnn.ts is one to copy.`;

const COORDINATOR = `The coordinator alone. It waits for --workers N of them, prints where they join, and trains.

Start each worker, on this machine or another, with \`lockstep worker --coordinator URL\`, where URL is the
coordinator's address, or with --transport nats the NATS server's with the run's name: nats://HOST:PORT/RUN.`;

const LAUNCH = `Trains JOB on several machines: the coordinator here, workers on the hosts, started over ssh and supervised.

Each host has Lockstep (--remote-dir) and the job's file, and lets you in by ssh without a password.
What it lacks of engine and data it fetches itself. A token is made for the run and goes over ssh's
standard input. A host that fails is started again, and the others train on; Ctrl-C ends everything
everywhere.`;

const LAUNCH_EXAMPLES = `
Examples:
  npx lockstep launch -H gpu1:4,gpu2:4 cifar10-cnn --epochs 10
  npx lockstep launch --hostfile hosts.txt --nnodes 2:4 ./my-job.ts       from two hosts up to four of those in the file
  npx lockstep launch --host-discovery-script ./hosts.sh cifar10-cnn      hosts come and go while it trains`;

const WORKER = `One worker: joins the coordinator at URL, computes and ends with the run.

The job's code does not travel: its file must lie on this machine, too, with the same content.

With --nproc-per-node it starts and watches so many of them, each with its GPU or its share of the cores.`;

const TLS_CA =
  "certificates that it trusts: an authority's, or the coordinator's own (default: those that Node trusts)";

const WORKER_EXAMPLES = `
Examples:
  npx lockstep worker --coordinator http://10.0.0.5:29400 --token-file token
  npx lockstep worker --coordinator https://10.0.0.5:29400 --token-file token --tls-cert cert.pem --tls-key key.pem
                     one certificate, the same on every machine, is trusted without --tls-ca`;

const VERIFY = `Replays a run's record: every sample of every epoch used exactly once, steps consecutive, no generation's number
used twice, digests consistent, every checkpoint whole. Changes nothing; of a run that is under way it reads what there is.`;

const REPORT = `Writes a run as one HTML file to hand to a colleague: curves, epochs, where the time went, who took part, the configuration
and environment, the digest. It has no script, asks nothing of any host, and is printed well. Of a run that is under way it shows what there is.`;

const TOKEN = `Makes a new key, whose holder may do everything with the run that is started with it; or, from a key, a token that may less and expires.

observe: read the page, /metrics, /sd, /api/*, the model. work: join as a worker. control: stop the run (POST /api/stop).`;

const TOKEN_EXAMPLES = `
Examples:
  npx lockstep token --out key                                           a new key, for --token-file key
  npx lockstep token --token-file key --scope work --out worker-token    for the workers' --token-file, for ${DEFAULT_EXPIRY}
  npx lockstep token --token-file key --scope observe --expires 30d --out scrape-token

A token is never given on a command line, where others can list it: by a file, or LOCKSTEP_TOKEN_FILE=FILE.`;

const VERIFY_EXAMPLES = `
Examples:
  npx lockstep verify runs/cifar10-cnn-20261126-170000
  npx lockstep verify runs/cifar10-cnn-20261126-170000 --replay 782

Exit codes: 0 all is well, 1 something is wrong: each with its code, file and line.`;

const TOP = `
Start here:
  npm start                                          train the tutorial's CNN on CIFAR-10
  npx lockstep train --help                          all flags of a training`;

function withTrainFlags(command: Command): Command {
  const specs: readonly FlagSpec<unknown>[] = Object.values(FLAGS);
  for (const spec of specs) {
    command.addOption(new Option(spec.syntax, spec.help).helpGroup(`${spec.group}:`).hideHelp(spec.hidden === true));
  }
  return command.addHelpText('after', EXAMPLES);
}

/** The program; `found` gets the words of the command that the line names. */
export function buildProgram(version: string, found: (words: Words) => void): Command {
  const program = new Command('lockstep')
    .description('Data-parallel training for TensorFlow.js on Node: the same bits whatever the number of workers.')
    .version(version, '-V, --version', 'print the version')
    .helpCommand(false)
    .enablePositionalOptions()
    .addHelpText('after', TOP);
  const add = (name: string, description: string, summary: string, options: { hidden?: boolean } = {}): Command => {
    const command = program
      .command(name, options)
      .description(description)
      .summary(summary)
      .allowExcessArguments(false);
    return command.action(() => found({ command: name, args: command.args, given: command.opts() }));
  };

  withTrainFlags(add('train', TRAIN, 'train on this machine').argument('<job>', 'a built-in job or a .ts or .js file'));
  withTrainFlags(
    add('coordinator', COORDINATOR, 'the coordinator alone').argument('<job>', 'a built-in job or a .ts or .js file'),
  );
  const launch = add('launch', LAUNCH, 'train on several machines, over ssh').argument(
    '<job>',
    'a built-in job or a .ts or .js file',
  );
  for (const [syntax, help] of LAUNCH_FLAGS) {
    const option = new Option(syntax, help).helpGroup('Hosts:');
    // One text of all of them, a line each.
    if (syntax.startsWith('--ssh-option')) {
      option.argParser<string>((value, before?: string) => (before === undefined ? value : `${before}\n${value}`));
    }
    launch.addOption(option);
  }
  withTrainFlags(launch.addHelpText('after', LAUNCH_EXAMPLES));
  add('worker', WORKER, 'one worker, that joins a coordinator')
    .option('--coordinator <url>', 'the address that the coordinator printed')
    .option('--job <job>', "this machine's copy of the job (default: the name or path that the coordinator says)")
    .option('--adapter <names>', 'see `lockstep train --help`')
    .option('--token-file <file>', "holds the run's token, when the coordinator asks for one")
    .option(
      '--nats-url <url>',
      'user and password, or token, for the server that --coordinator names; better as LOCKSTEP_NATS_URL',
    )
    .option('--nats-creds <file>', 'a NATS credentials file')
    .option('--engine <name>', `${ENGINE_WORDS} (default: the one that the coordinator says)`)
    .option(
      '--peer-listen <host:port>',
      'where its peers reach it (default: the address from which it reaches the coordinator, a free port)',
    )
    .option('--local-transport <name>', 'see `lockstep train --help`')
    .option(
      '--term-grace <seconds>',
      'after a SIGTERM train on for so long, for a coordinator that is told to stop with it (default: 0, end at once)',
    )
    .option(
      '--data-from <place>',
      'where a data set comes from that is not in the cache: registry (the sources that it names), coordinator, or auto, from the coordinator where those can not be reached (default: auto)',
    )
    .option('--tls-ca <file>', TLS_CA)
    .option(
      '--tls-cert <file>',
      'the certificate that it shows to peers on other machines; for an https:// coordinator',
    )
    .option('--tls-key <file>', 'the key of --tls-cert')
    .option('--tls-client-ca <file>', 'peers and scrapers must show a certificate of this authority')
    .option(FLAGS.nprocPerNode.syntax, 'start and watch so many workers; auto: one a GPU, or else one a CPU core')
    .option(FLAGS.restartLimit.syntax, 'with --nproc-per-node: how often in a row one that died is started anew')
    .option(FLAGS.pin.syntax, 'with --nproc-per-node: see `lockstep train --help`')
    .addOption(new Option('--launched').hideHelp())
    .addHelpText('after', WORKER_EXAMPLES);
  add('status', 'What a run that is under way is doing.', 'what a run is doing')
    .argument('[url]', "the coordinator's address (default: that of the newest run in runs/)")
    .option('--watch', 'keep showing it, until the run ends')
    .option('--token-file <file>', "a token of the run, where it listens beyond this machine (default: the run's own)")
    .option('--tls-ca <file>', TLS_CA)
    .option('--tls-cert <file>', 'the certificate to show where one is asked for')
    .option('--tls-key <file>', 'the key of --tls-cert');
  add('token', TOKEN, 'make a token')
    .option(
      '--token-file <file>',
      "the run's key, from which one of --scope is made (default: none, a new key is made)",
    )
    .option('--scope <scope>', 'observe, work or control: what the token is for; each includes those before it')
    .option('--expires <time>', `e.g. 90m, 12h or 30d from now, or never (default: ${DEFAULT_EXPIRY})`)
    .option('--out <file>', 'write it there, for this user alone (mode 600); there must be no such file yet')
    .addHelpText('after', TOKEN_EXAMPLES);
  add('evaluate', "Test loss, accuracy and confusion matrix of a run's model.", "how well a run's model does")
    .argument('<run>', 'a run directory')
    .option('--predictions <file>', 'write a line of JSON for each test sample: its index, label and predicted class');
  add('report', REPORT, 'a run as one HTML page')
    .argument('<run>', 'a run directory')
    .option('--output <file>', 'where to (default: report.html in the run directory)');
  add('verify', VERIFY, "whether a run's record holds together")
    .argument('<run>', 'a run directory')
    .option('--replay <step>', 'compute this step again, from the checkpoint before it, and compare its bits')
    .addHelpText('after', VERIFY_EXAMPLES);
  add('doctor', 'What this machine has of what training needs, and what is missing.', 'what this machine has').option(
    '--nats-url <url>',
    'also try to reach this NATS server',
  );
  add('setup', 'Installs what training needs, without training. `train` does it, too.', 'install what training needs')
    .option('--engine <name>', `${ENGINE_WORDS} (default: auto)`)
    .option('--job <job>', 'the job whose data set is fetched (default: cifar10-cnn)');
  // For `npm test` and `npm run bench`; what follows is theirs.
  for (const name of ['test', 'bench']) {
    add(name, '', '', { hidden: true })
      .argument('[args...]')
      .helpOption(false)
      .allowUnknownOption()
      .passThroughOptions();
  }
  return program;
}
