// The page's files, read once when the coordinator starts: plain HTML, CSS and JavaScript as a browser takes them, in page/. TensorFlow.js
// lies where npm put it and is read when a page asks for it, which it does when its model panel is opened.

import { createReadStream, readdirSync, readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { extname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

const DIRECTORY = fileURLToPath(new URL('page/', import.meta.url));

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
};

/** Under /page/vendor/, by the name that they have there. The bundles for ES2017: the older ones evaluate strings, which no page of ours may. */
const VENDOR: Readonly<Record<string, string>> = {
  'tf.min.js': '@tensorflow/tfjs/dist/tf.es2017.min.js',
  'tf-backend-wasm.min.js': '@tensorflow/tfjs-backend-wasm/dist/tf-backend-wasm.es2017.min.js',
  'tfjs-backend-wasm.wasm': '@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm.wasm',
  'tfjs-backend-wasm-simd.wasm': '@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm',
};

const typeOf = (name: string): string => TYPES[extname(name)] ?? 'application/octet-stream';

export interface PageFile {
  readonly type: string;
  readonly content: Buffer;
}

/** By name: `index.html` and what it loads. */
export function readPageFiles(): ReadonlyMap<string, PageFile> {
  const names = readdirSync(DIRECTORY);
  return new Map(names.map((name) => [name, { type: typeOf(name), content: readFileSync(join(DIRECTORY, name)) }]));
}

/** A file of TensorFlow.js; null for a name that is none. */
export function openVendorFile(
  name: string,
): { readonly type: string; readonly bytes: number; readonly stream: Readable } | null {
  const module = Object.hasOwn(VENDOR, name) ? VENDOR[name] : undefined;
  if (module === undefined) return null;
  const path = createRequire(import.meta.url).resolve(module);
  return { type: typeOf(name), bytes: statSync(path).size, stream: createReadStream(path) };
}
