// Writing a file so that a reader, and the next start after a crash, sees the old or the new one, never a part: written aside,
// fsynced, renamed, its directory fsynced.

import { open, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Makes a rename or a new file in `directory` durable. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export async function writeDurable(path: string, content: string | Uint8Array): Promise<void> {
  const handle = await open(path, 'w');
  try {
    await handle.writeFile(content);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const DISK_FAILURES: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT', 'EFBIG', 'EROFS', 'EIO']);

/** A disk that is full, read-only or broken: nobody's wrong wish. */
export function isDiskFailure(error: unknown): boolean {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && DISK_FAILURES.has(error.code);
}

/**
 * For what is written often and matters while the machine is up: whatever process dies, there is the old or the new one. A third of the
 * processor time, for there is no sync; when the machine itself dies it may be lost.
 */
export async function replaceUnsynced(path: string, content: string): Promise<void> {
  const aside = `${path}.new-${process.pid}`;
  try {
    await writeFile(aside, content);
  } catch (error) {
    await rm(aside, { force: true }).catch(() => {});
    throw error;
  }
  await rename(aside, path);
}

export async function replaceFile(path: string, content: string | Uint8Array): Promise<void> {
  const aside = `${path}.new-${process.pid}`;
  try {
    await writeDurable(aside, content);
  } catch (error) {
    // Half a file would only take the room that is wanted.
    await rm(aside, { force: true }).catch(() => {});
    throw error;
  }
  await rename(aside, path);
  await syncDirectory(dirname(path));
}
