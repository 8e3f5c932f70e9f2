// The `tensorflow` engine's library: TensorFlow's own C library out of its Python wheel, and the Node binding of
// @tensorflow/tfjs-node compiled against it. (The package's own installer fetches a prebuilt binary that lags behind Node and
// is on no package registry.) All of it lies in the per-user cache, whole or not at all; node_modules is never written to.
//
// Cost, once: 274 MB fetched, 850 MB on disk, 15 s to unpack, 10 s to compile.

import { execFile, spawn } from 'node:child_process';
import { createWriteStream, existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { chmod, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { arch, platform } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { openZip } from './zip.ts';
import type { Source } from '../../jobs/contract.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { engineEnvironment } from '../../worker/engine/environment.ts';
import { cacheDirectory, installDirectory, withLock } from './cache.ts';
import { answers, fetchArchive, findPip, hashOf, type Progress } from './fetch.ts';

export const TENSORFLOW_VERSION = '2.21.0';
/** What is fetched, for progress. */
export const TENSORFLOW_WHEEL_BYTES = 274_000_871;

const WHEELS: Readonly<Record<string, Source>> = {
  'linux-x64': {
    kind: 'pip',
    requirement: `tensorflow-cpu==${TENSORFLOW_VERSION}`,
    platform: 'manylinux_2_27_x86_64',
    pythonVersion: '3.12',
    abi: 'cp312',
    sha256: 'dcc8afd32930e42d5296b6ee19078b773706830af4ea97fbe503b9f5e0f820cb',
  },
};

/** The compiler of last resort, for machines without one: Zig's, from its Python wheel. */
const ZIG: Source = {
  kind: 'pip',
  requirement: 'ziglang==0.13.0',
  platform: 'manylinux_2_12_x86_64',
  pythonVersion: '3.12',
  abi: 'none',
  sha256: '3ce0c9f16547e5d61b32e0d226926e9a2552ef4b91fccf7ab5ea1a623a77824b',
};

const LIBRARIES = ['libtensorflow_cc.so.2', 'libtensorflow_framework.so.2'] as const;
const BINDING = 'tfjs_binding.node';
const WANTED =
  /^tensorflow\/(libtensorflow_(cc|framework)\.so\.2|THIRD_PARTY_NOTICES\.txt|include\/(tensorflow\/c\/|tensorflow\/core\/platform\/ctstring|tsl\/platform\/ctstring|xla\/tsl\/c\/).*\.h)$/;

const NEXT_RUNG = 'Or use --engine wasm, which needs nothing but Node and is several times slower.';

export interface Tensorflow {
  readonly bindingPath: string;
  readonly libraryVersion: string;
  readonly directory: string;
}

interface Manifest {
  readonly version: string;
  /** Binding sources and flags that the addon was made of: another tfjs-node makes another addon. */
  readonly binding: string;
  readonly compiler: string;
  readonly files: readonly {
    readonly name: string;
    readonly bytes: number;
    readonly mtimeMs: number;
    readonly sha256: string;
  }[];
}

/** Whether there is a library for this platform. */
export function isSupportedPlatform(): boolean {
  return WHEELS[`${platform()}-${arch()}`] !== undefined;
}

export type Tell = (line: string) => void;

function placeOf(): { directory: string; lock: string } {
  const directory = join(cacheDirectory(), 'engine', `tensorflow-cpu-${TENSORFLOW_VERSION}-${platform()}-${arch()}`);
  mkdirSync(dirname(directory), { recursive: true });
  return { directory, lock: `${directory}.lock` };
}

function bindingSources(): { directory: string; version: string; napi: string } {
  const require = createRequire(import.meta.url);
  const manifestPath = require.resolve('@tensorflow/tfjs-node/package.json');
  const manifest = JSON.parse(readFileSync(manifestPath, 'utf8')) as { version: string };
  const napi = (require('node-api-headers') as { include_dir: string }).include_dir;
  return { directory: join(dirname(manifestPath), 'binding'), version: manifest.version, napi };
}

function readManifest(directory: string): Manifest | null {
  try {
    return JSON.parse(readFileSync(join(directory, 'manifest.json'), 'utf8')) as Manifest;
  } catch {
    return null;
  }
}

/** Why what is installed can't be used; null when it can. Sizes and times only: 1 ms. */
function damageOf(directory: string): string | null {
  if (!existsSync(directory)) return 'it is not installed';
  const manifest = readManifest(directory);
  if (manifest === null) return 'its manifest is missing or unreadable';
  if (manifest.binding !== `tfjs-node ${bindingSources().version}`) return `it was built for ${manifest.binding}`;
  for (const file of manifest.files) {
    const path = join(directory, file.name);
    if (!existsSync(path)) return `${file.name} is missing`;
    const { size, mtimeMs } = statSync(path);
    if (size !== file.bytes) return `${file.name} has ${size} bytes instead of ${file.bytes}`;
    if (Math.abs(mtimeMs - file.mtimeMs) > 1) return `${file.name} was changed after it was installed`;
  }
  return null;
}

/** Where it is installed. Throws E_ENGINE_UNAVAILABLE when it is not, or not whole. */
export function findTensorflow(): Tensorflow {
  const { directory } = placeOf();
  const damage = damageOf(directory);
  if (damage !== null) {
    throw new LockstepError('E_ENGINE_UNAVAILABLE', `the tensorflow engine's library cannot be used: ${damage}`, {
      remedy: 'Run `npm run setup`.',
    });
  }
  return { bindingPath: join(directory, BINDING), libraryVersion: TENSORFLOW_VERSION, directory };
}

export function tensorflowDamage(): string | null {
  return damageOf(placeOf().directory);
}

/** Recomputes every hash of the installed files; returns the names of those that differ. About 2 s. */
export async function verifyTensorflow(): Promise<string[]> {
  const { directory } = placeOf();
  const manifest = readManifest(directory);
  const bad: string[] = [];
  for (const file of manifest?.files ?? []) {
    if ((await hashOf(join(directory, file.name), 'sha256')) !== file.sha256) bad.push(file.name);
  }
  return bad;
}

/** Installs or repairs it, when needed. Throws E_TOOL_MISSING, E_DOWNLOAD, E_HASH or E_ENGINE_UNAVAILABLE. */
export async function ensureTensorflow(tell: Tell, progress: Progress): Promise<Tensorflow> {
  const { directory, lock } = placeOf();
  if (damageOf(directory) === null) return findTensorflow();
  await withLock(
    lock,
    async () => {
      const damage = damageOf(directory);
      if (damage === null) return;
      if (existsSync(directory)) tell(`repairing the tensorflow library: ${damage}`);
      await installDirectory(directory, (staging) => build(staging, tell, progress));
    },
    (pid) => tell(`waiting for process ${pid}, which is setting up the tensorflow library`),
  );
  return findTensorflow();
}

async function build(staging: string, tell: Tell, progress: Progress): Promise<void> {
  const wheel = WHEELS[`${platform()}-${arch()}`];
  if (wheel === undefined) {
    throw new LockstepError(
      'E_ENGINE_UNAVAILABLE',
      `there is no TensorFlow library for ${platform()} on ${arch()} yet`,
      {
        remedy: `Use Linux on x86-64. ${NEXT_RUNG}`,
      },
    );
  }
  const compiler = await findCompiler();
  if (compiler === null && (await findPip()) === null) {
    throw new LockstepError('E_TOOL_MISSING', "neither a C++ compiler nor Python's pip is on the PATH", {
      remedy: `Install them, e.g. \`apt-get install g++ python3-pip\`. ${NEXT_RUNG}`,
    });
  }
  // One place for all tries: what a killed one has fetched is used or cleared by the next.
  const downloads = join(dirname(staging), '.tensorflow.download');
  try {
    const archive = await withNextRung(() => fetchArchive([wheel], downloads, progress, tell));
    tell('unpacking the library');
    await extract(archive.path, staging, WANTED, 'tensorflow/');
    const command = compiler ?? (await fetchZig(downloads, progress, tell));
    tell(`compiling the binding with ${command.name}`);
    await compile(command.command, staging);
    await testLoad(join(staging, BINDING));
    const files = [];
    for (const name of [...LIBRARIES, BINDING]) {
      const { size, mtimeMs } = statSync(join(staging, name));
      files.push({ name, bytes: size, mtimeMs, sha256: await hashOf(join(staging, name), 'sha256') });
    }
    const manifest: Manifest = {
      version: TENSORFLOW_VERSION,
      binding: `tfjs-node ${bindingSources().version}`,
      compiler: command.name,
      files,
    };
    await writeFile(join(staging, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  } finally {
    rmSync(downloads, { recursive: true, force: true });
  }
}

/** Adds to a missing tool's remedy which engine would come next: it is never taken silently. */
async function withNextRung<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof LockstepError && error.code === 'E_TOOL_MISSING') {
      throw new LockstepError(error.code, `${error.message}; the tensorflow engine needs it`, {
        remedy: `${error.remedy ?? ''} ${NEXT_RUNG}`.trim(),
        cause: error,
      });
    }
    throw error;
  }
}

async function extract(wheel: string, into: string, wanted: RegExp, strip: string): Promise<void> {
  const zip = await openZip(wheel);
  try {
    for await (const entry of zip.entries()) {
      if (!wanted.test(entry.name)) continue;
      const path = join(into, entry.name.slice(strip.length));
      mkdirSync(dirname(path), { recursive: true });
      await pipeline(await entry.open(), createWriteStream(path));
    }
  } finally {
    zip.close();
  }
}

export interface Compiler {
  readonly name: string;
  readonly command: readonly string[];
}

/** The first C++ compiler that answers: `$CXX`, g++, c++, clang++. */
export async function findCompiler(
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<Compiler | null> {
  for (const name of [env['CXX'], 'g++', 'c++', 'clang++']) {
    if (name === undefined || name === '') continue;
    const [command, ...args] = name.split(' ');
    if (command !== undefined && (await answers(command, [...args, '--version'])))
      return { name, command: [command, ...args] };
  }
  return null;
}

async function fetchZig(downloads: string, progress: Progress, tell: Tell): Promise<Compiler> {
  tell("no C++ compiler on the PATH: fetching Zig's, from its Python wheel");
  const archive = await fetchArchive([ZIG], join(downloads, 'zig'), progress, tell);
  const directory = join(downloads, 'zig-unpacked');
  await extract(archive.path, directory, /^ziglang\//, 'ziglang/');
  const zig = join(directory, 'zig');
  await chmod(zig, 0o755);
  return {
    name: `Zig's compiler (${ZIG.kind === 'pip' ? ZIG.requirement : ''})`,
    command: [zig, 'c++', '-target', 'x86_64-linux-gnu.2.27'],
  };
}

const run = promisify(execFile);

/** Compiles the binding's two sources in `directory`, which holds the libraries and `include/`. */
async function compile(compiler: readonly string[], directory: string): Promise<void> {
  const { directory: sources, napi } = bindingSources();
  const [command, ...first] = compiler;
  if (command === undefined) return;
  const args = [
    ...first,
    '-std=c++17',
    '-O2',
    '-fPIC',
    '-shared',
    '-DNAPI_VERSION=8',
    `-I${join(directory, 'include')}`,
    `-I${napi}`,
    `-I${sources}`,
    join(sources, 'tfjs_backend.cc'),
    join(sources, 'tfjs_binding.cc'),
    '-o',
    join(directory, BINDING),
    `-L${directory}`,
    ...LIBRARIES.map((name) => `-l:${name}`),
    '-Wl,-rpath,$ORIGIN',
  ];
  try {
    await run(command, args, { maxBuffer: 16 * 1024 * 1024 });
  } catch (cause) {
    const words =
      cause instanceof Error && 'stderr' in cause
        ? String(cause.stderr).trim().split('\n').slice(0, 5).join(' / ')
        : String(cause);
    throw new LockstepError('E_ENGINE_UNAVAILABLE', `the binding could not be compiled with ${command}: ${words}`, {
      remedy: `Install a C++17 compiler (e.g. \`apt-get install g++\`) or name one in CXX. ${NEXT_RUNG}`,
      cause,
    });
  }
}

/** Loads a binding in a process of its own, so that a library that crashes is an error here; returns TensorFlow's version. */
export async function testLoad(bindingPath: string): Promise<string> {
  const script = 'const b = require(process.argv[1]); process.stdout.write(b.TF_Version ?? "")';
  const child = spawn(process.execPath, ['-e', script, bindingPath], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...engineEnvironment(1) },
  });
  let out = '';
  let err = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  const ended = await new Promise<string>((resolve) => {
    child.on('close', (code, signal) => resolve(signal ?? String(code)));
  });
  if (ended !== '0' || out !== TENSORFLOW_VERSION) {
    const words = err.trim().split('\n').slice(-3).join(' / ');
    throw new LockstepError(
      'E_ENGINE_UNAVAILABLE',
      `the tensorflow library does not load (${ended}; version "${out}"): ${words}`,
      {
        remedy: `Delete ${dirname(bindingPath)} and run \`npm run setup\`. ${NEXT_RUNG}`,
      },
    );
  }
  return out;
}
