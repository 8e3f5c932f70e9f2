// Keeps signals away from the thread that runs the engine. While oneDNN's gradient of a convolution's kernel computes (1 % of a step of
// the tutorial's CNN on an AVX-512 processor, oneDNN 3.7), its generated code uses the stack pointer as one more register that points
// into the data. A signal handled on that thread in that moment writes its frame there: the process aborts with a corrupt heap, or goes
// on with a wrong gradient. Keras on the same library does the same. Handled by any other thread a signal does no harm, so this thread blocks them
// all; the system then picks another.
//
// Price: a sampling profiler that signals this very thread (`node --cpu-prof`) sees nothing of it. Linux's perf needs no signals.

import { createRequire } from 'node:module';

/** Raised by the thread itself, or meant to end the process at once: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS. */
const KEPT = [4, 5, 6, 7, 8, 11, 31];
const SIGSET_BYTES = 128;
const SIG_BLOCK = 0;

interface Koffi {
  load(library: string | null): { func(signature: string): (...args: unknown[]) => unknown };
}

/** Blocks all signals but those for the calling thread; threads that it starts later inherit that. Warns where it can't. */
export function keepSignalsAway(): void {
  if (process.platform !== 'linux') return;
  const set = new Uint8Array(SIGSET_BYTES).fill(0xff);
  for (const signal of KEPT) {
    const bit = signal - 1;
    set[bit >> 3] = (set[bit >> 3] ?? 0) & ~(1 << (bit & 7));
  }
  try {
    const koffi = createRequire(import.meta.url)('koffi') as Koffi;
    const block = koffi.load(null).func('int pthread_sigmask(int how, uint8_t *set, void *old)');
    if (block(SIG_BLOCK, set, null) === 0) return;
    throw new Error('pthread_sigmask failed');
  } catch (error) {
    process.emitWarning(`signals reach the engine's thread and may corrupt a step: ${String(error)}`);
  }
}
