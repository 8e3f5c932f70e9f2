// Proves that the lint configuration can fail: one run of the real oxlint with the real configuration over a made-up checkout
// that holds every planted violation and its lawful twin. An option that oxlint does not know is ignored in silence; only this
// finds out.

import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { PLANTED, TARGETS, TARGET_SOURCE, type Planted } from './planted.ts';

const CHECKOUT = fileURLToPath(new URL('../../', import.meta.url));
const OXLINT = join(dirname(createRequire(import.meta.url).resolve('oxlint/package.json')), 'bin', 'oxlint');
const outputSchema = z.object({
  diagnostics: z.array(z.object({ filename: z.string(), code: z.string().optional(), message: z.string() })),
});

const place = mkdtempSync(join(tmpdir(), 'lockstep-lint-'));
const reported = new Map<string, Set<string>>();

beforeAll(() => {
  for (const name of ['.oxlintrc.json', 'tsconfig.json', 'package.json'])
    cpSync(join(CHECKOUT, name), join(place, name));
  symlinkSync(join(CHECKOUT, 'node_modules'), join(place, 'node_modules'));
  const write = (file: string, source: string): void => {
    mkdirSync(dirname(join(place, file)), { recursive: true });
    writeFileSync(join(place, file), source);
  };
  for (const target of [...TARGETS, 'worker/target.ts']) write(target, TARGET_SOURCE);
  for (const { file, source } of PLANTED) write(file, source);

  for (const { filename, code, message } of lint(place)) {
    const rules = reported.get(filename) ?? new Set();
    rules.add(code ?? message);
    reported.set(filename, rules);
  }
});

afterAll(() => {
  rmSync(place, { recursive: true, force: true });
});

/** Runs oxlint as `npm run check:lint` does. It ends with code 1 when it finds something, which here it must. */
function lint(directory: string): z.infer<typeof outputSchema>['diagnostics'] {
  try {
    execFileSync(process.execPath, [OXLINT, '--type-aware', '--deny-warnings', '--format=json'], {
      cwd: directory,
      encoding: 'utf8',
      maxBuffer: 1 << 26,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  } catch (error) {
    const { stdout } = z.object({ status: z.literal(1), stdout: z.string() }).parse(error);
    return outputSchema.parse(JSON.parse(stdout)).diagnostics;
  }
  throw new Error('oxlint found nothing in a tree full of violations');
}

const lawful = PLANTED.filter(({ rule }) => rule === null);

/** The planted violations by room and by the rule that must speak: one test for each. */
const broken = new Map<string, Planted[]>();
for (const planted of PLANTED) {
  if (planted.rule === null) continue;
  const group = `${dirname(planted.file)}/: ${planted.rule}`;
  broken.set(group, [...(broken.get(group) ?? []), planted]);
}

test('no two planted files share a path', () => {
  expect(new Set(PLANTED.map(({ file }) => file)).size).toBe(PLANTED.length);
});

test.each([...broken.keys()])('%s speaks of each violation', (group) => {
  const silent = (broken.get(group) ?? []).filter(({ file, rule }) => reported.get(file)?.has(String(rule)) !== true);
  expect(silent).toEqual([]);
});

test('no rule speaks of a lawful twin', () => {
  const accused = lawful.filter(({ file }) => reported.has(file));
  expect(accused.map(({ file }) => [file, ...(reported.get(file) ?? [])])).toEqual([]);
  expect(lawful.length).toBeGreaterThan(100);
});
