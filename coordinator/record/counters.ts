// counters.json: what scrapes of /metrics have shown, so that counters go on where they were when another coordinator takes the run over.
// Written before the answer to a scrape is sent, and only then: what nobody has seen may be counted anew. One scrape, one small file,
// not synced: when the machine itself dies counters may go back, as those do that begin anew.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { ShownCounters } from '../http/metrics.ts';
import { replaceUnsynced } from './atomic.ts';

const FILE = 'counters.json';

const schema = z.object({
  schema: z.literal(2),
  step: z.int().min(0),
  metrics: z.record(z.string(), z.array(z.tuple([z.string(), z.number().min(0)]))),
});

/** Null where there is none; `warn` is told when there is one that can't be read. */
export async function readCounters(directory: string, warn: (message: string) => void): Promise<ShownCounters | null> {
  let text: string;
  try {
    text = await readFile(join(directory, FILE), 'utf8');
  } catch {
    return null;
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    warn(`${FILE} can't be read: the counters in /metrics begin anew`);
    return null;
  }
}

/** Keeps what is shown, one write after the other; one that waits for its turn is overtaken by a newer one. */
export class CounterFile {
  private readonly directory: string;
  private writing: Promise<void> = Promise.resolve();
  private next: { readonly shown: ShownCounters; readonly written: Promise<void> } | null = null;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** Resolves when `shown`, or what was shown since, is on disk; rejects when it could not be written. */
  async keep(shown: ShownCounters): Promise<void> {
    if (this.next !== null) {
      this.next = { shown, written: this.next.written };
      return this.next.written;
    }
    const written = this.writing.then(async () => {
      const newest = this.next?.shown ?? shown;
      this.next = null;
      await replaceUnsynced(join(this.directory, FILE), `${JSON.stringify({ schema: 2, ...newest })}\n`);
    });
    this.next = { shown, written };
    this.writing = written.catch(() => {});
    return written;
  }
}
