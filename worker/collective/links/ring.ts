// A byte stream through memory that two processes share: one writes, one reads, neither waits for the other here. The indices
// count bytes ever written and read, modulo 2^32; their difference is what lies in between. They are published by atomic stores,
// which order the bytes before them.

import { LockstepError } from '../../../protocol/errors.ts';

/** Words (int32) of a ring's head, each on a cache line of its own, so that the two sides don't slow each other. */
const LINE_WORDS = 16;
const WRITTEN = 0;
const READ = LINE_WORDS;
const READER_ASLEEP = 2 * LINE_WORDS;
const WRITER_WAITS = 3 * LINE_WORDS;
export const RING_HEAD_BYTES = 4 * LINE_WORDS * Int32Array.BYTES_PER_ELEMENT;

/** Bytes that are published at once: the reader begins on them while the next are written. */
const PUBLISH_BYTES = 64 * 1024;

interface Parts {
  readonly head: Int32Array;
  readonly bytes: Uint8Array;
}

function partsOf(buffer: ArrayBuffer, offset: number, capacity: number): Parts {
  if ((capacity & (capacity - 1)) !== 0) throw new Error('the capacity of a ring is a power of two');
  return {
    head: new Int32Array(buffer, offset, RING_HEAD_BYTES / Int32Array.BYTES_PER_ELEMENT),
    bytes: new Uint8Array(buffer, offset + RING_HEAD_BYTES, capacity),
  };
}

/** How many bytes lie in between; the other side is another process, so its index is not to be believed. */
function used({ head, bytes }: Parts): number {
  const count = (Atomics.load(head, WRITTEN) - Atomics.load(head, READ)) >>> 0;
  if (count > bytes.byteLength) {
    throw new LockstepError('E_FRAME', `a ring of ${bytes.byteLength} bytes with ${count} in it`);
  }
  return count;
}

export class RingWriter {
  private readonly parts: Parts;
  private written: number;

  constructor(buffer: ArrayBuffer, offset: number, capacity: number) {
    this.parts = partsOf(buffer, offset, capacity);
    this.written = Atomics.load(this.parts.head, WRITTEN) >>> 0;
  }

  /** Writes as many of the bytes from `from` as there is room for; returns how many. Throws E_FRAME when the ring is corrupt. */
  write(data: Uint8Array, from: number): number {
    const { head, bytes } = this.parts;
    const capacity = bytes.byteLength;
    let done = 0;
    for (;;) {
      const place = this.written & (capacity - 1);
      const count = Math.min(
        capacity - used(this.parts),
        data.byteLength - from - done,
        capacity - place,
        PUBLISH_BYTES,
      );
      if (count === 0) return done;
      bytes.set(data.subarray(from + done, from + done + count), place);
      this.written = (this.written + count) >>> 0;
      Atomics.store(head, WRITTEN, this.written | 0);
      done += count;
    }
  }

  /** Asks to be told what the reader takes; true when the ring is full. */
  wait(): boolean {
    const { head, bytes } = this.parts;
    Atomics.store(head, WRITER_WAITS, 1);
    return used(this.parts) === bytes.byteLength;
  }

  /** True when the reader has taken all that was written. */
  get isRead(): boolean {
    return used(this.parts) === 0;
  }

  /** True, once, when the reader has gone to sleep and must be woken for what was written. */
  mustWake(): boolean {
    return Atomics.compareExchange(this.parts.head, READER_ASLEEP, 1, 0) === 1;
  }
}

export class RingReader {
  private readonly parts: Parts;
  private read: number;

  constructor(buffer: ArrayBuffer, offset: number, capacity: number) {
    this.parts = partsOf(buffer, offset, capacity);
    this.read = Atomics.load(this.parts.head, READ) >>> 0;
  }

  /**
   * Hands over what lies there, in pieces that are free again after the call; true when there was something. Throws E_FRAME when
   * the ring is corrupt, and what `take` throws.
   */
  take(take: (bytes: Uint8Array) => void): boolean {
    const { head, bytes } = this.parts;
    const capacity = bytes.byteLength;
    let took = false;
    // What was there at the beginning, no more: others have a turn, too.
    let count = used(this.parts);
    while (count > 0) {
      const place = this.read & (capacity - 1);
      const piece = Math.min(count, capacity - place, PUBLISH_BYTES);
      take(bytes.subarray(place, place + piece));
      this.read = (this.read + piece) >>> 0;
      Atomics.store(head, READ, this.read | 0);
      count -= piece;
      took = true;
    }
    return took;
  }

  get isEmpty(): boolean {
    return used(this.parts) === 0;
  }

  sleep(asleep: boolean): void {
    Atomics.store(this.parts.head, READER_ASLEEP, asleep ? 1 : 0);
  }

  /** True, once, when the writer has asked to be told of what was taken. */
  mustWake(): boolean {
    return Atomics.compareExchange(this.parts.head, WRITER_WAITS, 1, 0) === 1;
  }
}
