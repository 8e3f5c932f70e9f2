// `npm run kernels`, the collective's part. Memory comes from outside, as large as a step's vectors ask for, and is shared by threads.

import { compile } from '../../../jobs/kernels/build.mjs';

compile(
  new URL('assembly.ts', import.meta.url),
  new URL('sums.wasm', import.meta.url),
  '--importMemory --sharedMemory --initialMemory 1 --maximumMemory 65536 --enable threads',
);
