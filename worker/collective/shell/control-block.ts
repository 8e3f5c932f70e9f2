// What the engine's thread and the communication thread tell each other without waiting: a few words of shared memory. The engine's
// thread writes commands, the communication thread reads them in order; it counts the steps whose sum is whole, and leaves what the
// last one took.

import { TRANSPORTS } from '../../../protocol/link.ts';
import { MAX_TRACED_BUCKETS } from '../../../protocol/timeline.ts';
import { MARKS } from '../bucket-marks.ts';
import type { StepFigures } from './exchange.ts';

const WORDS = { written: 0, read: 16, asleep: 32, done: 48, failed: 64, freed: 80, commands: 96 } as const;
const COMMANDS = 4096;
const COMMAND_WORDS = 4;
const CONTROL_WORDS = WORDS.commands + COMMANDS * COMMAND_WORDS;
const CONTROL_BYTES = CONTROL_WORDS * Int32Array.BYTES_PER_ELEMENT;

/** There are no more ranks than microbatches. */
const MAX_RANKS = 64;
/** Of each link: the place of its transport among TRANSPORTS, from 1; bytes out; bytes in. */
const LINK_FIGURES = 3;
const LINKS_AT = 2;
const MARKS_AT = LINKS_AT + LINK_FIGURES * MAX_RANKS;
const FIGURES = MARKS_AT + MARKS * MAX_TRACED_BUCKETS;

export const BEGIN = 1;
export const OFFER = 2;
/** A slot's number where a microbatch has no samples. */
export const NO_SLOT = -1;

export class ControlBlock {
  readonly buffer: SharedArrayBuffer;
  private readonly words: Int32Array;
  private readonly figures: Float64Array;

  constructor(buffer = new SharedArrayBuffer(CONTROL_BYTES + FIGURES * Float64Array.BYTES_PER_ELEMENT)) {
    this.buffer = buffer;
    this.words = new Int32Array(buffer, 0, CONTROL_WORDS);
    this.figures = new Float64Array(buffer, CONTROL_BYTES, FIGURES);
  }

  // ---- the engine's thread

  /** False when there is no room for another command for now. */
  command(kind: number, a = 0, b = 0, c = 0): boolean {
    const { words } = this;
    const written = Atomics.load(words, WORDS.written);
    if (written - Atomics.load(words, WORDS.read) >= COMMANDS) return false;
    words.set([kind, a, b, c], WORDS.commands + (written % COMMANDS) * COMMAND_WORDS);
    Atomics.store(words, WORDS.written, written + 1);
    return true;
  }

  /** True, once, when the communication thread sleeps and must be woken. */
  mustWake(): boolean {
    return Atomics.compareExchange(this.words, WORDS.asleep, 1, 0) === 1;
  }

  get stepsDone(): number {
    return Atomics.load(this.words, WORDS.done);
  }

  get hasFailed(): boolean {
    return Atomics.load(this.words, WORDS.failed) === 1;
  }

  /** The slots freed since the last call. */
  takeFreed(): number[] {
    let bits = Atomics.exchange(this.words, WORDS.freed, 0);
    const slots: number[] = [];
    for (let slot = 0; bits !== 0; slot++, bits >>>= 1) if ((bits & 1) === 1) slots.push(slot);
    return slots;
  }

  /** Blocks this thread until more than `steps` steps are done, something has failed, or `ms` are over. */
  waitForStep(steps: number, ms: number): void {
    if (!this.hasFailed) Atomics.wait(this.words, WORDS.done, steps, ms);
  }

  /** Blocks this thread until a slot has been freed, something has failed, or `ms` are over. */
  waitForSlot(ms: number): void {
    if (!this.hasFailed) Atomics.wait(this.words, WORDS.freed, 0, ms);
  }

  stepFigures(): StepFigures {
    const [waitSeconds = 0, reduceSeconds = 0] = this.figures;
    const traffic = Array.from({ length: MAX_RANKS }, (_, peer) => {
      const [place = 0, bytesOut = 0, bytesIn = 0] = this.figures.subarray(LINKS_AT + LINK_FIGURES * peer);
      const transport = TRANSPORTS[place - 1];
      return transport === undefined ? [] : [{ peer, transport, bytesOut, bytesIn }];
    });
    return { waitSeconds, reduceSeconds, traffic: traffic.flat() };
  }

  /** Of the step's buckets, as `finishStep` was given them. */
  marks(buckets: number): Float64Array {
    return this.figures.subarray(MARKS_AT, MARKS_AT + MARKS * Math.min(buckets, MAX_TRACED_BUCKETS));
  }

  // ---- the communication thread

  /** Hands the commands that are there to `take`; true when there were any. */
  takeCommands(take: (kind: number, a: number, b: number, c: number) => void): boolean {
    const { words } = this;
    let read = Atomics.load(words, WORDS.read);
    const written = Atomics.load(words, WORDS.written);
    if (read === written) return false;
    for (; read < written; read++) {
      const at = WORDS.commands + (read % COMMANDS) * COMMAND_WORDS;
      take(words[at] ?? 0, words[at + 1] ?? 0, words[at + 2] ?? 0, words[at + 3] ?? 0);
      Atomics.store(words, WORDS.read, read + 1);
    }
    return true;
  }

  get hasCommands(): boolean {
    return Atomics.load(this.words, WORDS.read) !== Atomics.load(this.words, WORDS.written);
  }

  sleep(asleep: boolean): void {
    Atomics.store(this.words, WORDS.asleep, asleep ? 1 : 0);
  }

  free(slot: number): void {
    Atomics.or(this.words, WORDS.freed, 1 << slot);
    Atomics.notify(this.words, WORDS.freed);
  }

  /** @param marks of the step's buckets; null: nobody wants them */
  finishStep(figures: StepFigures, marks: Float64Array | null): void {
    if (marks !== null) this.figures.set(marks, MARKS_AT);
    this.figures[0] = figures.waitSeconds;
    this.figures[1] = figures.reduceSeconds;
    for (const { peer, transport, bytesOut, bytesIn } of figures.traffic) {
      this.figures.set([1 + TRANSPORTS.indexOf(transport), bytesOut, bytesIn], LINKS_AT + LINK_FIGURES * peer);
    }
    Atomics.add(this.words, WORDS.done, 1);
    Atomics.notify(this.words, WORDS.done);
  }

  fail(): void {
    Atomics.store(this.words, WORDS.failed, 1);
    Atomics.notify(this.words, WORDS.done);
    Atomics.notify(this.words, WORDS.freed);
  }
}
