// Gets an archive from the first source that yields it: through a package registry's own client (npm, pip), which knows the
// user's mirrors and proxies, or over HTTPS. Every archive is verified by its published hash, whatever brought it.
//
// An HTTPS download goes on where a killed one stopped; a client's download is made aside, whole or not at all.

import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import type { Source } from '../../jobs/contract.ts';
import { LockstepError } from '../../protocol/errors.ts';

const PROGRESS_MS = 500;

export interface Fetched {
  readonly kind: Source['kind'];
  readonly path: string;
}

export type Progress = (bytes: number) => void;

/** What a source is called in messages. */
export function describeSource(source: Source): string {
  switch (source.kind) {
    case 'npm':
      return `npm package ${source.package}@${source.version}`;
    case 'pip':
      return `Python wheel ${source.requirement}`;
    case 'https':
      return source.url;
  }
}

export async function hashOf(
  path: string,
  algorithm: 'md5' | 'sha256' | 'sha512',
  encoding: 'hex' | 'base64' = 'hex',
): Promise<string> {
  const hash = createHash(algorithm);
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash);
  return hash.digest(encoding);
}

/** Throws E_HASH when the file is not what the source publishes. */
async function verify(source: Source, path: string): Promise<void> {
  const check = async (
    algorithm: 'md5' | 'sha256' | 'sha512',
    expected: string,
    encoding: 'hex' | 'base64' = 'hex',
  ): Promise<void> => {
    const found = await hashOf(path, algorithm, encoding);
    if (found !== expected) {
      throw new LockstepError('E_HASH', `${describeSource(source)} has the ${algorithm} ${found}, not ${expected}`);
    }
  };
  if (source.kind === 'npm') await check('sha512', source.integrity.replace(/^sha512-/, ''), 'base64');
  if (source.kind === 'pip') await check('sha256', source.sha256);
  if (source.kind === 'https' && source.md5 !== undefined) await check('md5', source.md5);
  if (source.kind === 'https' && source.sha256 !== undefined) await check('sha256', source.sha256);
}

const run = promisify(execFile);

/** True when the command runs and answers its version. */
export async function answers(command: string, args: readonly string[]): Promise<boolean> {
  try {
    await run(command, [...args], { timeout: 30_000 });
    return true;
  } catch {
    return false;
  }
}

const PIP_CLIENTS: readonly (readonly string[])[] = [
  ['python3', '-m', 'pip'],
  ['pip3'],
  ['pip'],
  ['python', '-m', 'pip'],
];

/** The command that runs pip here; null when there is none. */
export async function findPip(): Promise<readonly string[] | null> {
  for (const client of PIP_CLIENTS) {
    const [command, ...args] = client;
    if (command !== undefined && (await answers(command, [...args, '--version']))) return client;
  }
  return null;
}

/** Runs a registry's client in `directory`, telling how much has arrived there; throws with its last words. */
async function runClient(
  command: string,
  args: readonly string[],
  directory: string,
  progress: Progress,
): Promise<void> {
  // Its temporary files in `directory`, too: what has arrived can be seen there, and is cleared with it.
  const env = { ...process.env, TMPDIR: directory };
  const child = spawn(command, [...args], { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'], env });
  let words = '';
  const keep = (chunk: Buffer): void => {
    words = (words + chunk.toString('utf8')).slice(-4000);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const timer = setInterval(() => progress(bytesIn(directory)), PROGRESS_MS);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', resolve);
    });
    if (code !== 0) throw new Error(`${command} ended with code ${code}: ${lastLines(words)}`);
  } finally {
    clearInterval(timer);
  }
}

function lastLines(words: string): string {
  return words
    .trim()
    .split('\n')
    .filter((line) => !line.startsWith('npm notice') && !line.startsWith('npm warn'))
    .slice(-3)
    .join(' / ');
}

function bytesIn(directory: string): number {
  let sum = 0;
  for (const name of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    try {
      sum += statSync(join(directory, name)).size;
    } catch {
      // Gone in the meantime.
    }
  }
  return sum;
}

async function download(source: Source, directory: string, progress: Progress): Promise<string> {
  switch (source.kind) {
    case 'npm': {
      const npm = process.env['npm_execpath'];
      const args = ['pack', `${source.package}@${source.version}`, '--silent', '--ignore-scripts'];
      if (npm !== undefined && existsSync(npm)) await runClient(process.execPath, [npm, ...args], directory, progress);
      else if (await answers('npm', ['--version'])) await runClient('npm', args, directory, progress);
      else
        throw new LockstepError('E_TOOL_MISSING', 'npm is not on the PATH', {
          remedy: 'Install npm (it comes with Node).',
        });
      return onlyFile(directory, '.tgz');
    }
    case 'pip': {
      const pip = await findPip();
      const [command, ...args] = pip ?? [];
      if (command === undefined) {
        throw new LockstepError('E_TOOL_MISSING', "Python's pip is not on the PATH", {
          remedy: 'Install it, e.g. `apt-get install python3-pip` or `python3 -m ensurepip --user`.',
        });
      }
      const wanted = [
        '--no-deps',
        '--only-binary=:all:',
        '--implementation',
        'cp',
        '--disable-pip-version-check',
        '--progress-bar',
        'off',
      ];
      const target = ['--platform', source.platform, '--python-version', source.pythonVersion, '--abi', source.abi];
      await runClient(
        command,
        [...args, 'download', ...wanted, ...target, '--dest', directory, source.requirement],
        directory,
        progress,
      );
      return onlyFile(directory, '.whl');
    }
    case 'https':
      return downloadHttps(source.url, join(directory, 'archive'), progress);
  }
}

function onlyFile(directory: string, ending: string): string {
  const name = readdirSync(directory).find((n) => n.endsWith(ending));
  if (name === undefined) throw new Error(`no ${ending} file arrived`);
  return join(directory, name);
}

/** Goes on from `<path>.part` where it ends, when the server allows. */
async function downloadHttps(url: string, path: string, progress: Progress): Promise<string> {
  const part = `${path}.part`;
  const have = existsSync(part) ? statSync(part).size : 0;
  const response = await fetch(url, have > 0 ? { headers: { range: `bytes=${have}-` } } : {});
  if (!response.ok || response.body === null) throw new Error(`answered ${response.status}`);
  const isResumed = response.status === 206;
  const file = await open(part, isResumed ? 'a' : 'w');
  let bytes = isResumed ? have : 0;
  try {
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
      await file.writeFile(chunk);
      bytes += chunk.byteLength;
      progress(bytes);
    }
    await file.sync();
  } finally {
    await file.close();
  }
  renameSync(part, path);
  return path;
}

/**
 * Gets one archive into `directory` (made when needed) and verifies it. Throws E_DOWNLOAD that lists every source with the
 * reason why it failed, or E_TOOL_MISSING when a missing client was the only obstacle.
 */
export async function fetchArchive(
  sources: readonly Source[],
  directory: string,
  progress: Progress,
  tell: (line: string) => void,
): Promise<Fetched> {
  const failures: { source: Source; error: unknown }[] = [];
  for (const [i, source] of sources.entries()) {
    const place = join(directory, `${source.kind}-${i}`);
    // A partial HTTPS file is worth keeping; whatever a client left is not.
    if (source.kind !== 'https') rmSync(place, { recursive: true, force: true });
    mkdirSync(place, { recursive: true });
    try {
      const path = await download(source, place, progress);
      await verify(source, path);
      return { kind: source.kind, path };
    } catch (error) {
      if (error instanceof LockstepError && error.code === 'E_HASH') rmSync(place, { recursive: true, force: true });
      failures.push({ source, error });
      const why = error instanceof Error ? error.message : String(error);
      if (i + 1 < sources.length) tell(`${describeSource(source)}: ${why}; trying the next source`);
    }
  }
  const only = failures[0]?.error;
  if (failures.length === 1 && only instanceof LockstepError) throw only;
  const list = failures.map(
    ({ source, error }) => `  ${describeSource(source)}: ${error instanceof Error ? error.message : String(error)}`,
  );
  throw new LockstepError('E_DOWNLOAD', `no source could be fetched:\n${list.join('\n')}`, {
    remedy: 'Check the network and the registry settings of npm and pip, then start again: what has arrived is kept.',
  });
}
