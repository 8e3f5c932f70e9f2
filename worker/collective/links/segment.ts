// Memory shared with another process of this machine: a file in memory, mapped by both. Its name is known only while the second
// process opens it; after that nothing is left of it when the two have ended, however they end.

import { randomBytes } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readdirSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { LockstepError } from '../../../protocol/errors.ts';
import { system } from './mapping.ts';

/** Where Linux keeps files in memory. */
const DIRECTORY = '/dev/shm';
const NAME = /^lockstep-(\d+)-[0-9a-f]{16}$/;

export interface Segment {
  readonly name: string;
  readonly buffer: ArrayBuffer;
  /** Takes the name away; the memory stays while somebody has it mapped. */
  forget(): void;
  /** Unmaps it. No view of the buffer may be touched after this. */
  close(): void;
}

function mapped(name: string, fd: number, bytes: number): Segment {
  const { buffer, unmap } = system().map(fd, bytes, 'write');
  let isOpen = true;
  let isNamed = true;
  return {
    name,
    buffer,
    forget: () => {
      if (!isNamed) return;
      isNamed = false;
      try {
        unlinkSync(join(DIRECTORY, name));
      } catch {
        // The other side was quicker.
      }
    },
    close: () => {
      if (!isOpen) return;
      isOpen = false;
      unmap();
    },
  };
}

/** Makes a segment of zeros. Throws E_NOT_SUPPORTED when the system has no shared memory, or too little of it. */
export function createSegment(bytes: number): Segment {
  system();
  sweep();
  const name = `lockstep-${process.pid}-${randomBytes(8).toString('hex')}`;
  const path = join(DIRECTORY, name);
  let fd: number | null = null;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    // Written, not just made longer: where memory is short this fails here, rather than at a later store.
    const zeros = new Uint8Array(64 * 1024);
    for (let at = 0; at < bytes; at += zeros.byteLength) {
      writeSync(fd, zeros, 0, Math.min(zeros.byteLength, bytes - at));
    }
    return mapped(name, fd, bytes);
  } catch (cause) {
    if (fd !== null) unlinkSync(path);
    if (cause instanceof LockstepError) throw cause;
    throw new LockstepError('E_NOT_SUPPORTED', `no shared memory: ${cause instanceof Error ? cause.message : ''}`, {
      cause,
    });
  } finally {
    if (fd !== null) closeSync(fd);
  }
}

/** Opens a segment of `bytes` that another process has made. Throws E_NOT_SUPPORTED when this process can't reach it. */
export function openSegment(name: string, bytes: number): Segment {
  if (!NAME.test(name)) throw new LockstepError('E_PROTOCOL', 'no name of a segment');
  system();
  let fd: number | null = null;
  try {
    fd = openSync(join(DIRECTORY, name), constants.O_RDWR | constants.O_NOFOLLOW);
    const { size, uid } = fstatSync(fd);
    if (size !== bytes) throw new Error(`${name} has ${size} bytes, not ${bytes}`);
    if (process.getuid !== undefined && uid !== process.getuid()) throw new Error(`${name} is another user's`);
    return mapped(name, fd, bytes);
  } catch (cause) {
    if (cause instanceof LockstepError) throw cause;
    throw new LockstepError('E_NOT_SUPPORTED', `no shared memory: ${cause instanceof Error ? cause.message : ''}`, {
      cause,
    });
  } finally {
    if (fd !== null) closeSync(fd);
  }
}

/** Removes what processes that died in the moment between making and opening have left. */
function sweep(): void {
  for (const name of readdirSync(DIRECTORY)) {
    const pid = Number(NAME.exec(name)?.[1] ?? Number.NaN);
    if (Number.isNaN(pid) || isAlive(pid)) continue;
    try {
      unlinkSync(join(DIRECTORY, name));
    } catch {
      // Another user's, or swept by somebody else.
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
