// The file with the run's token: what is taken from it, and what can't be shown in a header of HTTP.

import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { isOpenToOthers, isWeak, makeKey, readKey, readToken, tokenCommand } from '../../deploy/token.ts';
import { judge, keysOf, makeToken } from '../../protocol/token.ts';

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

describe('lockstep token', () => {
  const made = (name: string): string => join(place, name);

  it('makes a key where only this user can read it, another each time, and never over a file that is there', () => {
    expect(tokenCommand(null, made('key'), 0)).toBe(0);
    expect(statSync(made('key')).mode & 0o777).toBe(0o600);
    const key = readKey(made('key'));
    expect(key).toMatch(/^[\w-]{43}$/);
    expect(makeKey()).not.toBe(key);
    expect(() => tokenCommand(null, made('key'), 0)).toThrow(
      expect.objectContaining({
        code: 'E_USAGE',
        message: expect.stringContaining('there is such a file already') as string,
      }),
    );
    expect(readKey(made('key'))).toBe(key);
  });

  it('makes from a key what its run takes, for the scope and the time that were asked for', () => {
    const nowMs = Date.now();
    writeFileSync(made('root'), 'a key that is long enough\n');
    const from = { keyFile: made('root'), scope: 'work', expiresInSeconds: 3600 } as const;
    tokenCommand(from, made('worker'), nowMs);
    const standing = (atMs: number): unknown =>
      judge(readFileSync(made('worker'), 'utf8').trim(), keysOf('a key that is long enough'), atMs);
    expect(standing(nowMs + 3_600_000)).toMatchObject({ kind: 'granted', scope: 'work' });
    expect(standing(nowMs + 3_700_000)).toMatchObject({ code: 'E_TOKEN_EXPIRED' });
    // No token is made from a token, and no coordinator goes by one.
    expect(() => tokenCommand({ ...from, keyFile: made('worker') }, null, nowMs)).toThrow(
      expect.objectContaining({ code: 'E_USAGE', message: expect.stringContaining('takes the key itself') as string }),
    );
  });

  it('one that has expired, or is damaged, is found out when its file is read', () => {
    const token = makeToken('k', { scope: 'work', expiresAtSeconds: 1_700_000_000, id: 'x' });
    expect(() => readToken(file(token))).toThrow(
      expect.objectContaining({
        code: 'E_TOKEN_EXPIRED',
        message: expect.stringMatching(/has expired at 2023-11-14T22:13:20\.000Z$/) as string,
      }),
    );
    expect(() => readToken(file(token.slice(0, -1)))).toThrow(
      expect.objectContaining({ code: 'E_USAGE', message: expect.stringMatching(/is damaged$/) as string }),
    );
  });

  it('a key that can be found by trying is told from one that cannot', () => {
    expect(['', 'secret', 'x'.repeat(19), 'x'.repeat(20), makeKey()].map(isWeak)).toEqual([
      true,
      true,
      true,
      false,
      false,
    ]);
  });
});
