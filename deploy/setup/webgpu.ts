// The `webgpu` engine's library: Dawn, as the npm package `webgpu` carries it for every platform. Only this platform's part is
// kept, in the per-user cache, whole or not at all; the package itself is never installed.
//
// Cost, once: 51 MB fetched, 22 MB on disk (Windows: 34 MB), a second to unpack.
//
// Not here: the GPU's own driver and, on Linux, the Vulkan loader (libvulkan.so.1): they are the system's.

import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { arch, platform } from 'node:os';
import { dirname, join } from 'node:path';
import { x as extract } from 'tar';
import type { Source } from '../../jobs/contract.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { cacheDirectory, installDirectory, isSameSecond, openForWriting, withLock } from './cache.ts';
import { fetchArchive, hashOf, type Progress } from './fetch.ts';

export const DAWN_VERSION = '0.6.2';
/** What is fetched, for progress. */
export const WEBGPU_BYTES = 51_264_151;

export interface DawnSource {
  readonly source: Source;
  /** The folders of the package's `dist` that hold a library. */
  readonly platforms: readonly string[];
}

const DAWN: DawnSource = {
  source: {
    kind: 'npm',
    package: 'webgpu',
    version: DAWN_VERSION,
    integrity: 'sha512-3L4GfmqJLvYUIEWJngEQY+2HQiUlAFkg8+P8NDDj3Xx5hHHIFO/r8JW+ynfqBj7kHN4mbnwO74uB+lrRtLhp4Q==',
  },
  platforms: ['darwin-universal', 'linux-arm64', 'linux-x64', 'win32-arm64', 'win32-x64'],
};

const LIBRARY = 'dawn.node';
const REMEDY = 'Run `npm run setup -- --engine webgpu`.';

export interface Webgpu {
  readonly directory: string;
  /** The native addon, to be loaded by `require`. */
  readonly dawnPath: string;
  readonly dawnVersion: string;
}

interface Manifest {
  readonly version: string;
  readonly files: readonly {
    readonly name: string;
    readonly bytes: number;
    readonly mtimeMs: number;
    readonly sha256: string;
  }[];
}

type Tell = (line: string) => void;

/** Loads the library somewhere it can do no harm; throws when it does not load. */
export type TestLoad = (dawnPath: string) => Promise<void>;

/** The package's name for this machine: its library for macOS serves both processors. */
function platformName(): string {
  return platform() === 'darwin' ? 'darwin-universal' : `${platform()}-${arch()}`;
}

function placeOf(): { directory: string; lock: string } {
  const directory = join(cacheDirectory(), 'engine', `webgpu-dawn-${DAWN_VERSION}-${platform()}-${arch()}`);
  return { directory, lock: `${directory}.lock` };
}

function readManifest(directory: string): Manifest | null {
  try {
    return JSON.parse(readFileSync(join(directory, 'manifest.json'), 'utf8')) as Manifest;
  } catch {
    return null;
  }
}

/** Why what is installed can't be used; null when it can. Sizes and times only: 1 ms. */
export function webgpuDamage(): string | null {
  const { directory } = placeOf();
  if (!existsSync(directory)) return 'it is not installed';
  const manifest = readManifest(directory);
  if (manifest === null) return 'its manifest is missing or unreadable';
  for (const file of manifest.files) {
    const path = join(directory, file.name);
    if (!existsSync(path)) return `${file.name} is missing`;
    const { size, mtimeMs } = statSync(path);
    if (size !== file.bytes) return `${file.name} has ${size} bytes instead of ${file.bytes}`;
    if (!isSameSecond(mtimeMs, file.mtimeMs)) return `${file.name} was changed after it was installed`;
  }
  return null;
}

/** Where it is installed. Throws E_ENGINE_UNAVAILABLE when it is not, or not whole. */
export function findWebgpu(): Webgpu {
  const { directory } = placeOf();
  const damage = webgpuDamage();
  if (damage !== null) {
    throw new LockstepError('E_ENGINE_UNAVAILABLE', `the webgpu engine's library cannot be used: ${damage}`, {
      remedy: REMEDY,
    });
  }
  return { directory, dawnPath: join(directory, LIBRARY), dawnVersion: DAWN_VERSION };
}

/** Recomputes every hash of the installed files; returns the names of those that differ. */
export async function verifyWebgpu(): Promise<string[]> {
  const { directory } = placeOf();
  const bad: string[] = [];
  for (const file of readManifest(directory)?.files ?? []) {
    if ((await hashOf(join(directory, file.name), 'sha256')) !== file.sha256) bad.push(file.name);
  }
  return bad;
}

/**
 * Installs or repairs it, when needed. Throws E_TOOL_MISSING, E_DOWNLOAD, E_HASH or E_ENGINE_UNAVAILABLE.
 * @param from another source and another trial than Dawn's, for tests
 */
export async function ensureWebgpu(
  tell: Tell,
  progress: Progress,
  from: { readonly dawn: DawnSource; readonly testLoad: TestLoad } = { dawn: DAWN, testLoad: loadElsewhere },
): Promise<Webgpu> {
  const { directory, lock } = placeOf();
  if (webgpuDamage() === null) return findWebgpu();
  openForWriting(dirname(directory));
  await withLock(
    lock,
    async () => {
      const damage = webgpuDamage();
      if (damage === null) return;
      if (existsSync(directory)) tell(`repairing the webgpu library: ${damage}`);
      await install(directory, from.dawn, from.testLoad, tell, progress);
    },
    (pid) => tell(`waiting for process ${pid}, which is setting up the webgpu library`),
  );
  return findWebgpu();
}

async function install(
  directory: string,
  dawn: DawnSource,
  testLoad: TestLoad,
  tell: Tell,
  progress: Progress,
): Promise<void> {
  const name = platformName();
  if (!dawn.platforms.includes(name)) {
    throw new LockstepError('E_ENGINE_UNAVAILABLE', `there is no Dawn library for ${platform()} on ${arch()}`, {
      remedy: 'Use another engine, e.g. `--engine wasm`.',
    });
  }
  // One place for all tries: what a killed one has fetched is used or cleared by the next.
  const downloads = join(dirname(directory), '.webgpu.download');
  try {
    const archive = await fetchArchive([dawn.source], downloads, progress, tell);
    tell('unpacking the library');
    await installDirectory(directory, async (staging) => {
      const wanted = `package/dist/${name}/`;
      await extract({ file: archive.path, cwd: staging, strip: 3, filter: (path) => path.startsWith(wanted) });
      await extract({ file: archive.path, cwd: staging, strip: 1, filter: (path) => path === 'package/LICENSE.md' });
      await testLoad(join(staging, LIBRARY));
      const files = [];
      for (const file of readdirSync(staging).toSorted()) {
        const path = join(staging, file);
        const { size, mtimeMs } = statSync(path);
        files.push({ name: file, bytes: size, mtimeMs, sha256: await hashOf(path, 'sha256') });
      }
      const manifest: Manifest = { version: DAWN_VERSION, files };
      await writeFile(join(staging, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
    });
  } finally {
    rmSync(downloads, { recursive: true, force: true });
  }
}

/** Loads it in a process of its own, so that a library that crashes is an error here. */
async function loadElsewhere(dawnPath: string): Promise<void> {
  const script = 'process.stdout.write(typeof require(process.argv[1]).create)';
  const child = spawn(process.execPath, ['-e', script, dawnPath], { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  let err = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  const ended = await new Promise<string>((resolve) => {
    child.on('close', (code, signal) => resolve(signal ?? String(code)));
  });
  if (ended === '0' && out === 'function') return;
  const words = /^\w*Error: .*$/m.exec(err)?.[0] ?? err.trim().split('\n').slice(-3).join(' / ');
  throw new LockstepError('E_ENGINE_UNAVAILABLE', `the webgpu library does not load here (${ended}): ${words}`, {
    remedy: 'Use another engine, e.g. `--engine wasm`.',
  });
}
