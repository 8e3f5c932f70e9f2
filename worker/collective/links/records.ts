// What goes through a ring of shared memory: records, each a head of 16 little-endian bytes and what it says follows.
//
//     0  u32  kind      4  u32  bytes      8  f64  place
//
//     1 frame         `bytes` of a frame: header and payload
//     2 reference     a frame's header; its payload, `bytes` long, lies at `place` in the sender's vectors, as long as the sink takes it
//     3 vectors       `bytes` of JSON: where the sender's vectors can be reached (shared-vectors.ts)
//     4 mapped        the sender reads the other's vectors: from now on it may be sent references
//
// Pure. A ring is bytes that another process writes, so nothing of it is believed: what is out of bounds is refused by E_FRAME.

import { z } from 'zod';
import { LockstepError } from '../../../protocol/errors.ts';
import { FRAME_HEADER_BYTES, MAX_FRAME_BYTES } from '../../../protocol/frame.ts';
import type { VectorsAddress } from '../../../protocol/link.ts';

const FRAME = 1;
const REFERENCE = 2;
const VECTORS = 3;
const MAPPED = 4;
const HEAD_BYTES = 16;
/** Of the JSON in a record. */
const MAX_TEXT_BYTES = 512;
/** What a WebAssembly memory can be. */
const MAX_VECTORS_BYTES = 4 * 1024 ** 3;

const addressSchema = z.strictObject({
  pid: z.int().positive(),
  fd: z.int().nonnegative(),
  bytes: z.int().positive().max(MAX_VECTORS_BYTES),
  wordAt: z.int().nonnegative().max(MAX_VECTORS_BYTES),
  word: z.string().regex(/^[0-9a-f]{32}$/),
});

function headOf(kind: number, bytes: number, place = 0): Uint8Array {
  const head = new Uint8Array(HEAD_BYTES);
  const view = new DataView(head.buffer);
  view.setUint32(0, kind, true);
  view.setUint32(4, bytes, true);
  view.setFloat64(8, place, true);
  return head;
}

export function frameRecord(header: Uint8Array, payload: Uint8Array): Uint8Array[] {
  const head = headOf(FRAME, header.byteLength + payload.byteLength);
  return payload.byteLength === 0 ? [head, header] : [head, header, payload];
}

export function referenceRecord(header: Uint8Array, place: number, bytes: number): Uint8Array[] {
  return [headOf(REFERENCE, bytes, place), header];
}

export function vectorsRecord(address: VectorsAddress): Uint8Array[] {
  const text = new TextEncoder().encode(JSON.stringify(address));
  return [headOf(VECTORS, text.byteLength), text];
}

export function mappedRecord(): Uint8Array[] {
  return [headOf(MAPPED, 0)];
}

/** What comes out of a ring. Each may throw LockstepError: reading stops with it. */
export interface RecordEvents {
  /** The next bytes of a frame; valid only during the call. */
  bytes(bytes: Uint8Array): void;
  /** The frame's payload, of which only the place came. */
  reference(place: number, bytes: number): void;
  /** All that the record says of the frame has come. */
  frameEnd(): void;
  vectors(address: VectorsAddress): void;
  mapped(): void;
}

function refuse(what: string): never {
  throw new LockstepError('E_FRAME', `a malformed record in shared memory: ${what}`);
}

/** Reads records from a stream of bytes, cut anywhere. Keeps a head and a record's text at most. */
export class RecordReader {
  private readonly events: RecordEvents;
  private readonly head = new Uint8Array(HEAD_BYTES);
  private headBytes = 0;
  private kind = 0;
  private length = 0;
  private place = 0;
  /** Bytes that follow the head and have not come. */
  private missing = 0;
  private text = new Uint8Array(0);

  constructor(events: RecordEvents) {
    this.events = events;
  }

  /** Takes the stream's next bytes. Throws LockstepError E_FRAME, and what the events throw. */
  push(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.byteLength) {
      if (this.headBytes < HEAD_BYTES) at = this.takeHead(bytes, at);
      else at = this.takeBody(bytes, at);
    }
  }

  private takeHead(bytes: Uint8Array, at: number): number {
    const taken = Math.min(HEAD_BYTES - this.headBytes, bytes.byteLength - at);
    this.head.set(bytes.subarray(at, at + taken), this.headBytes);
    this.headBytes += taken;
    if (this.headBytes === HEAD_BYTES) this.takeWholeHead();
    return at + taken;
  }

  private takeWholeHead(): void {
    const view = new DataView(this.head.buffer);
    this.kind = view.getUint32(0, true);
    this.length = view.getUint32(4, true);
    this.place = view.getFloat64(8, true);
    const { kind, length } = this;
    if (kind === FRAME) {
      if (length < FRAME_HEADER_BYTES || length > MAX_FRAME_BYTES) refuse(`a frame of ${length} bytes`);
      this.missing = length;
    } else if (kind === REFERENCE) {
      if (length === 0 || length > MAX_FRAME_BYTES - FRAME_HEADER_BYTES) refuse(`a payload of ${length} bytes`);
      this.missing = FRAME_HEADER_BYTES;
    } else if (kind === VECTORS) {
      if (length > MAX_TEXT_BYTES) refuse(`${length} bytes of text; the limit is ${MAX_TEXT_BYTES}`);
      this.missing = length;
      this.text = new Uint8Array(length);
    } else {
      if (kind !== MAPPED) refuse(`kind ${kind}`);
      if (length !== 0) refuse(`${length} bytes where none follow`);
      this.missing = 0;
    }
    if (kind !== REFERENCE && this.place !== 0) refuse('a place without a reference');
    if (this.missing === 0) this.finish();
  }

  private takeBody(bytes: Uint8Array, at: number): number {
    const end = Math.min(bytes.byteLength, at + this.missing);
    const piece = bytes.subarray(at, end);
    if (this.kind === VECTORS) this.text.set(piece, this.length - this.missing);
    else this.events.bytes(piece);
    this.missing -= piece.byteLength;
    if (this.missing === 0) this.finish();
    return end;
  }

  private finish(): void {
    this.headBytes = 0;
    if (this.kind === MAPPED) this.events.mapped();
    else if (this.kind === VECTORS) this.events.vectors(this.addressIn(this.text));
    else {
      if (this.kind === REFERENCE) this.events.reference(this.place, this.length);
      this.events.frameEnd();
    }
  }

  private addressIn(text: Uint8Array): VectorsAddress {
    try {
      return addressSchema.parse(JSON.parse(new TextDecoder().decode(text)));
    } catch {
      return refuse('no address of vectors');
    }
  }
}
