// Reads entries of a zip file (a Python wheel is one), in order, through yauzl, as an async iteration.

import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import yauzl from 'yauzl';

export interface ZipEntry {
  readonly name: string;
  open(): Promise<Readable>;
}

export interface Zip {
  entries(): AsyncGenerator<ZipEntry>;
  close(): void;
}

export async function openZip(path: string): Promise<Zip> {
  const zip = await promisify<string, yauzl.Options, yauzl.ZipFile>(yauzl.open)(path, {
    lazyEntries: true,
    autoClose: false,
  });
  return {
    close: () => zip.close(),
    entries: async function* () {
      for (;;) {
        const entry = await new Promise<yauzl.Entry | null>((resolve, reject) => {
          const done = (value: yauzl.Entry | null): void => {
            zip.removeAllListeners();
            resolve(value);
          };
          zip.once('entry', done);
          zip.once('end', () => done(null));
          zip.once('error', reject);
          zip.readEntry();
        });
        if (entry === null) return;
        yield {
          name: entry.fileName,
          open: () =>
            new Promise((resolve, reject) => {
              zip.openReadStream(entry, (error, stream) => (error === null ? resolve(stream) : reject(error)));
            }),
        };
      }
    },
  };
}
