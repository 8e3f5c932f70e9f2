// The file with the run's token: what is taken from it, and what can't be shown in a header of HTTP.

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { isOpenToOthers, readToken } from '../../deploy/token.ts';

const place = mkdtempSync(join(tmpdir(), 'lockstep-token-'));
afterAll(() => rmSync(place, { recursive: true, force: true }));

function file(text: string, mode = 0o600): string {
  const path = join(place, 'token');
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

it('a token is the line of its file, white space around it left out', () => {
  expect(readToken(file('  a secret+/=\n'))).toBe('a secret+/=');
});

it.each([
  ['', 'is empty'],
  [' \n', 'is empty'],
  ['two\nlines', 'is not one line of printable ASCII'],
  ['schlüssel', 'is not one line of printable ASCII'],
])('%j is refused by its file, and not repeated', (text, why) => {
  const path = file(text);
  expect(() => readToken(path)).toThrow(
    expect.objectContaining({
      code: 'E_USAGE',
      message: expect.stringMatching(new RegExp(`${path} ?.*${why}$`)) as string,
    }),
  );
});

it('a file that is not there is refused by its name', () => {
  expect(() => readToken(join(place, 'none'))).toThrow(
    expect.objectContaining({ code: 'E_USAGE', message: expect.stringContaining('none cannot be read') as string }),
  );
});

it('a file that others can read is told from one that they cannot', () => {
  expect([0o600, 0o640, 0o604, 0o700].map((mode) => isOpenToOthers(file('t', mode)))).toEqual([
    false,
    true,
    true,
    false,
  ]);
});
