// A vector of float32 as a file, little-endian, written and read in pieces: hashed on the way, never copied whole, and never
// holding up the event loop for longer than a piece takes (4 MiB: about 10 ms of SHA-256 without the processor's help).

import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';

const PIECE_BYTES = 4 * 1024 * 1024;

function* piecesOf(data: Float32Array): Generator<Uint8Array> {
  for (let at = 0; at < data.byteLength; at += PIECE_BYTES) {
    yield new Uint8Array(data.buffer, data.byteOffset + at, Math.min(PIECE_BYTES, data.byteLength - at));
  }
}

/** Writes and fsyncs; resolves to the SHA-256 of what was written. */
export async function writeFloats(path: string, data: Float32Array): Promise<string> {
  const hash = createHash('sha256');
  const file = await open(path, 'w');
  try {
    for (const piece of piecesOf(data)) {
      hash.update(piece);
      await file.writeFile(piece);
    }
    await file.sync();
  } finally {
    await file.close();
  }
  return hash.digest('hex');
}

/** Reads exactly `bytes` bytes; `because` says what is wrong when the file has fewer or more, or can't be read. */
export async function readFloats(
  path: string,
  bytes: number,
): Promise<{ readonly data: Float32Array; readonly sha256: string } | { readonly because: string }> {
  try {
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      if (size !== bytes) return { because: `has ${size} bytes instead of ${bytes}` };
      const data = new Float32Array(bytes / 4);
      const hash = createHash('sha256');
      for (const piece of piecesOf(data)) {
        let filled = 0;
        while (filled < piece.byteLength) {
          const { bytesRead } = await file.read(piece, filled, piece.byteLength - filled);
          if (bytesRead === 0) return { because: `ended before its ${bytes} bytes` };
          filled += bytesRead;
        }
        hash.update(piece);
      }
      return { data, sha256: hash.digest('hex') };
    } finally {
      await file.close();
    }
  } catch (error) {
    return { because: `cannot be read (${error instanceof Error ? error.message : String(error)})` };
  }
}
