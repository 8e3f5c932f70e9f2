// Programs that judge what deploy/ ships: of the system, or of PyPI in the cache (requirements.txt). A test whose program is missing is shown
// as skipped, with the reason; in CI, which installs them all, it fails.

import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestContext } from 'vitest';
import { cacheDirectory } from '../../deploy/setup/cache.ts';

export const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url));

const TOOLS = join(cacheDirectory(), 'tools');
const FROM_PYPI = 'python3 -m pip install --upgrade --target ~/.cache/lockstep/tools -r test/deploy/requirements.txt';

function isThere(program: string): boolean {
  const places = [join(TOOLS, 'bin'), ...(process.env['PATH'] ?? '').split(delimiter)];
  return places.some((place) => {
    try {
      accessSync(join(place, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Ends a test as skipped where something that it needs is missing; in CI as failed. */
export function need(context: TestContext, has: boolean, because: string): void {
  if (has) return;
  if (process.env['CI'] !== undefined) throw new Error(because);
  context.skip(because);
}

/** A program of requirements.txt, or one of the system where `install` says how it comes there. */
export function needProgram(context: TestContext, program: string, install: string = FROM_PYPI): void {
  need(context, isThere(program), `no ${program}: ${install}`);
}

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function run(program: string, args: readonly string[], options: { readonly input?: string } = {}): Ran {
  const env = {
    ...process.env,
    PATH: `${join(TOOLS, 'bin')}${delimiter}${process.env['PATH'] ?? ''}`,
    PYTHONPATH: TOOLS,
  };
  const ended = spawnSync(program, [...args], { cwd: CHECKOUT, env, encoding: 'utf8', ...options });
  return { code: ended.status, stdout: ended.stdout, stderr: ended.stderr };
}

/** The tracked files of the checkout, and those that would be. */
export function trackedFiles(): string[] {
  const { stdout } = run('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z']);
  return stdout.split('\0').filter((name) => name !== '');
}
