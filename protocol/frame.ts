// A frame: what one rank sends another in an all-reduce. A fixed little-endian header of 48 bytes, then float32 payload.
//
//      0  u32  magic "LSF1"            4  u8   kind (1 scatter, 2 gather, 3 absent)    5  u8, 6 u16  zero
//      8  u32  generation             12  u32  zero          16  f64  step
//     24  u32  sender's rank          28  u32  bucket
//     32  u16  node start             34  u16  node size      (scatter and absent; zero for gather)
//     36  u32  offset, in floats of the whole vector          40  u32  count, in floats          44  u32  zero
//
// Decoding allocates nothing and copies nothing: the payload is a view of the bytes given.

import { LockstepError } from './errors.ts';

export const FRAME_HEADER_BYTES = 48;
/** Longest frame that is accepted: 256 MiB of floats. */
export const MAX_FRAME_BYTES = FRAME_HEADER_BYTES + 256 * 1024 * 1024;

const MAGIC = 0x3146534c; // "LSF1"
const KINDS = { 1: 'scatter', 2: 'gather', 3: 'absent' } as const;

export interface FrameHeader {
  /** scatter: a node's part of a slice, to the slice's owner; gather: a summed slice, from its owner; absent: a node without samples. */
  readonly kind: (typeof KINDS)[keyof typeof KINDS];
  readonly generation: number;
  readonly step: number;
  readonly rank: number;
  readonly bucket: number;
  readonly node: { readonly start: number; readonly size: number };
  readonly offset: number;
  readonly count: number;
}

export interface Frame extends FrameHeader {
  /** count x 4 bytes of float32, little-endian; not necessarily aligned. Empty for an absent node. */
  readonly payload: Uint8Array;
}

export function encodeFrameHeader(header: FrameHeader): Uint8Array {
  const bytes = new Uint8Array(FRAME_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, header.kind === 'scatter' ? 1 : header.kind === 'gather' ? 2 : 3);
  view.setUint32(8, header.generation, true);
  view.setFloat64(16, header.step, true);
  view.setUint32(24, header.rank, true);
  view.setUint32(28, header.bucket, true);
  view.setUint16(32, header.node.start, true);
  view.setUint16(34, header.node.size, true);
  view.setUint32(36, header.offset, true);
  view.setUint32(40, header.count, true);
  return bytes;
}

function refuse(what: string): never {
  throw new LockstepError('E_FRAME', `a malformed frame: ${what}`);
}

/** Parses one frame. Throws LockstepError E_FRAME that names the field. */
export function decodeFrame(bytes: Uint8Array): Frame {
  if (bytes.byteLength < FRAME_HEADER_BYTES)
    refuse(`${bytes.byteLength} bytes; the header alone has ${FRAME_HEADER_BYTES}`);
  if (bytes.byteLength > MAX_FRAME_BYTES) refuse(`${bytes.byteLength} bytes; the limit is ${MAX_FRAME_BYTES}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) refuse('magic');
  const kindNumber = view.getUint8(4);
  if (kindNumber !== 1 && kindNumber !== 2 && kindNumber !== 3) refuse(`kind ${kindNumber}`);
  const kind = KINDS[kindNumber];
  if (
    view.getUint8(5) !== 0 ||
    view.getUint16(6, true) !== 0 ||
    view.getUint32(12, true) !== 0 ||
    view.getUint32(44, true) !== 0
  ) {
    refuse('reserved bytes');
  }
  const step = view.getFloat64(16, true);
  if (!Number.isSafeInteger(step) || step < 0) refuse(`step ${step}`);
  const count = view.getUint32(40, true);
  const payload = bytes.subarray(FRAME_HEADER_BYTES);
  const expected = kind === 'absent' ? 0 : 4 * count;
  if (payload.byteLength !== expected) refuse(`count ${count} with ${payload.byteLength} bytes of payload`);
  return {
    kind,
    generation: view.getUint32(8, true),
    step,
    rank: view.getUint32(24, true),
    bucket: view.getUint32(28, true),
    node: { start: view.getUint16(32, true), size: view.getUint16(34, true) },
    offset: view.getUint32(36, true),
    count,
    payload,
  };
}
