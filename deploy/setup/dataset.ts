// A data set's files in the per-user cache: fetched from the first source that yields them, unpacked by the data set's own
// code, verified by MD5. They are verified again before every training (0.4 s for CIFAR-10): a file that was truncated or
// altered is named, and fetched anew.

import { existsSync, rmSync, statSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { DataFile, DataSetDefinition, DataSetSource } from '../../jobs/contract.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { cacheDirectory, installDirectory, openForWriting, withLock } from './cache.ts';
import { fetchArchive, hashOf, type Progress } from './fetch.ts';
import { fetchFromCoordinator, type DataHost } from './from-coordinator.ts';

/** Where a data set's files lie; the present directory for one that needs none. */
export function dataSetDirectory(data: DataSetDefinition): string {
  return data.source === undefined ? process.cwd() : join(cacheDirectory(), 'data', data.source.name);
}

/** The files that are not as published, with what is wrong; empty when all is well. */
export async function damagedFiles(directory: string, files: readonly DataFile[]): Promise<string[]> {
  const checks = files.map(async ({ name, bytes, md5 }) => {
    const path = join(directory, name);
    if (!existsSync(path)) return `${name} is missing`;
    const { size } = statSync(path);
    if (size !== bytes) return `${name} has ${size} bytes instead of ${bytes}`;
    return (await hashOf(path, 'md5')) === md5 ? null : `${name} was altered (its MD5 differs)`;
  });
  return (await Promise.all(checks)).filter((damage) => damage !== null);
}

/** True when all files are there with their sizes: what they hold is not read. */
export function looksWhole(data: DataSetDefinition): boolean {
  const directory = dataSetDirectory(data);
  return (data.source?.files ?? []).every(({ name, bytes }) => {
    const path = join(directory, name);
    return existsSync(path) && statSync(path).size === bytes;
  });
}

/** Where a data set comes from: `registry` are the sources that it names itself. `auto`: from the coordinator where they can't be had. */
export type DataFrom = 'auto' | 'registry' | 'coordinator';

/**
 * Fetches or repairs the files, when needed. `coordinator` null: there is none, or it can't be asked over HTTP. Throws E_DOWNLOAD, E_HASH,
 * E_TOOL_MISSING or E_DATA_CORRUPT; from a coordinator also E_UNAUTHORIZED.
 */
export async function ensureDataSet(
  data: DataSetDefinition,
  tell: (line: string) => void,
  progress: Progress,
  from: { readonly from: DataFrom; readonly coordinator: DataHost | null } = { from: 'registry', coordinator: null },
): Promise<void> {
  const { source } = data;
  if (source === undefined) return;
  const directory = dataSetDirectory(data);
  if ((await damagedFiles(directory, source.files)).length === 0) return;
  openForWriting(dirname(directory));
  await withLock(
    `${directory}.lock`,
    async () => {
      const damages = await damagedFiles(directory, source.files);
      if (damages.length === 0) return;
      if (existsSync(directory)) tell(`${data.name}: ${damages.join('; ')}: fetching it again`);
      await fetchDataSet(data.name, source, directory, tell, progress, from);
    },
    (pid) => tell(`waiting for process ${pid}, which is fetching ${data.name}`),
  );
}

async function fetchDataSet(
  name: string,
  source: DataSetSource,
  directory: string,
  tell: (line: string) => void,
  progress: Progress,
  { from, coordinator }: { readonly from: DataFrom; readonly coordinator: DataHost | null },
): Promise<void> {
  const downloads = join(dirname(directory), `.${source.name}.download`);
  /** Lays the files into a directory. */
  let fill: (staging: string) => Promise<void>;
  const byArchive = async (): Promise<typeof fill> => {
    const archive = await fetchArchive(source.sources, downloads, progress, tell);
    return async (staging) => {
      tell(`unpacking ${name}`);
      await source.unpack(archive, staging);
    };
  };
  const byCoordinator = async (host: DataHost): Promise<typeof fill> => {
    tell(`fetching ${name} from the coordinator at ${host.url}`);
    const place = join(downloads, 'coordinator');
    await fetchFromCoordinator(source, host, place, progress);
    return async (staging) => {
      for (const { name: file } of source.files) await rename(join(place, file), join(staging, file));
    };
  };
  if (from === 'coordinator' && coordinator === null) {
    throw new LockstepError('E_DOWNLOAD', `${name} can't be had from the coordinator: over NATS it serves no files`, {
      remedy:
        'Leave out --data-from coordinator, or run `npx lockstep setup` where there is a registry and copy its cache.',
    });
  }
  if (from === 'registry' || coordinator === null) fill = await byArchive();
  else if (from === 'coordinator') fill = await byCoordinator(coordinator);
  else {
    fill = await byArchive().catch(async (error: unknown) => {
      if (!(error instanceof LockstepError)) throw error;
      tell(`${error.message}; the coordinator is asked`);
      return byCoordinator(coordinator);
    });
  }
  await installDirectory(directory, async (staging) => {
    await fill(staging);
    const damages = await damagedFiles(staging, source.files);
    if (damages.length > 0) {
      throw new LockstepError(
        'E_DATA_CORRUPT',
        `${name}, as fetched, is not the published one: ${damages.join('; ')}`,
        {
          remedy: 'Start again; if it stays so, report it: a source has changed.',
        },
      );
    }
  });
  rmSync(downloads, { recursive: true, force: true });
}
