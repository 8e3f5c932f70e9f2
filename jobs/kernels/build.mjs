// `npm run kernels`: compiles the two modules of WebAssembly, this folder's and the collective's. The compiler (100 MB) is fetched
// for this alone, so the results are committed; each carries the SHA-256 of its source, by which a test sees whether it is up to date.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const COMPILER = 'assemblyscript@0.28.20';
const path = (name) => fileURLToPath(new URL(name, import.meta.url));

/** One module: its source, its file, what the compiler is told besides. */
const modules = [
  // 16 pages of 64 KiB to begin with: the buffers that kernels.ts lays out; large images make it grow.
  { source: 'assembly.ts', file: 'kernels.wasm', options: '--initialMemory 16' },
  // Memory comes from outside, as large as a step's vectors ask for, and is shared between threads.
  {
    source: '../../worker/collective/kernels/assembly.ts',
    file: '../../worker/collective/kernels/sums.wasm',
    options: '--importMemory --sharedMemory --initialMemory 1 --maximumMemory 65536 --enable threads',
  },
];

for (const { source, file, options } of modules) {
  const common = '--runtime stub --enable simd --optimizeLevel 3 --noAssert --use abort=';
  const args = `--yes --package ${COMPILER} asc ${path(source)} --outFile ${path(file)} ${common} ${options}`;
  execFileSync('npx', args.split(' '), { stdio: 'inherit' });

  // A custom section (id 0): its name and the hash, each after its length.
  const hash = createHash('sha256')
    .update(readFileSync(path(source)))
    .digest();
  const name = Buffer.from('source-sha256');
  const payload = Buffer.concat([Buffer.from([name.length]), name, hash]);
  const wasm = readFileSync(path(file));
  writeFileSync(path(file), Buffer.concat([wasm, Buffer.from([0, payload.length]), payload]));
}
