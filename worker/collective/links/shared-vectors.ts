// A rank's vectors where its peers on the same machine can read them: the pages of the WebAssembly memory that they live in are
// replaced by those of a file in memory, which a peer maps for reading. A frame's payload then need not be sent, only its place
// said. WebAssembly's memory never grows here, so nothing moves it; when it is collected, the pages go with it.
//
// The file has no name: a peer reaches it through the owner's open descriptor, and shows by a random word in it that it is the one
// that was meant (process ids differ between containers). Its size is sealed, so that no peer can be killed by its shrinking, and
// so is writing, but for the owner's own.

import { randomBytes } from 'node:crypto';
import { closeSync, constants, fstatSync, ftruncateSync, openSync } from 'node:fs';
import { LockstepError } from '../../../protocol/errors.ts';
import type { SharedVectors, VectorsAddress } from '../../../protocol/link.ts';
import { system } from './mapping.ts';

/** Of the random word: as many as no peer guesses. */
const WORD_BYTES = 16;

/**
 * Makes `memory`, all of it zeros and its own, readable for peers. The word is written at `wordAt`, where nothing else may be.
 * Throws E_NOT_SUPPORTED where the system can't.
 */
export function shareVectors(memory: Uint8Array, wordAt: number): SharedVectors {
  const { memoryFile, mapUnder, seal, close } = system();
  const fd = memoryFile();
  try {
    ftruncateSync(fd, memory.byteLength);
    mapUnder(memory, fd);
    seal(fd);
  } catch (error) {
    close(fd);
    throw error;
  }
  const word = randomBytes(WORD_BYTES);
  memory.set(word, wordAt);
  let isOpen = true;
  return {
    address: { pid: process.pid, fd, bytes: memory.byteLength, wordAt, word: word.toString('hex') },
    placeOf: (bytes) => (bytes.buffer === memory.buffer ? bytes.byteOffset - memory.byteOffset : null),
    close: () => {
      if (isOpen) close(fd);
      isOpen = false;
    },
  };
}

export interface PeerVectors {
  /** A view of what the peer has there now. Throws E_FRAME for a place that is not in it. */
  at(place: number, bytes: number): Uint8Array;
  /** No view may be touched after this. */
  close(): void;
}

/** Maps a peer's vectors for reading. Throws E_NOT_SUPPORTED when this process can't reach them, or they are not what they should be. */
export function openPeerVectors(address: VectorsAddress): PeerVectors {
  const { map, isSealed } = system();
  const refuse = (why: string): never => {
    throw new LockstepError('E_NOT_SUPPORTED', `no view of the peer's vectors: ${why}`);
  };
  const { pid, fd: theirs, bytes, wordAt, word } = address;
  let fd: number;
  try {
    fd = openSync(`/proc/${pid}/fd/${theirs}`, constants.O_RDONLY);
  } catch (cause) {
    return refuse(cause instanceof Error ? cause.message : '');
  }
  try {
    const { size, uid } = fstatSync(fd);
    if (size !== bytes) refuse(`${size} bytes, not ${bytes}`);
    if (uid !== process.getuid?.()) refuse("another user's");
    if (!isSealed(fd)) refuse('its size is not fixed');
    const { buffer, unmap } = map(fd, bytes, 'read');
    const all = new Uint8Array(buffer);
    if (wordAt < 0 || Buffer.from(all.subarray(wordAt, wordAt + WORD_BYTES)).toString('hex') !== word) {
      unmap();
      refuse('another word in it');
    }
    return {
      at: (place, count) => {
        const isInside = Number.isSafeInteger(place) && place >= 0 && place % 4 === 0 && place + count <= bytes;
        if (!isInside) {
          throw new LockstepError('E_FRAME', `a malformed frame: its payload at ${place}+${count} of ${bytes} bytes`);
        }
        return all.subarray(place, place + count);
      },
      close: unmap,
    };
  } finally {
    closeSync(fd);
  }
}
