// `npm run kernels`, the collective's part: the same kernels on memory that threads share, and on memory of one thread, which the
// system copies faster. Either way memory comes from outside, as large as a step's vectors ask for.

import { compile } from '../../../jobs/kernels/build.mjs';

const source = new URL('assembly.ts', import.meta.url);
const memory = '--importMemory --initialMemory 1 --maximumMemory 65536';
compile(source, new URL('sums.wasm', import.meta.url), memory);
compile(source, new URL('sums-shared.wasm', import.meta.url), `${memory} --sharedMemory --enable threads`);
