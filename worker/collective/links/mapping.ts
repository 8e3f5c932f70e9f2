// The system's calls that Node has none of, through koffi: memory that processes share, and the size of a socket's buffer. Linux only.

import { createRequire } from 'node:module';
import { LockstepError } from '../../../protocol/errors.ts';

const PROT_READ = 1;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_FIXED = 0x10;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SEAL = 1;
const F_SEAL_SHRINK = 2;
const F_SEAL_GROW = 4;
const F_SEAL_FUTURE_WRITE = 16;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;

interface Koffi {
  load(library: string | null): { func(signature: string): (...args: unknown[]) => unknown };
  view(pointer: unknown, length: number): ArrayBuffer;
  address(pointer: unknown): bigint;
}

interface Mapping {
  readonly buffer: ArrayBuffer;
  /** No view of the buffer may be touched after this. */
  readonly unmap: () => void;
}

interface Calls {
  /** Maps a file's first `bytes` bytes. Throws E_NOT_SUPPORTED. */
  readonly map: (fd: number, bytes: number, access: 'read' | 'write') => Mapping;
  /** Puts a file's beginning under `memory`, in place of what was there. Throws E_NOT_SUPPORTED. */
  readonly mapUnder: (memory: Uint8Array, fd: number) => void;
  /** A file in memory that has no name: it is gone when nobody has it open or mapped, however they end. Throws E_NOT_SUPPORTED. */
  readonly memoryFile: () => number;
  /** Closes what `memoryFile` gave: Node, which does not know it, would warn in a thread. */
  readonly close: (fd: number) => void;
  /** From now on its size is fixed, and others can map it for reading only. */
  readonly seal: (fd: number) => void;
  /** True when its owner can't make it shorter, so that reading it is safe. */
  readonly isSealed: (fd: number) => boolean;
  /** Lets a socket hold so many bytes that its peer has not read, or as many as the system allows. */
  readonly growSendBuffer: (fd: number, bytes: number) => void;
}

let calls: Calls | null = null;

function failed(what: string): never {
  throw new LockstepError('E_NOT_SUPPORTED', `no shared memory: ${what} failed`);
}

/** The system's calls. Throws E_NOT_SUPPORTED where there are none. */
export function system(): Calls {
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
  const memfd = library.func('int memfd_create(const char *name, unsigned int flags)');
  const close = library.func('int close(int fd)');
  const fcntl = library.func('int fcntl(int fd, int command, int argument)');
  const setsockopt = library.func(
    'int setsockopt(int socket, int level, int name, const int *value, unsigned int bytes)',
  );
  const mapped = (address: Uint8Array | null, bytes: number, prot: number, flags: number, fd: number): unknown => {
    const pointer = mmap(address, bytes, prot, flags, fd, 0);
    if (pointer === null || BigInt.asUintN(64, koffi.address(pointer)) === MAP_FAILED) {
      failed(`mapping ${bytes} bytes`);
    }
    return pointer;
  };
  calls = {
    map: (fd, bytes, access) => {
      const pointer = mapped(null, bytes, access === 'read' ? PROT_READ : PROT_READ_WRITE, MAP_SHARED, fd);
      return { buffer: koffi.view(pointer, bytes), unmap: () => void munmap(pointer, bytes) };
    },
    mapUnder: (memory, fd) => {
      mapped(memory, memory.byteLength, PROT_READ_WRITE, MAP_SHARED | MAP_FIXED, fd);
    },
    memoryFile: () => {
      const fd = Number(memfd('lockstep', MFD_CLOEXEC | MFD_ALLOW_SEALING));
      return fd < 0 ? failed('a file in memory') : fd;
    },
    close: (fd) => void close(fd),
    seal: (fd) => {
      const seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;
      if (fcntl(fd, F_ADD_SEALS, seals) !== 0) failed('sealing a file in memory');
    },
    isSealed: (fd) => {
      const seals = Number(fcntl(fd, F_GET_SEALS, 0));
      return seals >= 0 && (seals & F_SEAL_SHRINK) !== 0;
    },
    // Where it fails the socket stays as it was, and works.
    growSendBuffer: (fd, bytes) => void setsockopt(fd, SOL_SOCKET, SO_SNDBUF, [bytes], Int32Array.BYTES_PER_ELEMENT),
  };
  return calls;
}
