// Replays a Dockerfile without Docker: each instruction in its order, in directory trees that begin empty. A stage's tree has what COPY puts
// there and what its RUN commands make, plus the machine's own /usr and /etc in place of the base image; commands run in it by chroot, with
// the Node of the base image's version. Wants root, and a kernel that lets it mount.
//
// Not replayed: apt-get (told of instead), and what set-up would fetch, which is there already: hard links to the user's cache.

import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { DockerfileParser, type Copy, type Instruction } from 'dockerfile-ast';
import { cacheDirectory } from '../../deploy/setup/cache.ts';
import { CHECKOUT, trackedFiles, type Ran } from './tools.ts';

/** Of the machine, in every tree. */
const MACHINE = ['usr', 'etc', 'dev'];
const LINKS = ['bin', 'sbin', 'lib', 'lib64'];

interface Stage {
  readonly root: string;
  workdir: string;
  user: string;
  readonly env: Map<string, string>;
}

export interface Replay {
  /** What was installed by apt-get, had it been. */
  readonly packages: readonly string[];
  readonly bases: readonly string[];
  readonly entrypoint: readonly string[];
  readonly healthcheck: string;
  readonly user: string;
  readonly env: ReadonlyMap<string, string>;
  /** The last stage's tree. */
  readonly root: string;
  /** Runs a command there, as the image's user. */
  run(command: readonly string[], env?: Readonly<Record<string, string>>): Ran;
  remove(): void;
}

/** The files that a builder would be sent: those of git that .dockerignore, whose last fitting line decides, leaves. */
export function contextFiles(files: readonly string[], ignore: string): string[] {
  const rules = ignore.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  const covers = (rule: string, file: string): boolean => rule === '*' || file === rule || file.startsWith(`${rule}/`);
  return files.filter((file) => {
    let isIgnored = false;
    for (const rule of rules) {
      const isKept = rule.startsWith('!');
      if (covers(isKept ? rule.slice(1) : rule, file)) isIgnored = !isKept;
    }
    return !isIgnored;
  });
}

/** Throws what went wrong in it, with the instruction. @param node the binary that stands for the base image's */
export function replay(file: string, node: string): Replay {
  const place = join(cacheDirectory(), 'test');
  mkdirSync(place, { recursive: true });
  const scratch = mkdtempSync(join(place, 'docker-'));
  execFileSync('chmod', ['755', scratch]);
  const context = contextFiles(trackedFiles(), readFileSync(join(CHECKOUT, '.dockerignore'), 'utf8'));
  const stages: Stage[] = [];
  const named = new Map<string, Stage>();
  const found = { packages: [] as string[], bases: [] as string[], entrypoint: [] as string[], healthcheck: '' };
  const remove = (): void => rmSync(scratch, { recursive: true, force: true });

  const present = (): Stage => {
    const stage = stages.at(-1);
    if (stage === undefined) throw new Error('there is no FROM before it');
    return stage;
  };
  const from = (base: string, name: string | undefined): void => {
    const root = join(scratch, `stage-${stages.length}`);
    const before = named.get(base);
    if (before === undefined) {
      found.bases.push(base);
      for (const directory of ['proc', 'tmp', 'root', ...MACHINE])
        mkdirSync(join(root, directory), { recursive: true });
      for (const link of LINKS) symlinkSync(`usr/${link}`, join(root, link));
      execFileSync('chmod', ['1777', join(root, 'tmp')]);
    } else execFileSync('cp', ['-al', before.root, root]);
    const stage: Stage = {
      root,
      workdir: before?.workdir ?? '/',
      user: before?.user ?? '0:0',
      env: new Map(before?.env),
    };
    stages.push(stage);
    if (name !== undefined) named.set(name, stage);
  };
  const copy = (instruction: Copy): void => {
    const stage = present();
    const words = instruction.getArguments().map((one) => one.getValue());
    const source = instruction.getFromFlag()?.getValue() ?? null;
    const to = words.pop() ?? '';
    const target = join(stage.root, resolve(stage.workdir, to));
    for (const word of words) {
      if (source !== null) {
        const origin = named.get(source);
        if (origin === undefined) throw new Error(`there is no stage ${source}`);
        mkdirSync(dirname(target), { recursive: true });
        execFileSync('cp', ['-al', join(origin.root, word), target]);
        continue;
      }
      const files = word === '.' ? context : context.filter((name) => name === word || name.startsWith(`${word}/`));
      if (files.length === 0) throw new Error(`${word} is not in the context`);
      for (const name of files) {
        const into = words.length > 1 || word === '.' || to.endsWith('/') ? join(target, name) : target;
        mkdirSync(dirname(into), { recursive: true });
        rmSync(into, { force: true });
        copyFileSync(join(CHECKOUT, name), into);
      }
    }
  };
  const runPiece = (stage: Stage, piece: string): void => {
    if (piece.startsWith('rm -rf /var/lib/apt/lists') || piece === 'apt-get update') return;
    const installed = /^apt-get install --yes --no-install-recommends (.*)$/.exec(piece)?.[1];
    if (installed !== undefined) {
      found.packages.push(...installed.split(' '));
      return;
    }
    const cache = stage.env.get('LOCKSTEP_CACHE');
    if (cache !== undefined) linkCache(join(stage.root, cache));
    const env = {
      ...process.env,
      HOME: homedir(),
      npm_config_prefer_offline: 'true',
      ...Object.fromEntries(stage.env),
    };
    const { code, stdout, stderr } = within(stage, node, ['bash', '-c', piece], env);
    if (code !== 0) throw new Error(`RUN ${piece}: code ${code}\n${stdout}\n${stderr}`);
  };
  const apply = (instruction: Instruction): void => {
    const words = instruction.getArguments().map((one) => one.getValue());
    switch (instruction.getKeyword()) {
      case 'FROM':
        from(words[0] ?? '', words[1] === 'AS' ? words[2] : undefined);
        break;
      case 'WORKDIR':
        present().workdir = resolve(present().workdir, words[0] ?? '/');
        mkdirSync(join(present().root, present().workdir), { recursive: true });
        break;
      case 'COPY':
        copy(instruction as Copy);
        break;
      case 'ENV':
      case 'ARG':
        for (const word of words) present().env.set(...(word.split('=', 2) as [string, string]));
        break;
      case 'USER':
        present().user = words[0] ?? '';
        break;
      case 'RUN':
        for (const piece of words.join(' ').split(' && ')) runPiece(present(), piece);
        break;
      case 'ENTRYPOINT':
        found.entrypoint = jsonOf(words);
        break;
      case 'HEALTHCHECK':
        found.healthcheck = words.join(' ');
        break;
      case 'CMD':
      case 'EXPOSE':
        break;
      default:
        throw new Error('the replay does not know it');
    }
  };
  for (const instruction of DockerfileParser.parse(readFileSync(file, 'utf8')).getInstructions()) {
    try {
      apply(instruction);
    } catch (cause) {
      remove();
      throw new Error(`${instruction.getInstruction()} ${instruction.getArgumentsContent() ?? ''}: ${String(cause)}`, {
        cause,
      });
    }
  }
  const last = present();
  return {
    ...found,
    user: last.user,
    env: last.env,
    root: last.root,
    run: (command, env = {}) => {
      const own = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin', HOME: '/nonexistent' };
      return within(last, node, command, { ...own, ...Object.fromEntries(last.env), ...env });
    },
    remove,
  };
}

/** `["a", "b"]`, which the parser gives as words. */
function jsonOf(words: readonly string[]): string[] {
  return words.flatMap((word) => [...word.matchAll(/"([^"]*)"/g)].map(([, text = '']) => text));
}

/** What set-up has fetched and built for this user, as if it had just done so there. */
function linkCache(to: string): void {
  if (existsSync(join(to, 'engine'))) return;
  const engine = `tensorflow-cpu-2.21.0-linux-x64`;
  for (const part of [join('engine', engine), join('data', 'cifar-10')]) {
    mkdirSync(dirname(join(to, part)), { recursive: true });
    execFileSync('cp', ['-al', join(cacheDirectory(), part), join(to, part)]);
  }
}

/** In mounts of its own, which end with the command. */
const ENTER = `
set -euo pipefail
root=$1 workdir=$2 user=$3 node=$4 home=$5; shift 5
for name in ${MACHINE.join(' ')}; do mount --rbind "/$name" "$root/$name"; done
mount --types proc proc "$root/proc"
mount --bind "$node" "$root/usr/bin/node"
if [ "$user" = 0:0 ]; then mount --rbind "$home" "$root/root"; fi
exec chroot --userspec="$user" "$root" bash -c 'cd "$0" && exec "$@"' "$workdir" "$@"`;

function within(
  { root, workdir, user }: Stage,
  node: string,
  command: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Ran {
  const words = ['--mount', '--propagation', 'private', 'bash', '-c', ENTER, 'enter'];
  const ended = spawnSync('unshare', [...words, root, workdir, user, node, homedir(), ...command], {
    encoding: 'utf8',
    env: { ...env, HOME: user === '0:0' ? '/root' : (env['HOME'] ?? '/nonexistent') },
    timeout: 120_000,
  });
  return { code: ended.status, stdout: ended.stdout, stderr: ended.stderr };
}
