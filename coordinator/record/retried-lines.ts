// Lines appended to a file in batches, each batch there whole or not at all. A batch that can't be written (a full disk) is cut off
// again and waits for the next try, up to a limit beyond which further lines are lost, and that is said.
// The journal and the metrics log are made of it; they differ in when they write and what they sync.

import type { FileHandle } from 'node:fs/promises';

/** Text that may wait for room: half a day of a journal, or some 40,000 steps. */
export const MAX_WAITING_BYTES = 8 * 1024 * 1024;

/** Told of every try: null where it went well. */
export type WriteObserver = (failure: Error | null) => void;

export class RetriedLines {
  private readonly file: FileHandle;
  private readonly observe: WriteObserver;
  private waiting: string[] = [];
  private waitingBytes = 0;
  private durableBytes: number;
  private torn = false;
  private dropped = 0;

  /** @param size bytes of the file as it is */
  constructor(file: FileHandle, size: number, observe: WriteObserver) {
    this.file = file;
    this.durableBytes = size;
    this.observe = observe;
  }

  get hasWaiting(): boolean {
    return this.waiting.length > 0;
  }

  add(line: string): void {
    if (this.waitingBytes + line.length > MAX_WAITING_BYTES) {
      this.dropped++;
      return;
    }
    this.waiting.push(line);
    this.waitingBytes += line.length;
  }

  /** Writes what waits. One call at a time. Throws what the disk says, after the observer was told. */
  async write(sync: boolean): Promise<void> {
    const lines = this.waiting.length;
    const bytes = Buffer.from(this.waiting.join(''));
    try {
      if (this.torn) await this.file.truncate(this.durableBytes);
      this.torn = false;
      if (bytes.length > 0) await this.file.appendFile(bytes);
      if (sync) await this.file.datasync();
    } catch (error) {
      this.torn = true;
      const failure = error instanceof Error ? error : new Error(String(error));
      if (this.dropped > 0) failure.message += `; ${this.dropped} lines are lost, more than can wait`;
      this.observe(failure);
      throw failure;
    }
    this.durableBytes += bytes.length;
    for (const line of this.waiting.splice(0, lines)) this.waitingBytes -= line.length;
    if (bytes.length > 0) this.observe(null);
  }

  /** Ends it without a word: the file is another's. */
  async abandon(): Promise<void> {
    this.waiting = [];
    await this.file.close();
  }

  /** A last try; leaves no part of a batch behind. Throws what the disk says. */
  async close(): Promise<void> {
    try {
      await this.write(true);
    } finally {
      if (this.torn) await this.file.truncate(this.durableBytes).catch(() => {});
      await this.file.close();
    }
  }
}
