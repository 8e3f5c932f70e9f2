// A decoder for the one kind of PNG that data sets are packed in: 8-bit RGB, not interlaced. After the PNG specification
// (second edition, ISO/IEC 15948): zlib-compressed rows, each with a filter byte. About 0.3 s for 30 MB of pixels.
// Deliberately absent: palettes, alpha, 16 bits, interlacing, checksums of chunks (the data set's MD5 covers the pixels).

import { inflateSync } from 'node:zlib';
import { LockstepError } from '../../protocol/errors.ts';

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const CHANNELS = 3;

export interface Picture {
  readonly width: number;
  readonly height: number;
  /** Rows from the top, pixels from the left, red, green, blue: height x width x 3 bytes. */
  readonly pixels: Uint8Array;
}

function refuse(what: string): never {
  throw new LockstepError('E_DATA_CORRUPT', `not a PNG of 8-bit RGB pixels: ${what}`);
}

/** Decodes a whole file. Throws LockstepError E_DATA_CORRUPT. */
export function decodePng(file: Buffer): Picture {
  if (!file.subarray(0, 8).equals(SIGNATURE)) refuse('no signature');
  let width = 0;
  let height = 0;
  const compressed: Buffer[] = [];
  let offset = 8;
  while (offset + 12 <= file.length) {
    const length = file.readUInt32BE(offset);
    const kind = file.toString('latin1', offset + 4, offset + 8);
    const body = file.subarray(offset + 8, offset + 8 + length);
    if (body.length !== length) refuse(`it ends within chunk ${kind}`);
    if (kind === 'IHDR') {
      width = body.readUInt32BE(0);
      height = body.readUInt32BE(4);
      const [bits, color, , , interlaced] = body.subarray(8);
      if (bits !== 8 || color !== 2 || interlaced !== 0)
        refuse(`bits ${bits}, color type ${color}, interlacing ${interlaced}`);
    }
    if (kind === 'IDAT') compressed.push(body);
    if (kind === 'IEND') break;
    offset += 12 + length;
  }
  const stride = width * CHANNELS;
  const rows = inflateSync(Buffer.concat(compressed));
  if (rows.length !== height * (stride + 1)) refuse(`${rows.length} bytes of rows for ${width} x ${height} pixels`);
  const pixels = new Uint8Array(height * stride);
  for (let y = 0; y < height; y++) {
    const filter = rows[y * (stride + 1)] ?? 0;
    const from = y * (stride + 1) + 1;
    unfilter(filter, rows.subarray(from, from + stride), pixels, y * stride, stride);
  }
  return { width, height, pixels };
}

/** Undoes one row's filter: 0 none, 1 left, 2 up, 3 average, 4 Paeth. Writes pixels[start .. start + stride). */
function unfilter(filter: number, row: Uint8Array, pixels: Uint8Array, start: number, stride: number): void {
  if (filter > 4) refuse(`row filter ${filter}`);
  for (let x = 0; x < stride; x++) {
    const left = x >= CHANNELS ? (pixels[start + x - CHANNELS] as number) : 0;
    const up = start > 0 ? (pixels[start + x - stride] as number) : 0;
    let predicted = 0;
    if (filter === 1) predicted = left;
    else if (filter === 2) predicted = up;
    else if (filter === 3) predicted = (left + up) >> 1;
    else if (filter === 4) {
      const upLeft = x >= CHANNELS && start > 0 ? (pixels[start + x - CHANNELS - stride] as number) : 0;
      predicted = paeth(left, up, upLeft);
    }
    pixels[start + x] = (row[x] as number) + predicted;
  }
}

function paeth(left: number, up: number, upLeft: number): number {
  const estimate = left + up - upLeft;
  const [toLeft, toUp, toUpLeft] = [Math.abs(estimate - left), Math.abs(estimate - up), Math.abs(estimate - upLeft)];
  if (toLeft <= toUp && toLeft <= toUpLeft) return left;
  return toUp <= toUpLeft ? up : upLeft;
}
