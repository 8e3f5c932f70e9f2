// Finds and loads a job: a built-in by its name, or a user's file. The file's code runs in this process, so a job is always code
// from this machine's own disk; its hash, over the file and the files that it imports by relative path, is what coordinator,
// workers and checkpoints compare. Packages that it imports are not in the hash: the lock file pins them.

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, extname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { JobDefinition } from '../jobs/contract.ts';
import { LockstepError } from '../protocol/errors.ts';
import type { JobReference } from '../protocol/run-config.ts';
import { registerCommonTypeScript } from './bootstrap.mjs';
import { jobProblem } from './job-shape.ts';

const JOBS = fileURLToPath(new URL('../jobs/', import.meta.url));
const ENDINGS = ['.ts', '.mts', '.js', '.mjs', '.cjs'];

export interface LoadedJob {
  readonly definition: JobDefinition;
  readonly reference: JobReference;
  /** Absolute. */
  readonly path: string;
}

/** Names of the built-in jobs: the files of jobs/ that have a default export. */
export function builtInJobs(): string[] {
  return readdirSync(JOBS)
    .filter((name) => name.endsWith('.ts') && /^export default /m.test(readFileSync(join(JOBS, name), 'utf8')))
    .map((name) => name.slice(0, -'.ts'.length))
    .toSorted();
}

/** What `loadJob` takes to find the job of a reference on this machine. */
export function resolveReference(reference: JobReference): string {
  return reference.kind === 'built-in' ? reference.name : reference.path;
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

/** The file that a relative import means, endings left out or written as .js for .ts, as TypeScript allows; null when there is none. */
function importedFile(from: string, specifier: string): string | null {
  const exact = resolve(dirname(from), specifier);
  const stem = exact.replace(/\.[cm]?js$/, '');
  const candidates = [
    exact,
    ...ENDINGS.map((ending) => stem + ending),
    ...ENDINGS.map((ending) => join(exact, `index${ending}`)),
  ];
  return candidates.find(isFile) ?? null;
}

/**
 * SHA-256 over the file and all that it imports by relative path, depth first in the order of the imports, each with its name
 * relative to the first: equal on two machines when the sources are. Imports are found by their text (`from './x.ts'`,
 * `import('./x.ts')`, `require('./x.js')`), types included; a path that is computed is not seen.
 */
export function hashOfSource(path: string): string {
  const hash = createHash('sha256');
  const seen = new Set<string>();
  const add = (file: string): void => {
    if (seen.has(file)) return;
    seen.add(file);
    const source = readFileSync(file);
    hash.update(`${relative(dirname(path), file).split(sep).join('/')}\0${source.length}\0`).update(source);
    for (const match of source
      .toString('utf8')
      .matchAll(/\b(?:from|import|require)\s*\(?\s*(['"])(\.{1,2}\/[^'"\n]+)\1/g)) {
      const imported = importedFile(file, match[2] ?? '');
      if (imported !== null) add(imported);
    }
  };
  add(path);
  return hash.digest('hex');
}

/** Loads a job by name or path. Throws E_JOB_NOT_FOUND or E_JOB_INVALID, naming the file and what is wrong in it. */
export async function loadJob(nameOrPath: string): Promise<LoadedJob> {
  const builtIn = builtInJobs();
  const isBuiltIn = builtIn.includes(nameOrPath);
  const path = isBuiltIn ? join(JOBS, `${nameOrPath}.ts`) : resolve(nameOrPath);
  if (!isFile(path)) {
    throw new LockstepError(
      'E_JOB_NOT_FOUND',
      `there is no job "${nameOrPath}": no built-in job of that name, and no file ${path}`,
      {
        remedy: `Built-in jobs: ${builtIn.join(', ')}. Or give the path of a .ts or .js file.`,
      },
    );
  }
  if (!ENDINGS.includes(extname(path))) {
    throw new LockstepError('E_JOB_INVALID', `the job file ${path} is not a .ts or .js file`, {
      remedy: 'A job is code that exports one; jobs/cifar10-cnn.ts is one to copy.',
    });
  }
  const problem = (what: string, cause?: unknown): LockstepError =>
    new LockstepError('E_JOB_INVALID', `the job file ${path}${what}`, {
      remedy: 'jobs/cifar10-cnn.ts is a job that works; jobs/contract.ts says what each field is.',
      ...(cause === undefined ? {} : { cause }),
    });
  let exported: unknown;
  try {
    if (!isBuiltIn) await registerCommonTypeScript();
    const module: unknown = await import(pathToFileURL(path).href);
    exported = defaultOf(module);
  } catch (cause) {
    throw problem(`${lineOf(cause, path)} cannot be loaded: ${described(cause)}`, cause);
  }
  const wrong = jobProblem(exported);
  if (wrong !== null) throw problem(`: ${wrong}`);
  const sha256 = hashOfSource(path);
  return {
    definition: exported as JobDefinition,
    path,
    reference: isBuiltIn ? { kind: 'built-in', name: nameOrPath, sha256 } : { kind: 'file', path, sha256 },
  };
}

/** The default export; of a CommonJS file that TypeScript or Babel made, the one inside it. */
function defaultOf(module: unknown): unknown {
  if (typeof module !== 'object' || module === null || !('default' in module)) return undefined;
  const inner = module.default;
  return typeof inner === 'object' && inner !== null && '__esModule' in inner && 'default' in inner
    ? inner.default
    : inner;
}

/** The user's own error, in one line. */
function described(cause: unknown): string {
  const text = cause instanceof Error ? `${cause.name}: ${cause.message}` : `it threw ${String(cause)}`;
  return text.split('\n').find((line) => line.trim() !== '') ?? text;
}

/** `:12`, the line of the file where the error arose, when its stack or message says so. */
function lineOf(cause: unknown, path: string): string {
  if (!(cause instanceof Error)) return '';
  const text = `${cause.message}\n${cause.stack ?? ''}`;
  for (const name of [path, pathToFileURL(path).href]) {
    const at = text.indexOf(`${name}:`);
    const digits = at < 0 ? null : /^\d+/.exec(text.slice(at + name.length + 1));
    if (digits !== null) return `:${digits[0]}`;
  }
  return '';
}
