// Memory shared with another process of this machine: a file in memory, mapped by both. Its name is known only while the second
// process opens it; after that nothing is left of it when the two have ended, however they end.

import { randomBytes } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readdirSync, unlinkSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { LockstepError } from '../../../protocol/errors.ts';

/** Where Linux keeps files in memory. */
const DIRECTORY = '/dev/shm';
const NAME = /^lockstep-(\d+)-[0-9a-f]{16}$/;

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

export interface Segment {
  readonly name: string;
  readonly buffer: ArrayBuffer;
  /** Takes the name away; the memory stays while somebody has it mapped. */
  forget(): void;
  /** Unmaps it. No view of the buffer may be touched after this. */
  close(): void;
}

interface Koffi {
  load(library: string | null): { func(signature: string): (...args: unknown[]) => unknown };
  view(pointer: unknown, length: number): ArrayBuffer;
  address(pointer: unknown): bigint;
}

interface Calls {
  readonly map: (fd: number, bytes: number) => { readonly pointer: unknown; readonly buffer: ArrayBuffer };
  readonly unmap: (pointer: unknown, bytes: number) => void;
}

let calls: Calls | null = null;

/** The system's calls. Throws E_NOT_SUPPORTED where there are none. */
function system(): Calls {
  if (calls !== null) return calls;
  if (process.platform !== 'linux') {
    throw new LockstepError('E_NOT_SUPPORTED', `no shared memory on ${process.platform}`);
  }
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the part of the library that is used; its own types don't load as ES modules do
  const koffi = createRequire(import.meta.url)('koffi') as Koffi;
  // The process's own C library, whatever its name.
  const library = koffi.load(null);
  const mmap = library.func('void *mmap(void *address, size_t bytes, int prot, int flags, int fd, int64_t offset)');
  const munmap = library.func('int munmap(void *address, size_t bytes)');
  calls = {
    map: (fd, bytes) => {
      const pointer = mmap(null, bytes, PROT_READ_WRITE, MAP_SHARED, fd, 0);
      if (pointer === null || BigInt.asUintN(64, koffi.address(pointer)) === MAP_FAILED) {
        throw new LockstepError('E_NOT_SUPPORTED', `mapping ${bytes} bytes of shared memory failed`);
      }
      return { pointer, buffer: koffi.view(pointer, bytes) };
    },
    unmap: (pointer, bytes) => void munmap(pointer, bytes),
  };
  return calls;
}

function mapped(name: string, fd: number, bytes: number): Segment {
  const { pointer, buffer } = system().map(fd, bytes);
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
      system().unmap(pointer, bytes);
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
