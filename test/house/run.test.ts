// `npm test` itself, as a process: what it ends with when tests pass, and when there is nothing to run.

import { spawn, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const RUN = new URL('../run.ts', import.meta.url).href;

interface Ended {
  readonly code: number | null;
  readonly lines: readonly string[];
}

/** Runs the suite with these filters in a Node of its own, outside of this vitest; `wrote` is told what it writes. */
function suite(filters: string[], wrote = (_text: string, _runner: ChildProcess): void => {}): Promise<Ended> {
  const program = `const { runTests } = await import(${JSON.stringify(RUN)});
    process.exitCode = await runTests(${JSON.stringify(filters)});`;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(VITEST|TEST|NODE_ENV)/.test(name)));
  const runner = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', program], {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    env: { ...env, NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let text = '';
  runner.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
    wrote(text, runner);
  });
  return new Promise((resolve) => {
    runner.on('close', (code) => {
      resolve({ code, lines: text.trimEnd().split('\n') });
    });
  });
}

test('a suite that passes ends with its count and code 0', async () => {
  const { code, lines } = await suite(['test/protocol/random.test.ts']);
  expect(lines.at(0)).toMatch(/types, lint, format and dead code are skipped/);
  expect(lines.at(-1)).toMatch(/^[1-9]\d* passed, 0 failed$/);
  expect(code).toBe(0);
});

test('a suite that finds no test has failed', async () => {
  const { code, lines } = await suite(['test/no-such-file']);
  expect(lines.at(-1)).toBe('0 passed, 1 failed');
  expect(code).toBe(1);
});

test('a vitest that cannot start has failed', async () => {
  const { code, lines } = await suite(['--config=no-such-config.ts']);
  expect(lines.at(-1)).toBe('0 passed, 1 failed');
  expect(code).toBe(1);
});

test('a suite that is interrupted has failed, and still ends with its count', async () => {
  // The lint test is under way as soon as vitest has started, and takes seconds.
  const { code, lines } = await suite(['test/house/lint.test.ts'], (text, runner) => {
    if (/RUN +v/.test(text) && !runner.killed) runner.kill('SIGTERM');
  });
  expect(lines.at(-1)).toBe('0 passed, 1 failed');
  expect(code).toBe(1);
});
