// Compiles a module of WebAssembly from its AssemblyScript: this folder's (`npm run kernels`), and other rooms' by their own build
// scripts. The compiler (100 MB) is fetched for this alone, so the results are committed; each carries the SHA-256 of its source, by
// which a test sees whether it is up to date.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const COMPILER = 'assemblyscript@0.28.20';

/** Compiles the source at `source` to the file at `file` (URLs). */
export function compile(source, file, options) {
  const [from, to] = [fileURLToPath(source), fileURLToPath(file)];
  const common = '--runtime stub --enable simd --optimizeLevel 3 --noAssert --use abort=';
  const args = `--yes --package ${COMPILER} asc ${from} --outFile ${to} ${common} ${options}`;
  execFileSync('npx', args.split(' '), { stdio: 'inherit' });

  // A custom section (id 0): its name and the hash, each after its length.
  const hash = createHash('sha256').update(readFileSync(from)).digest();
  const name = Buffer.from('source-sha256');
  const payload = Buffer.concat([Buffer.from([name.length]), name, hash]);
  writeFileSync(to, Buffer.concat([readFileSync(to), Buffer.from([0, payload.length]), payload]));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  // 16 pages of 64 KiB to begin with: the buffers that kernels.ts lays out; large images make it grow.
  compile(new URL('assembly.ts', import.meta.url), new URL('kernels.wasm', import.meta.url), '--initialMemory 16');
}
