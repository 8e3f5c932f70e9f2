// Control messages (messages.ts) on a stream of bytes: each with its length before it, u32 little-endian. A core.

import { LockstepError } from './errors.ts';
import { MAX_MESSAGE_BYTES } from './messages.ts';

const LENGTH_BYTES = 4;

/** A message's length, to be sent before it. */
export function messageHead(message: Uint8Array): Uint8Array {
  const head = new Uint8Array(LENGTH_BYTES);
  new DataView(head.buffer).setUint32(0, message.byteLength, true);
  return head;
}

export class MessageReader {
  private readonly take: (message: Uint8Array) => void;
  private readonly head = new Uint8Array(LENGTH_BYTES);
  private headBytes = 0;
  private body = new Uint8Array(0);
  private bodyBytes = 0;

  /** @param take is given each message when it is whole, and may keep it. */
  constructor(take: (message: Uint8Array) => void) {
    this.take = take;
  }

  /** Takes the stream's next bytes. Throws LockstepError E_MESSAGE for a length above the limit, and what `take` throws. */
  push(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.byteLength) {
      if (this.headBytes < LENGTH_BYTES) {
        this.head[this.headBytes++] = bytes[at++] ?? 0;
        if (this.headBytes === LENGTH_BYTES) this.begin();
        continue;
      }
      const piece = bytes.subarray(at, at + this.body.byteLength - this.bodyBytes);
      this.body.set(piece, this.bodyBytes);
      this.bodyBytes += piece.byteLength;
      at += piece.byteLength;
      this.finishWhole();
    }
  }

  private begin(): void {
    const length = new DataView(this.head.buffer).getUint32(0, true);
    if (length > MAX_MESSAGE_BYTES) {
      throw new LockstepError('E_MESSAGE', `a message of ${length} bytes; the limit is ${MAX_MESSAGE_BYTES}`);
    }
    this.body = new Uint8Array(length);
    this.bodyBytes = 0;
    this.finishWhole();
  }

  private finishWhole(): void {
    if (this.bodyBytes < this.body.byteLength) return;
    this.headBytes = 0;
    this.take(this.body);
  }
}
