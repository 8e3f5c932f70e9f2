// The library of the engines `tensorflow` and `tensorflow-gpu`: TensorFlow's own C library out of its Python wheel, and the Node
// binding of @tensorflow/tfjs-node compiled against it. (The package's own installer fetches a prebuilt binary that lags behind
// Node and is on no package registry.) For a GPU, CUDA's libraries lie beside it as they would in Python's site-packages, which
// is where TensorFlow's own search path leads. All of it lies in the per-user cache, whole or not at all; node_modules is
// never written to.
//
// Cost, once: 274 MB fetched, 850 MB on disk, 15 s to unpack, 10 s to compile. For a GPU: 3.4 GB fetched, 6 GB on disk.

import { execFile, spawn } from 'node:child_process';
import {
  createWriteStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { chmod, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { arch, platform } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { openZip } from './zip.ts';
import type { Source } from '../../jobs/contract.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { engineEnvironment } from '../../worker/engine/environment.ts';
import { cacheDirectory, installDirectory, isSameSecond, openForWriting, withLock } from './cache.ts';
import { answers, fetchArchive, findPip, hashOf, type Progress } from './fetch.ts';

export const TENSORFLOW_VERSION = '2.21.0';
/** The driver's and TensorFlow's word for what the library computes on. */
export type TensorflowDevice = 'cpu' | 'gpu';

interface Wheel {
  readonly source: Source;
  readonly wanted: RegExp;
}

interface Variant {
  /** What it is called in the cache. */
  readonly name: string;
  /** What is fetched, for progress. */
  readonly bytes: number;
  /** Disk that it takes while it is being set up. */
  readonly diskBytes: number;
  /** Taken off the names of the wheels' files. */
  readonly strip: string;
  /** Where TensorFlow's library and the binding lie. */
  readonly home: string;
  readonly wheels: readonly Wheel[];
  /** Symbolic links by their place. */
  readonly links: Readonly<Record<string, string>>;
}

const WANTED =
  /^tensorflow\/(libtensorflow_(cc|framework)\.so\.2|THIRD_PARTY_NOTICES\.txt|include\/(tensorflow\/c\/|tensorflow\/core\/platform\/ctstring|tsl\/platform\/ctstring|xla\/tsl\/c\/).*\.h)$/;
const WANTED_CUDA = /^nvidia\/[^/]+\/(lib\/.*\.so[.\d]*|bin\/ptxas|nvvm\/libdevice\/.*)$|\/License\.txt$/;

const tensorflowWheel = (requirement: string, sha256: string): Wheel => ({
  source: {
    kind: 'pip',
    requirement: `${requirement}==${TENSORFLOW_VERSION}`,
    platform: 'manylinux_2_27_x86_64',
    pythonVersion: '3.12',
    abi: 'cp312',
    sha256,
  },
  wanted: WANTED,
});
const cudaWheel = (name: string, version: string, manylinux: string, sha256: string): Wheel => ({
  source: {
    kind: 'pip',
    requirement: `nvidia-${name}-cu12==${version}`,
    platform: `manylinux${manylinux}_x86_64`,
    pythonVersion: '3.12',
    abi: 'none',
    sha256,
  },
  wanted: WANTED_CUDA,
});

/** For Linux on x86-64. */
const VARIANTS: Readonly<Record<TensorflowDevice, Variant>> = {
  cpu: {
    name: 'tensorflow-cpu',
    bytes: 274_000_871,
    diskBytes: 1.2e9,
    strip: 'tensorflow/',
    home: '',
    wheels: [tensorflowWheel('tensorflow-cpu', 'dcc8afd32930e42d5296b6ee19078b773706830af4ea97fbe503b9f5e0f820cb')],
    links: {},
  },
  // The versions that TensorFlow's own `and-cuda` extra resolved to in November 2026.
  gpu: {
    name: 'tensorflow-gpu',
    bytes: 3_379_000_000,
    diskBytes: 8e9,
    strip: '',
    home: 'tensorflow',
    wheels: [
      tensorflowWheel('tensorflow', 'b3b95643c4e70eb925839938fb35cbe142f317ec84af6844ee61513713bb13c0'),
      cudaWheel('cublas', '12.9.3.13', '_2_27', 'd7d51055f161b317c7105ddaae90e71eda059026074ffef93cf7cde2886bfe72'),
      cudaWheel('cuda-cupti', '12.8.90', '2014', 'ea0cb07ebda26bb9b29ba82cda34849e73c166c18162d3913575b0c9db9a6182'),
      cudaWheel('cuda-nvcc', '12.9.86', '2010', '5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0'),
      cudaWheel('cuda-nvrtc', '12.9.86', '2010', '210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4'),
      cudaWheel('cuda-runtime', '12.9.79', '2014', '25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3'),
      cudaWheel('cudnn', '9.28.0.42', '_2_27', '9ff58b7f36dacd0a93e89f8f2957b52466889217963701daa15e577317cfa375'),
      cudaWheel('cufft', '11.4.1.4', '2014', 'c67884f2a7d276b4b80eb56a79322a95df592ae5e765cf1243693365ccab4e28'),
      cudaWheel('curand', '10.3.10.19', '_2_27', '49b274db4780d421bd2ccd362e1415c13887c53c214f0d4b761752b8f9f6aa1e'),
      cudaWheel('cusolver', '11.7.5.82', '_2_27', '15da72d1340d29b5b3cf3fd100e3cd53421dde36002eda6ed93811af63c40d88'),
      cudaWheel('cusparse', '12.5.10.65', '2014', '73060ce019ac064a057267c585bf1fd5a353734151f87472ff02b2c5c9984e78'),
      cudaWheel('nccl', '2.32.3', '_2_27', 'bb94b2348e4861d5e8aa00b36c3d12d9bdf9c6369b82cbb723de0b582280a21c'),
      cudaWheel('nvjitlink', '12.9.86', '2010', 'e3f1171dbdc83c5932a45f0f4c99180a70de9bd2718c1ab77d14104f6d7147f9'),
    ],
    // TensorFlow's framework library looks for this one without looking where its wheel puts it, and without it uses no GPU.
    links: { 'nvidia/cusparse/lib/libcusolver.so.11': '../../cusolver/lib/libcusolver.so.11' },
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
  return platform() === 'linux' && arch() === 'x64';
}

export type Tell = (line: string) => void;

function placeOf(device: TensorflowDevice): { directory: string; lock: string } {
  const { name } = VARIANTS[device];
  const directory = join(cacheDirectory(), 'engine', `${name}-${TENSORFLOW_VERSION}-${platform()}-${arch()}`);
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
function damageOf(directory: string, { links }: Variant): string | null {
  if (!existsSync(directory)) return 'it is not installed';
  const manifest = readManifest(directory);
  if (manifest === null) return 'its manifest is missing or unreadable';
  if (manifest.binding !== `tfjs-node ${bindingSources().version}`) return `it was built for ${manifest.binding}`;
  for (const file of manifest.files) {
    const path = join(directory, file.name);
    if (!existsSync(path)) return `${file.name} is missing`;
    const { size, mtimeMs } = statSync(path);
    if (size !== file.bytes) return `${file.name} has ${size} bytes instead of ${file.bytes}`;
    if (!isSameSecond(mtimeMs, file.mtimeMs)) return `${file.name} was changed after it was installed`;
  }
  const lost = Object.keys(links).find((path) => !existsSync(join(directory, path)));
  return lost === undefined ? null : `the link ${lost} is missing`;
}

/** Where it is installed. Throws E_ENGINE_UNAVAILABLE when it is not, or not whole. */
export function findTensorflow(device: TensorflowDevice = 'cpu'): Tensorflow {
  const { directory } = placeOf(device);
  const { name, home } = VARIANTS[device];
  const damage = damageOf(directory, VARIANTS[device]);
  if (damage !== null) {
    throw new LockstepError('E_ENGINE_UNAVAILABLE', `the library ${name} cannot be used: ${damage}`, {
      remedy: device === 'cpu' ? 'Run `npm run setup`.' : 'Run `npm run setup -- --engine tensorflow-gpu`.',
    });
  }
  return { bindingPath: join(directory, home, BINDING), libraryVersion: TENSORFLOW_VERSION, directory };
}

/**
 * The addon of @tensorflow/tfjs-node-gpu, where the user has installed that package beside the job and it found its own library
 * (TensorFlow 2.9 on CUDA 11); null where not. Looked for from `directory` upwards, as Node does.
 */
export function findUserBinding(directory: string = process.cwd()): string | null {
  try {
    const manifest = createRequire(join(directory, 'package.json')).resolve('@tensorflow/tfjs-node-gpu/package.json');
    const library = join(dirname(manifest), 'lib');
    const versions = readdirSync(library).filter((name) => /^napi-v\d+$/.test(name));
    const addons = versions.toSorted().map((name) => join(library, name, 'tfjs_binding.node'));
    return addons.findLast((addon) => existsSync(addon)) ?? null;
  } catch {
    return null; // not installed, or without its native part
  }
}

export function tensorflowDamage(device: TensorflowDevice = 'cpu'): string | null {
  return damageOf(placeOf(device).directory, VARIANTS[device]);
}

/** What setting it up will fetch, and take on disk meanwhile. */
export function tensorflowCost(device: TensorflowDevice): { readonly bytes: number; readonly diskBytes: number } {
  return VARIANTS[device];
}

/** Recomputes every hash of the installed files; returns the names of those that differ. About 2 s. */
export async function verifyTensorflow(device: TensorflowDevice = 'cpu'): Promise<string[]> {
  const { directory } = placeOf(device);
  const manifest = readManifest(directory);
  const bad: string[] = [];
  for (const file of manifest?.files ?? []) {
    if ((await hashOf(join(directory, file.name), 'sha256')) !== file.sha256) bad.push(file.name);
  }
  return bad;
}

/** Installs or repairs it, when needed. Throws E_TOOL_MISSING, E_DOWNLOAD, E_HASH, E_DISK or E_ENGINE_UNAVAILABLE. */
export async function ensureTensorflow(
  tell: Tell,
  progress: Progress,
  device: TensorflowDevice = 'cpu',
): Promise<Tensorflow> {
  const { directory, lock } = placeOf(device);
  const variant = VARIANTS[device];
  if (damageOf(directory, variant) === null) return findTensorflow(device);
  openForWriting(dirname(directory));
  await withLock(
    lock,
    async () => {
      const damage = damageOf(directory, variant);
      if (damage === null) return;
      if (existsSync(directory)) tell(`repairing the library ${variant.name}: ${damage}`);
      await installDirectory(directory, (staging) => build(variant, staging, tell, progress));
    },
    (pid) => tell(`waiting for process ${pid}, which is setting up the library ${variant.name}`),
  );
  return findTensorflow(device);
}

async function build(variant: Variant, staging: string, tell: Tell, progress: Progress): Promise<void> {
  if (!isSupportedPlatform()) {
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
  checkDisk(variant, dirname(staging));
  // One place for all tries: what a killed one has fetched is used or cleared by the next.
  const downloads = join(dirname(staging), `.${variant.name}.download`);
  const home = join(staging, variant.home);
  try {
    let fetched = 0;
    for (const { source, wanted } of variant.wheels) {
      const before = fetched;
      const archive = await withNextRung(() =>
        fetchArchive([source], downloads, (bytes) => progress(before + bytes), tell),
      );
      fetched += statSync(archive.path).size;
      tell(`unpacking ${basename(archive.path)}`);
      await extract(archive.path, staging, wanted, variant.strip);
      rmSync(archive.path);
    }
    for (const [path, target] of Object.entries(variant.links)) symlinkSync(target, join(staging, path));
    const command = compiler ?? (await fetchZig(downloads, progress, tell));
    tell(`compiling the binding with ${command.name}`);
    await compile(command.command, home);
    await testLoad(join(home, BINDING));
    const files = [];
    for (const file of readdirSync(staging, { recursive: true, encoding: 'utf8' }).toSorted()) {
      if (!/\.(so[.\d]*|node)$/.test(file) || file in variant.links) continue;
      const { size, mtimeMs } = statSync(join(staging, file));
      files.push({ name: file, bytes: size, mtimeMs, sha256: await hashOf(join(staging, file), 'sha256') });
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

/** Throws E_DISK now rather than in the middle. */
function checkDisk({ name, diskBytes }: Variant, directory: string): void {
  const { bavail, bsize } = statfsSync(directory);
  if (bavail * bsize >= diskBytes) return;
  const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;
  throw new LockstepError(
    'E_DISK',
    `${name} needs ${gigabytes(diskBytes)} in ${directory}, where ${gigabytes(bavail * bsize)} are free`,
    { remedy: 'Free some, or set LOCKSTEP_CACHE to another disk.' },
  );
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
  const isTool = /\/bin\//;
  try {
    for await (const entry of zip.entries()) {
      if (!wanted.test(entry.name)) continue;
      const path = join(into, entry.name.slice(strip.length));
      mkdirSync(dirname(path), { recursive: true });
      await pipeline(await entry.open(), createWriteStream(path, { mode: isTool.test(entry.name) ? 0o755 : 0o644 }));
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
