// Writing a file so that a reader, and the next start after a crash, sees the old or the new one, never a part: written aside,
// fsynced, renamed, its directory fsynced.

import { open, rename } from 'node:fs/promises';
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

export async function replaceFile(path: string, content: string | Uint8Array): Promise<void> {
  const aside = `${path}.new-${process.pid}`;
  await writeDurable(aside, content);
  await rename(aside, path);
  await syncDirectory(dirname(path));
}
