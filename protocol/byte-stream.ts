// One side of an ordered two-way stream of bytes over a carrier that only carries messages: NATS. It keeps the order of one sender, but
// may lose a message and tells of no death; so messages are numbered, and a gap or a repetition ends the stream: never other bits.
//
//     byte 0  kind: 1 data, 2 credit, 3 goodbye, 4 beat       bytes 1-4  sequence number, u32 little-endian, from 0 each way
//     data: the stream's next bytes       credit: float64, bytes taken so far       goodbye: the reason, UTF-8
//
// A server drops a subscriber that falls behind, so a sender waits for credit: at most a window is under way. How much that may be is
// the receiver's affair: one that may not read for a while gets no more than its socket and the server's hold. A side beats, whether
// or not it has something to say: a lost message is found by the next beat at the latest, and a long silence ends the stream.
// A core: messages and the time come in, messages and bytes go out.

import { LockstepError } from './errors.ts';
import type { LinkEnd } from './link.ts';
import { Silence, type SilenceLimits } from './silence.ts';

const DATA = 1;
const CREDIT = 2;
const GOODBYE = 3;
const BEAT = 4;
/** Of a message, before what it carries. */
export const STREAM_HEAD_BYTES = 5;

/** Bytes that may be under way to a side that always reads. */
export const WINDOW_BYTES = 4 * 1024 * 1024;
/** And to one that may not, for as long as an engine holds its thread. */
export const SMALL_WINDOW_BYTES = 128 * 1024;
/** Of a goodbye's reason: it fits the smallest message that a server may be set to. */
const GOODBYE_BYTES = 500;

export interface ByteStreamOptions {
  /** Bytes of the stream in one message, at most. */
  readonly chunkBytes: number;
  /** Bytes that may be under way to the other side, and to this one: each side's `windowIn` is the other's `windowOut`. */
  readonly windowOut: number;
  readonly windowIn: number;
  /** After which silence the other side is taken for dead. */
  readonly silence: SilenceLimits;
  readonly nowMs: number;
  /** Sends one message to the other side; a beat asks the carrier to say when nobody is there to hear it. */
  readonly publish: (message: Uint8Array, isBeat: boolean) => void;
  /** Told once. Whole data that came before have been delivered. */
  readonly ended: (end: LinkEnd) => void;
}

export class ByteStream {
  /** Bytes that have left, and that were delivered. */
  bytesOut = 0;
  bytesIn = 0;
  private readonly options: ByteStreamOptions;
  private readonly queue: Uint8Array[] = [];
  private queueAt = 0;
  private drains: (() => void)[] = [];
  /** What came before anybody took it: a window at most, since it is not credited. */
  private readonly early: Uint8Array[] = [];
  private deliver: ((bytes: Uint8Array) => void) | null = null;
  private sequenceOut = 0;
  private sequenceIn = 0;
  private credited = 0;
  private credit = 0;
  private readonly silence: Silence;
  private hasHeard = false;
  private end: LinkEnd | null = null;

  constructor(options: ByteStreamOptions) {
    this.options = options;
    this.silence = new Silence(options.silence, options.nowMs);
  }

  /** Sends `bytes`, as far as the window goes at once; they must stay as they are until `drained`. */
  send(bytes: Uint8Array): void {
    if (this.end !== null || bytes.byteLength === 0) return;
    this.queue.push(bytes);
  }

  /** Lets what was sent leave, in messages as large as may be. */
  push(): void {
    if (this.end !== null) return;
    const { chunkBytes, windowOut } = this.options;
    while (this.queue.length > 0 && this.bytesOut - this.credited < windowOut) {
      const pieces: Uint8Array[] = [];
      let room = Math.min(chunkBytes, windowOut - (this.bytesOut - this.credited));
      while (this.queue.length > 0 && room > 0) {
        const whole = this.queue[0] ?? new Uint8Array(0);
        const piece = whole.subarray(this.queueAt, this.queueAt + room);
        pieces.push(piece);
        room -= piece.byteLength;
        this.bytesOut += piece.byteLength;
        this.queueAt += piece.byteLength;
        if (this.queueAt === whole.byteLength) {
          this.queue.shift();
          this.queueAt = 0;
        }
      }
      this.say(DATA, pieces);
    }
    if (this.queue.length === 0) this.drain();
  }

  /** Hands the stream's bytes to `deliver`, in order, from now on. What it throws is refused, and ends the stream. */
  receive(deliver: (bytes: Uint8Array) => void): void {
    this.deliver = deliver;
    try {
      for (const bytes of this.early.splice(0)) this.take(bytes);
    } catch (refusal) {
      this.refuse(refusal);
    }
  }

  /** Calls `done` when all that was sent has left, or the stream has ended. */
  whenDrained(done: () => void): void {
    if (this.queue.length === 0 || this.end !== null) done();
    else this.drains.push(done);
  }

  /** What was sent before goes out before the goodbye. */
  close(because: string): void {
    this.whenDrained(() => this.leave(because, null));
  }

  /** Ends it with an error that this side found; the other is told. */
  refuse(error: unknown): void {
    const told = error instanceof LockstepError ? error : new LockstepError('E_FRAME', String(error), { cause: error });
    this.leave(told.message, told);
  }

  /** The carrier says that it is at its end, or that nobody listens on the other side. */
  lose(because: string): void {
    this.finish({ because, error: null });
  }

  /** To be called at every beat. */
  tick(nowMs: number): void {
    if (this.end !== null) return;
    // Whatever came since the last beat is one sign of life, of now: a clock read at each message would cost more than it tells.
    if (this.hasHeard) this.silence.heard(nowMs);
    this.hasHeard = false;
    if (this.silence.isSilent(nowMs)) this.lose(this.silence.complaint(nowMs));
    else this.say(BEAT, []);
  }

  /** Takes a message of the other side. */
  hear(message: Uint8Array): void {
    if (this.end !== null) return;
    this.hasHeard = true;
    try {
      this.read(message);
    } catch (refusal) {
      this.refuse(refusal);
    }
  }

  private read(message: Uint8Array): void {
    if (message.byteLength < STREAM_HEAD_BYTES) throw malformed('its head');
    const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
    const sequence = view.getUint32(1, true);
    if (sequence !== this.sequenceIn) {
      throw new LockstepError(
        'E_FRAME',
        `message ${sequence} over NATS where ${this.sequenceIn} was due: some were lost`,
      );
    }
    this.sequenceIn = (this.sequenceIn + 1) >>> 0;
    const payload = message.subarray(STREAM_HEAD_BYTES);
    switch (message[0]) {
      case DATA:
        return this.take(payload);
      case CREDIT: {
        const credit = payload.byteLength === 8 ? view.getFloat64(STREAM_HEAD_BYTES, true) : Number.NaN;
        if (!(credit >= this.credited && credit <= this.bytesOut)) throw malformed(`credit for ${credit} bytes`);
        this.credited = credit;
        return this.push();
      }
      case GOODBYE:
        return this.finish({ because: new TextDecoder().decode(payload), error: null });
      case BEAT:
        return undefined;
      default:
        throw malformed(`kind ${message[0]}`);
    }
  }

  private take(bytes: Uint8Array): void {
    if (this.deliver === null) {
      const waiting = this.early.reduce((sum, one) => sum + one.byteLength, 0);
      if (waiting + bytes.byteLength > this.options.windowIn) throw malformed('more than the window');
      this.early.push(bytes);
      return;
    }
    this.deliver(bytes);
    this.bytesIn += bytes.byteLength;
    // Often enough to keep the sender going.
    if (this.bytesIn - this.credit < this.options.windowIn / 4) return;
    this.credit = this.bytesIn;
    this.say(CREDIT, [new Uint8Array(new Float64Array([this.bytesIn]).buffer)]);
  }

  private say(kind: number, payload: readonly Uint8Array[]): void {
    const message = new Uint8Array(STREAM_HEAD_BYTES + payload.reduce((sum, piece) => sum + piece.byteLength, 0));
    message[0] = kind;
    new DataView(message.buffer).setUint32(1, this.sequenceOut, true);
    this.sequenceOut = (this.sequenceOut + 1) >>> 0;
    let at = STREAM_HEAD_BYTES;
    for (const piece of payload) {
      message.set(piece, at);
      at += piece.byteLength;
    }
    this.options.publish(message, kind === BEAT);
  }

  private leave(because: string, error: LockstepError | null): void {
    if (this.end !== null) return;
    this.say(GOODBYE, [new TextEncoder().encode(because).subarray(0, GOODBYE_BYTES)]);
    this.finish({ because, error });
  }

  private finish(end: LinkEnd): void {
    if (this.end !== null) return;
    this.end = end;
    this.queue.length = 0;
    this.early.length = 0;
    this.drain();
    this.options.ended(end);
  }

  private drain(): void {
    for (const done of this.drains.splice(0)) done();
  }
}

function malformed(what: string): LockstepError {
  return new LockstepError('E_FRAME', `a malformed message over NATS: ${what}`);
}
