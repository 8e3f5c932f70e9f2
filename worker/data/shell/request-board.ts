// What the engine's thread and the data threads tell each other without waiting for messages: words of shared memory. Requests are
// numbered from 1; request n has its microbatch in room n modulo ROOMS. Each data thread reads its piece of every request, in order,
// and says how far it is.

import type { Place, Room } from '../batch-loader.ts';
import { ALIGNMENT_FLOATS, bytesToSkip } from './aligned.ts';

/** One is in the engine's hands while the next is filled. */
export const ROOMS = 2;
const PLACE_WORDS = 3;
/** On cache lines of their own, so that the sides don't slow each other. */
const LINE_WORDS = 16;
const WORDS = { posted: 0, ended: LINE_WORDS, failed: 2 * LINE_WORDS, places: 3 * LINE_WORDS, done: 4 * LINE_WORDS };

/** As it is handed to a thread. */
export interface BoardMemory {
  readonly words: SharedArrayBuffer;
  readonly inputs: SharedArrayBuffer;
  /** Where the first room's inputs begin, and how many floats there are from room to room: all begin where TensorFlow wants them. */
  readonly inputsAt: number;
  readonly roomFloats: number;
  readonly labels: SharedArrayBuffer;
}

/** Memory for `threads` threads and rooms of `samples` samples of `sampleFloats` floats. */
export function boardMemory(threads: number, samples: number, sampleFloats: number): BoardMemory {
  const roomFloats = Math.ceil((samples * sampleFloats) / ALIGNMENT_FLOATS) * ALIGNMENT_FLOATS;
  const inputs = new SharedArrayBuffer((ROOMS * roomFloats + ALIGNMENT_FLOATS) * Float32Array.BYTES_PER_ELEMENT);
  return {
    words: new SharedArrayBuffer((WORDS.done + threads * LINE_WORDS) * Int32Array.BYTES_PER_ELEMENT),
    inputs,
    inputsAt: bytesToSkip(inputs),
    roomFloats,
    labels: new SharedArrayBuffer(ROOMS * samples * Int32Array.BYTES_PER_ELEMENT),
  };
}

export class RequestBoard {
  private readonly words: Int32Array;
  private readonly rooms: readonly Room[];

  constructor({ words, inputs, inputsAt, roomFloats, labels }: BoardMemory) {
    this.words = new Int32Array(words);
    const [floats, numbers] = [new Float32Array(inputs, inputsAt), new Int32Array(labels)];
    this.rooms = Array.from({ length: ROOMS }, (_, i) => ({
      inputs: floats.subarray(i * roomFloats, (i + 1) * roomFloats),
      labels: numbers.subarray((i * numbers.length) / ROOMS, ((i + 1) * numbers.length) / ROOMS),
    }));
  }

  roomOf(request: number): Room {
    const room = this.rooms[request % ROOMS];
    if (room === undefined) throw new Error('requests are whole numbers');
    return room;
  }

  // ---- the engine's thread

  /** Posts `place` as the next request; returns its number. The room that it takes is filled from now on. */
  post({ epoch, batch, microbatch }: Place): number {
    const request = Atomics.load(this.words, WORDS.posted) + 1;
    this.words.set([epoch, batch, microbatch], WORDS.places + (request % ROOMS) * PLACE_WORDS);
    Atomics.store(this.words, WORDS.posted, request);
    Atomics.notify(this.words, WORDS.posted);
    return request;
  }

  /** Waits until thread `thread` has done request `request`, or `ms` are over; true when it has. */
  waitFor(thread: number, request: number, ms: number): boolean {
    const at = WORDS.done + thread * LINE_WORDS;
    const done = Atomics.load(this.words, at);
    if (done >= request) return true;
    Atomics.wait(this.words, at, done, ms);
    return Atomics.load(this.words, at) >= request;
  }

  get hasFailed(): boolean {
    return Atomics.load(this.words, WORDS.failed) === 1;
  }

  /** Tells all threads to return. */
  end(): void {
    Atomics.store(this.words, WORDS.ended, 1);
    Atomics.notify(this.words, WORDS.posted);
  }

  // ---- a data thread

  /** Request `request`, when it has been posted; null once there are no more. */
  next(request: number): Place | null {
    for (;;) {
      if (Atomics.load(this.words, WORDS.ended) === 1) return null;
      const posted = Atomics.load(this.words, WORDS.posted);
      if (posted >= request) break;
      Atomics.wait(this.words, WORDS.posted, posted, WAIT_SLICE_MS);
    }
    const at = WORDS.places + (request % ROOMS) * PLACE_WORDS;
    const [epoch = 0, batch = 0, microbatch = 0] = this.words.subarray(at, at + PLACE_WORDS);
    return { epoch, batch, microbatch };
  }

  done(thread: number, request: number): void {
    Atomics.store(this.words, WORDS.done + thread * LINE_WORDS, request);
    Atomics.notify(this.words, WORDS.done + thread * LINE_WORDS);
  }

  fail(): void {
    Atomics.store(this.words, WORDS.failed, 1);
  }
}

/** A thread that was told to end just before it began to wait sees it after so long. */
const WAIT_SLICE_MS = 200;
