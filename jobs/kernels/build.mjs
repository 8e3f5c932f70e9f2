// `npm run kernels`: compiles assembly.ts to kernels.wasm. The compiler (100 MB) is fetched for this alone, so the result is
// committed; it carries the SHA-256 of its source, by which a test sees whether it is up to date.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const COMPILER = 'assemblyscript@0.28.20';
const path = (name) => fileURLToPath(new URL(name, import.meta.url));

const options = '--runtime stub --enable simd --optimizeLevel 3 --noAssert --use abort=';
// 16 pages of 64 KiB to begin with: the buffers that kernels.ts lays out; large images make it grow.
const args = `--yes --package ${COMPILER} asc ${path('assembly.ts')} --outFile ${path('kernels.wasm')} ${options} --initialMemory 16`;
execFileSync('npx', args.split(' '), { stdio: 'inherit' });

// A custom section (id 0): its name and the hash, each after its length.
const hash = createHash('sha256')
  .update(readFileSync(path('assembly.ts')))
  .digest();
const name = Buffer.from('source-sha256');
const payload = Buffer.concat([Buffer.from([name.length]), name, hash]);
const wasm = readFileSync(path('kernels.wasm'));
writeFileSync(path('kernels.wasm'), Buffer.concat([wasm, Buffer.from([0, payload.length]), payload]));
