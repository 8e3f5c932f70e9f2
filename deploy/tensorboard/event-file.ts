// TensorBoard's event files, as far as scalars need them: each record is a length, its checksum, an `Event` message and its checksum
// (TensorFlow's TFRecord format; CRC-32C, rotated and shifted). Bytes out; pure.
//
// Field numbers after tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto.

export interface Event {
  /** Unix time, in seconds. */
  readonly wallTime: number;
  readonly step: number;
  /** Exactly one of these. */
  readonly content:
    | { readonly kind: 'version' }
    /** What was written before of this step and later ones is void: a run went back to a checkpoint. */
    | { readonly kind: 'start' }
    | { readonly kind: 'scalars'; readonly values: readonly { readonly tag: string; readonly value: number }[] };
}

const FILE_VERSION = 'brain.Event:2';
const SESSION_STARTS = 1;

/** Protocol buffers' wire types. */
const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  return [...bytes, rest];
}

const tagOf = (field: number, wire: number): number[] => varint(field * 8 + wire);

function bytesField(field: number, content: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([...tagOf(field, WIRE.bytes), ...varint(content.length)]), content]);
}

function doubleField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([Buffer.from(tagOf(field, WIRE.fixed64)), bytes]);
}

function floatField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([Buffer.from(tagOf(field, WIRE.fixed32)), bytes]);
}

const varintField = (field: number, value: number): Buffer =>
  Buffer.from(value === 0 ? [] : [...tagOf(field, WIRE.varint), ...varint(value)]);

function messageOf({ wallTime, step, content }: Event): Buffer {
  const head = [doubleField(1, wallTime), varintField(2, step)];
  switch (content.kind) {
    case 'version':
      return Buffer.concat([...head, bytesField(3, Buffer.from(FILE_VERSION))]);
    case 'start':
      return Buffer.concat([...head, bytesField(7, varintField(1, SESSION_STARTS))]);
    case 'scalars': {
      const values = content.values.map(({ tag, value }) =>
        bytesField(1, Buffer.concat([bytesField(1, Buffer.from(tag)), floatField(2, value)])),
      );
      return Buffer.concat([...head, bytesField(5, Buffer.concat(values))]);
    }
  }
}

/** CRC-32C (Castagnoli), reflected, a byte at a time: RFC 3720, appendix B.4. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (TABLE[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** A checksum that is stored next to what it is of is masked, so that checksums of checksums don't come out. */
function masked(bytes: Uint8Array): Buffer {
  const crc = crc32c(bytes);
  const out = Buffer.alloc(4);
  out.writeUInt32LE((((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0);
  return out;
}

/** The event as a record of a file. */
export function recordOf(event: Event): Buffer {
  const message = messageOf(event);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(message.length));
  return Buffer.concat([length, masked(length), message, masked(message)]);
}
