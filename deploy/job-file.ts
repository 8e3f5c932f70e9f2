// Finds and loads a job: a built-in by its name, or a user's file. The file's code runs in this process, so that a job is
// always code from this machine's own disk; its hash, over the file and the files that it imports by relative path, is what
// coordinator, workers and checkpoints compare.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, extname, join, relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { JobDefinition } from '../jobs/contract.ts';
import { LockstepError } from '../protocol/errors.ts';
import type { JobReference } from '../protocol/run-config.ts';

const JOBS = fileURLToPath(new URL('../jobs/', import.meta.url));
/** Files of jobs/ that are parts of jobs, not jobs. */
const NOT_JOBS: ReadonlySet<string> = new Set(['contract', 'optimizers', 'augment']);
const ENDINGS: ReadonlySet<string> = new Set(['.ts', '.mts', '.js', '.mjs', '.cjs']);

export interface LoadedJob {
  readonly definition: JobDefinition;
  readonly reference: JobReference;
  readonly path: string;
}

export function builtInJobs(): string[] {
  return readdirSync(JOBS)
    .filter((name) => name.endsWith('.ts'))
    .map((name) => name.slice(0, -3))
    .filter((name) => !NOT_JOBS.has(name));
}

/** What `loadJob` takes to find the job of a reference on this machine. */
export function resolveReference(reference: JobReference): string {
  return reference.kind === 'built-in' ? reference.name : reference.path;
}

/** SHA-256 over the file and all that it imports by relative path, in the order of the imports, each with its relative name. */
export function hashOfSource(path: string): string {
  const hash = createHash('sha256');
  const seen = new Set<string>();
  const add = (file: string): void => {
    if (seen.has(file) || !existsSync(file) || !statSync(file).isFile()) return;
    seen.add(file);
    const source = readFileSync(file);
    hash.update(`${relative(dirname(path), file)}\0${source.length}\0`).update(source);
    for (const match of source.toString('utf8').matchAll(/(?:from|import|require)\s*\(?\s*['"](\.{1,2}\/[^'"]+)['"]/g)) {
      add(resolve(dirname(file), match[1] ?? ''));
    }
  };
  add(path);
  return hash.digest('hex');
}

/** Loads a job by name or path. Throws E_JOB_NOT_FOUND or E_JOB_INVALID, naming the file and what is wrong in it. */
export async function loadJob(nameOrPath: string): Promise<LoadedJob> {
  const isBuiltIn = builtInJobs().includes(nameOrPath);
  const path = isBuiltIn ? join(JOBS, `${nameOrPath}.ts`) : resolve(nameOrPath);
  if (!isBuiltIn && !(existsSync(path) && statSync(path).isFile())) {
    throw new LockstepError('E_JOB_NOT_FOUND', `there is no job "${nameOrPath}": no built-in job of that name, and no such file`, {
      remedy: `Built-in jobs: ${builtInJobs().join(', ')}. Or give the path of a .ts or .js file.`,
    });
  }
  if (!ENDINGS.has(extname(path))) {
    throw new LockstepError('E_JOB_INVALID', `the job file ${path} is not a .ts or .js file`);
  }
  let module: unknown;
  try {
    module = await import(pathToFileURL(path).href);
  } catch (cause) {
    const why = cause instanceof Error ? `${cause.name}: ${cause.message}${placeIn(cause, path)}` : String(cause);
    throw new LockstepError('E_JOB_INVALID', `the job file ${path} cannot be loaded: ${why}`, {
      remedy: 'Mend the file; jobs/cifar10-cnn.ts is one that works.',
      cause,
    });
  }
  const definition = checkJob(typeof module === 'object' && module !== null && 'default' in module ? module.default : undefined, path);
  const sha256 = hashOfSource(path);
  return {
    definition,
    path,
    reference: isBuiltIn ? { kind: 'built-in', name: nameOrPath, sha256 } : { kind: 'file', path, sha256 },
  };
}

/** ` (line L)` when the error's stack names the file. */
function placeIn(error: Error, path: string): string {
  const line = error.stack?.split('\n').find((l) => l.includes(path));
  const match = line === undefined ? null : /:(\d+)(?::\d+)?\)?$/.exec(line);
  return match === null ? '' : ` (line ${match[1]})`;
}

/** The border for users' jobs: checks what types cannot, since the file may be JavaScript. */
function checkJob(value: unknown, path: string): JobDefinition {
  const refuse = (what: string): never => {
    throw new LockstepError('E_JOB_INVALID', `the job file ${path}: ${what}`, {
      remedy: 'Export the job as default: `export default defineJob({ ... })`; jobs/contract.ts says what it holds.',
    });
  };
  if (typeof value !== 'object' || value === null) return refuse('its default export is not a job');
  const job = value as Partial<Record<keyof JobDefinition, unknown>>;
  if (typeof job.name !== 'string' || !/^[A-Za-z0-9_-]{1,100}$/.test(job.name)) {
    refuse('`name` must be letters, digits, - and _ (at most 100)');
  }
  if (typeof job.model !== 'function') refuse('`model` must be a function that builds the model');
  const data = job.data as Partial<Record<keyof JobDefinition['data'], unknown>> | undefined;
  if (typeof data !== 'object' || data === null || typeof data.open !== 'function' || typeof data.name !== 'string') {
    refuse('`data` must be a data set with `name` and `open`');
  }
  const loss = job.loss as { perSample?: unknown } | string | undefined;
  const isLoss = loss === 'sparseCategoricalCrossentropy' || (typeof loss === 'object' && loss !== null && typeof loss.perSample === 'function');
  if (!isLoss) refuse("`loss` must be 'sparseCategoricalCrossentropy' or an object with `perSample`");
  const optimizer = job.optimizer as Partial<Record<keyof JobDefinition['optimizer'], unknown>> | undefined;
  if (typeof optimizer !== 'object' || optimizer === null || typeof optimizer.update !== 'function' || !Array.isArray(optimizer.slots)) {
    refuse('`optimizer` must be one of jobs/optimizers.ts, or an object with `update` and `slots`');
  }
  for (const field of ['batchSize', 'epochs'] as const) {
    if (!Number.isSafeInteger(job[field]) || (job[field] as number) < 1) refuse(`\`${field}\` must be a whole number of at least 1`);
  }
  const m = job.microbatches;
  if (m !== undefined && !(typeof m === 'number' && Number.isInteger(m) && m >= 1 && m <= 64 && (m & (m - 1)) === 0)) {
    refuse('`microbatches` must be a power of two from 1 to 64');
  }
  const augment = job.augment as { apply?: unknown } | undefined;
  if (augment !== undefined && typeof augment.apply !== 'function') refuse('`augment` must have `apply`');
  return value as JobDefinition;
}
