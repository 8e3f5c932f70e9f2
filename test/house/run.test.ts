// `npm test` itself, as a process: what it ends with when tests pass, and when there is nothing to run.

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const RUN = new URL('../run.ts', import.meta.url).href;

/** Runs the suite with these filters in a Node of its own, outside of this vitest. */
function suite(...filters: string[]): Promise<{ code: number; lines: string[] }> {
  const program = `const { runTests } = await import(${JSON.stringify(RUN)});
    process.exitCode = await runTests(${JSON.stringify(filters)});`;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(VITEST|TEST|NODE_ENV)/.test(name)));
  const args = ['--import', 'tsx', '--input-type=module', '--eval', program];
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      args,
      { cwd: fileURLToPath(new URL('../..', import.meta.url)), env },
      (error, stdout) => {
        resolve({ code: error === null ? 0 : Number(error.code), lines: stdout.trimEnd().split('\n') });
      },
    );
  });
}

test('a suite that passes ends with its count and code 0', async () => {
  const { code, lines } = await suite('test/protocol/random.test.ts');
  expect(lines.at(0)).toMatch(/types, lint, format and dead code are skipped/);
  expect(lines.at(-1)).toMatch(/^[1-9]\d* passed, 0 failed$/);
  expect(code).toBe(0);
});

test('a suite that finds no test has failed', async () => {
  const { code, lines } = await suite('test/no-such-file');
  expect(lines.at(-1)).toBe('0 passed, 1 failed');
  expect(code).toBe(1);
});

test('a vitest that cannot start has failed', async () => {
  const { code, lines } = await suite('--config=no-such-config.ts');
  expect(lines.at(-1)).toBe('0 passed, 1 failed');
  expect(code).toBe(1);
});
