// Jobs by name and by path: what is loaded, what its hash covers, how a file that is no job is refused.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { builtInJobs, hashOfSource } from '../../deploy/job-file.ts';

const HERE = import.meta.dirname;
const JOBS = join(HERE, 'jobs');

/** Files that no compiler or linter of this project should meet. */
const FILES = {
  'throws.ts':
    '// Fails while it is loaded.\n\nconst settings: { layers?: number[] } = {};\n\nexport default settings.layers!.map((units) => 2 * units);\n',
  'broken.ts': "// A slip of the pen.\n\nexport default {\n  name: 'broken' batchSize: 64,\n};\n",
  'nothing.mjs': "export const job = { name: 'nothing' };\n",
  'misspelt.mjs': "export default { name: 'misspelt', microBatches: 8 };\n",
  'plain.cjs': `
    const { batchSize } = require('./plain-part.cjs');
    module.exports = {
      name: 'plain',
      data: { name: 'numbers', open: () => null },
      model: () => null,
      loss: { name: 'zero', perSample: () => null },
      optimizer: { name: 'still', learningRate: 0.5, slots: [], settings: {}, update: () => {} },
      batchSize,
      epochs: 1,
    };`,
  'plain-part.cjs': 'module.exports = { batchSize: 16 };\n',
};

interface Answer {
  readonly name?: string;
  readonly reference?: { readonly kind: string; readonly sha256: string };
  readonly path?: string;
  readonly code?: string;
  readonly message?: string;
  readonly remedy?: string;
  readonly cause?: string | null;
}

/** Loads all of `names` in one process of its own. */
async function load(...names: string[]): Promise<Answer[]> {
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--import',
    'tsx',
    join(HERE, 'load-jobs.ts'),
    ...names,
  ]);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Answer);
}

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(realpathSync(tmpdir()), 'lockstep-job-'));
  for (const [name, text] of Object.entries(FILES)) writeFileSync(join(directory, name), text);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe('loadJob', () => {
  test('finds built-in jobs by name and others by path, in TypeScript and JavaScript', async () => {
    const small = join(JOBS, 'small.ts');
    const plain = join(directory, 'plain.cjs');
    const [builtIn, typescript, commonJs] = await load('cifar10-cnn', small, plain);
    expect(builtIn).toMatchObject({ name: 'cifar10-cnn', reference: { kind: 'built-in', name: 'cifar10-cnn' } });
    expect(builtIn?.path).toBe(resolve(HERE, '../../jobs/cifar10-cnn.ts'));
    expect(typescript).toMatchObject({
      name: 'small',
      path: small,
      reference: { kind: 'file', path: small, sha256: hashOfSource(small) },
    });
    expect(commonJs).toMatchObject({ name: 'plain', reference: { kind: 'file', path: plain } });
  });

  test('a file that fails is refused with its own error and the line, a misnamed field with the fields there are', async () => {
    const names = ['throws.ts', 'broken.ts', 'nothing.mjs', 'misspelt.mjs'].map((name) => join(directory, name));
    const remedy = 'jobs/cifar10-cnn.ts is a job that works; jobs/contract.ts says what each field is.';
    const [throws, broken, nothing, misspelt] = await load(...names);
    expect(throws).toEqual({
      code: 'E_JOB_INVALID',
      message: `the job file ${names[0]}:5 cannot be loaded: TypeError: Cannot read properties of undefined (reading 'map')`,
      remedy,
      cause: 'TypeError',
    });
    // Each loader words a syntax error its own way.
    expect(broken).toMatchObject({ code: 'E_JOB_INVALID', remedy });
    expect(broken?.message).toMatch(`the job file ${names[1]}:4 cannot be loaded: `);
    expect(nothing).toEqual({
      code: 'E_JOB_INVALID',
      message: `the job file ${names[2]}: it has no default export; end it with \`export default defineJob({ ... })\``,
      remedy,
      cause: null,
    });
    expect(misspelt?.message).toBe(
      `the job file ${names[3]}: \`microBatches\` is no field of a job; the fields are name, title, model, data, loss, optimizer, augment, batchSize, epochs, microbatches`,
    );
  });

  test('what is neither a built-in job nor a file is refused with the jobs there are', async () => {
    const [unknown, folder, text, part] = await load('cifar-cnn', JOBS, join(HERE, '../../README.md'), 'contract');
    expect(unknown).toMatchObject({
      code: 'E_JOB_NOT_FOUND',
      message: `there is no job "cifar-cnn": no built-in job of that name, and no file ${resolve('cifar-cnn')}`,
      remedy: 'Built-in jobs: cifar10-cnn. Or give the path of a .ts or .js file.',
    });
    expect(folder?.code).toBe('E_JOB_NOT_FOUND');
    expect(text?.code).toBe('E_JOB_INVALID');
    expect(text?.message).toMatch(/README\.md is not a \.ts or \.js file$/);
    expect(part?.code).toBe('E_JOB_NOT_FOUND');
  });

  test('built-in jobs are the files of jobs/ with a default export', () => {
    expect(builtInJobs()).toEqual(['cifar10-cnn']);
  });
});

describe('hashOfSource', () => {
  const write = (place: string, files: Readonly<Record<string, string>>): string => {
    mkdirSync(join(directory, place, 'parts'), { recursive: true });
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, place, name), text);
    return join(directory, place, 'job.ts');
  };

  test('one file: the SHA-256 of its name, its length and its bytes', () => {
    const path = join(JOBS, 'numbers.ts');
    const text = readFileSync(path, 'utf8').replaceAll(/^import .*$/gm, '');
    const alone = write('alone', { 'job.ts': text });
    expect(hashOfSource(alone)).toBe(
      createHash('sha256')
        .update(`job.ts\0${Buffer.byteLength(text)}\0${text}`)
        .digest('hex'),
    );
  });

  test('it covers imports of imports, however they are written, and round trips end', () => {
    const files = {
      'job.ts': "import { a } from './parts/a.ts';\nexport { b } from './b.js';\nconst c = await import('./c');\n",
      'parts/a.ts': 'import type { D } from "../d.ts";\nimport "../job.ts";\n',
      'b.ts': '1',
      'c.mjs': "const e = require('./e.cjs'); import fs from 'node:fs';",
      'd.ts': 'export type D = 1;',
      'e.cjs': 'module.exports = 1;',
    };
    const before = hashOfSource(write('whole', files));
    expect(hashOfSource(write('elsewhere', files))).toBe(before);
    const changed = Object.keys(files).map((name) =>
      hashOfSource(write('whole', { ...files, [name]: `${files[name as keyof typeof files]} ` })),
    );
    expect(new Set([before, ...changed]).size).toBe(7);
    expect(hashOfSource(write('whole', files))).toBe(before);
  });

  test('a file beside it that it does not import is not covered', () => {
    const path = write('beside', { 'job.ts': "import { readFileSync } from 'node:fs';" });
    const before = hashOfSource(path);
    write('beside', { 'other.ts': '1' });
    expect(hashOfSource(path)).toBe(before);
  });
});
