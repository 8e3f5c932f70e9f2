// A frame: what one rank sends another in an all-reduce. A fixed little-endian header of 48 bytes, then the payload: float32, or 16 bits
// an element where gradients are compressed.
//
//      0  u32  magic "LSF1"            4  u8   kind (1 scatter, 2 gather, 3 absent)
//      5  u8   elements (0 float32, 1 bf16, 2 fp16)            6  u16  zero
//      8  u32  generation             12  u32  zero          16  f64  step
//     24  u32  sender's rank          28  u32  bucket
//     32  u16  node start             34  u16  node size      (scatter and absent; zero for gather)
//     36  u32  offset, in elements of the whole vector        40  u32  count, in elements        44  u32  slice
//
// Frames are read from a stream of bytes as it comes, cut anywhere. Reading keeps a header and a part of one element: it allocates
// nothing by what a peer says, and copies nothing of a payload.

import { LockstepError } from './errors.ts';

export const FRAME_HEADER_BYTES = 48;
/** Longest frame that is accepted: 256 MiB as float32. */
export const MAX_FRAME_BYTES = FRAME_HEADER_BYTES + 256 * 1024 * 1024;

const MAGIC = 0x3146534c; // "LSF1"
const KINDS = { 1: 'scatter', 2: 'gather', 3: 'absent' } as const;

/** How the numbers of a payload are written, by their number in the header. */
const ELEMENTS = ['float32', 'bf16', 'fp16'] as const;
export type ElementType = (typeof ELEMENTS)[number];
export const ELEMENT_BYTES: Readonly<Record<ElementType, number>> = { float32: 4, bf16: 2, fp16: 2 };

export interface FrameHeader {
  /** scatter: a node's part of a slice, to the slice's owner; gather: a summed slice, from its owner; absent: a node without samples. */
  readonly kind: (typeof KINDS)[keyof typeof KINDS];
  readonly elements: ElementType;
  readonly generation: number;
  readonly step: number;
  readonly rank: number;
  readonly bucket: number;
  /** Whose slice of the bucket: the rank that sums it. */
  readonly slice: number;
  readonly node: { readonly start: number; readonly size: number };
  readonly offset: number;
  readonly count: number;
}

/**
 * Takes frames as they come in, without putting them together first: a payload is used piece by piece while it is warm. Each of
 * the three may throw LockstepError to refuse the frame; the link is closed then, with that error.
 */
export interface FrameSink {
  begin(header: FrameHeader): void;
  /**
   * Where the payload's next bytes may be read to, so that nobody has to copy them: `bytes` of them at most, whole elements, as is
   * what is returned; null: anywhere. What was read there is handed to `data` as parts of it, in order. For float32 alone.
   */
  place?(bytes: number): Uint8Array | null;
  /** The payload's next bytes, whole elements, not necessarily aligned; valid only during the call. */
  data(bytes: Uint8Array): void;
  /** The payload is whole. Comes after `begin` at once where there is none. */
  end(): void;
}

export function encodeFrameHeader(header: FrameHeader): Uint8Array {
  const bytes = new Uint8Array(FRAME_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, header.kind === 'scatter' ? 1 : header.kind === 'gather' ? 2 : 3);
  view.setUint8(5, ELEMENTS.indexOf(header.elements));
  view.setUint32(8, header.generation, true);
  view.setFloat64(16, header.step, true);
  view.setUint32(24, header.rank, true);
  view.setUint32(28, header.bucket, true);
  view.setUint16(32, header.node.start, true);
  view.setUint16(34, header.node.size, true);
  view.setUint32(36, header.offset, true);
  view.setUint32(40, header.count, true);
  view.setUint32(44, header.slice, true);
  return bytes;
}

function refuse(what: string): never {
  throw new LockstepError('E_FRAME', `a malformed frame: ${what}`);
}

/** Bytes of payload that follow a header. */
export function payloadBytesOf(header: FrameHeader): number {
  return header.kind === 'absent' ? 0 : ELEMENT_BYTES[header.elements] * header.count;
}

/** Parses the FRAME_HEADER_BYTES of a header. Throws LockstepError E_FRAME that names the field. */
export function decodeFrameHeader(bytes: Uint8Array): FrameHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) refuse('magic');
  const kindNumber = view.getUint8(4);
  if (kindNumber !== 1 && kindNumber !== 2 && kindNumber !== 3) refuse(`kind ${kindNumber}`);
  const elements = ELEMENTS[view.getUint8(5)] ?? refuse(`elements ${view.getUint8(5)}`);
  if (view.getUint16(6, true) !== 0 || view.getUint32(12, true) !== 0) refuse('reserved bytes');
  const step = view.getFloat64(16, true);
  if (!Number.isSafeInteger(step) || step < 0) refuse(`step ${step}`);
  const count = view.getUint32(40, true);
  const limit = (MAX_FRAME_BYTES - FRAME_HEADER_BYTES) / Float32Array.BYTES_PER_ELEMENT;
  if (count > limit) refuse(`count ${count}; the limit is ${limit}`);
  return {
    kind: KINDS[kindNumber],
    elements,
    generation: view.getUint32(8, true),
    step,
    rank: view.getUint32(24, true),
    bucket: view.getUint32(28, true),
    slice: view.getUint32(44, true),
    node: { start: view.getUint16(32, true), size: view.getUint16(34, true) },
    offset: view.getUint32(36, true),
    count,
  };
}

/** Reads frames from a stream of bytes and hands them to a sink, piece by piece. */
export class FrameReader {
  private readonly sink: FrameSink;
  private readonly header = new Uint8Array(FRAME_HEADER_BYTES);
  private headerBytes = 0;
  /** Bytes of the present frame's payload that are still to come. */
  private missing = 0;
  /** Bytes of one element of it. */
  private unit = 0;
  /** The bytes of an element that was cut: the first `carried` are here. */
  private readonly carry = new Uint8Array(Math.max(...Object.values(ELEMENT_BYTES)));
  private carried = 0;
  /** Where the sink wants what comes next: the first `landedBytes` are there, the first `told` of them known to the sink. */
  private place: Uint8Array | null = null;
  private landedBytes = 0;
  private told = 0;

  constructor(sink: FrameSink) {
    this.sink = sink;
  }

  /** True between frames: nothing of one is missing. */
  get atBoundary(): boolean {
    return this.headerBytes === 0;
  }

  /** True where a header comes next, or the rest of one. */
  get atHeader(): boolean {
    return this.headerBytes < FRAME_HEADER_BYTES;
  }

  /** Takes the stream's next bytes. Throws LockstepError E_FRAME for a malformed header, and what the sink throws. */
  push(bytes: Uint8Array): void {
    let at = 0;
    if (bytes.byteLength > 0) this.leavePlace();
    while (at < bytes.byteLength) {
      if (this.atHeader) at = this.takeHeader(bytes, at);
      else at = this.takePayload(bytes, at);
    }
  }

  /**
   * Where the stream's next bytes may be read to, instead of being pushed: never more than the present payload still misses. Null
   * where that is of no matter. The reader must be told of what was read there by `landed`, before anything else.
   */
  landing(): Uint8Array | null {
    if (this.place !== null) return this.place.subarray(this.landedBytes);
    if (this.atHeader) return null;
    this.place = this.sink.place?.(this.carried + this.missing) ?? null;
    if (this.place === null) return null;
    // The place begins with the float that was cut.
    this.place.set(this.carry.subarray(0, this.carried));
    this.landedBytes = this.carried;
    this.carried = 0;
    this.told = 0;
    return this.place.subarray(this.landedBytes);
  }

  /** The stream's next `count` bytes have been read to the landing. Throws as `push` does. */
  landed(count: number): void {
    const { place } = this;
    if (place === null) throw new Error('nothing was to be read in place');
    this.landedBytes += count;
    this.missing -= count;
    const told = this.landedBytes & ~3;
    const from = this.told;
    this.told = told;
    if (this.landedBytes === place.byteLength) this.place = null;
    if (told > from) this.sink.data(place.subarray(from, told));
    if (this.missing === 0) this.finish();
  }

  /** What comes next comes some other way. */
  private leavePlace(): void {
    if (this.place === null) return;
    const cut = this.place.subarray(this.told, this.landedBytes);
    this.carry.set(cut);
    this.carried = cut.byteLength;
    this.place = null;
  }

  private takeHeader(bytes: Uint8Array, at: number): number {
    const taken = Math.min(FRAME_HEADER_BYTES - this.headerBytes, bytes.byteLength - at);
    this.header.set(bytes.subarray(at, at + taken), this.headerBytes);
    this.headerBytes += taken;
    if (this.headerBytes < FRAME_HEADER_BYTES) return at + taken;
    const header = decodeFrameHeader(this.header);
    this.sink.begin(header);
    this.missing = payloadBytesOf(header);
    this.unit = ELEMENT_BYTES[header.elements];
    if (this.missing === 0) this.finish();
    return at + taken;
  }

  private takePayload(bytes: Uint8Array, start: number): number {
    let at = start;
    const end = Math.min(bytes.byteLength, at + this.missing);
    if (this.carried > 0) {
      const taken = Math.min(this.unit - this.carried, end - at);
      this.carry.set(bytes.subarray(at, at + taken), this.carried);
      this.carried += taken;
      at += taken;
      if (this.carried === this.unit) {
        this.carried = 0;
        this.sink.data(this.carry.subarray(0, this.unit));
      }
    }
    const whole = (end - at) & ~(this.unit - 1);
    if (whole > 0) this.sink.data(bytes.subarray(at, at + whole));
    at += whole;
    if (at < end) {
      this.carry.set(bytes.subarray(at, end));
      this.carried = end - at;
    }
    this.missing -= end - start;
    if (this.missing === 0) this.finish();
    return end;
  }

  private finish(): void {
    this.headerBytes = 0;
    this.sink.end();
  }
}
