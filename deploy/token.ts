// The tokens of a run: made, and read from files, never from a command line, where other users of the machine could see them.

import { randomBytes } from 'node:crypto';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { LockstepError } from '../protocol/errors.ts';
import { CLOCK_TOLERANCE_MS, isDerived, makeToken, partsOf, type Scope } from '../protocol/token.ts';

/** Of a key: too many to be found by trying. */
const KEY_BYTES = 32;
/** Of a token that is made from one: what tells it from others in a log. */
const ID_BYTES = 6;
/** A shorter key may be found by trying, by who holds a token that was made from it. */
const KEY_LENGTH_MIN = 20;

/** The token in a file, surrounding white space left out. Throws E_USAGE. */
export function readToken(file: string): string {
  let token = '';
  try {
    token = readFileSync(file, 'utf8').trim();
  } catch (cause) {
    throw new LockstepError('E_USAGE', `the token file ${file} cannot be read`, {
      remedy: "Give --token-file a readable file that holds the run's token.",
      cause,
    });
  }
  if (token === '')
    throw new LockstepError('E_USAGE', `the token file ${file} is empty`, { remedy: 'Put a token into it.' });
  // It travels in a header of HTTP.
  if (!/^[\u0020-\u007E]+$/.test(token)) {
    throw new LockstepError('E_USAGE', `the token in ${file} is not one line of printable ASCII`, {
      remedy: 'Make another: npx lockstep token --out FILE',
    });
  }
  if (isDerived(token)) checkDerived(token, file);
  return token;
}

/** What can be known of it without the key. */
function checkDerived(token: string, file: string): void {
  const parts = partsOf(token);
  const expiredAtMs = 1000 * (parts?.expiresAtSeconds ?? Infinity);
  const isExpired = Date.now() > expiredAtMs + CLOCK_TOLERANCE_MS;
  if (parts !== null && !isExpired) return;
  const what = parts === null ? 'is damaged' : `has expired at ${new Date(expiredAtMs).toISOString()}`;
  throw new LockstepError(parts === null ? 'E_USAGE' : 'E_TOKEN_EXPIRED', `the token in ${file} ${what}`, {
    remedy: 'Make another: npx lockstep token --token-file KEY --scope SCOPE --out FILE',
  });
}

/** The key in a file: what a coordinator goes by, and tokens are made from. Throws E_USAGE. */
export function readKey(file: string): string {
  const key = readToken(file);
  if (!isDerived(key)) return key;
  throw new LockstepError('E_USAGE', `${file} holds a token that was made from a key, and this takes the key itself`, {
    remedy: 'Give the file that it was made from.',
  });
}

export function makeKey(): string {
  return randomBytes(KEY_BYTES).toString('base64url');
}

/** True for a key that may be found by trying. */
export function isWeak(key: string): boolean {
  return key.length < KEY_LENGTH_MIN;
}

/** Makes what the command asks for, and prints it or writes it where only this user can read it. Returns the exit code. Throws E_USAGE. */
export function tokenCommand(
  from: { readonly keyFile: string; readonly scope: Scope; readonly expiresInSeconds: number | null } | null,
  out: string | null,
  nowMs: number,
): number {
  const made = from === null ? makeKey() : tokenFrom(from, nowMs);
  if (out === null) {
    process.stdout.write(`${made}\n`);
    return 0;
  }
  try {
    writeFileSync(out, `${made}\n`, { mode: 0o600, flag: 'wx' });
  } catch (cause) {
    const isThere = cause instanceof Error && 'code' in cause && cause.code === 'EEXIST';
    const why = isThere ? 'there is such a file already' : `it cannot be written (${String(cause)})`;
    throw new LockstepError('E_USAGE', `--out ${out}: ${why}`, {
      remedy: isThere ? 'Remove it, if nothing needs it any more, or give another name.' : 'Give another name.',
      cause,
    });
  }
  return 0;
}

function tokenFrom(
  { keyFile, scope, expiresInSeconds }: { keyFile: string; scope: Scope; expiresInSeconds: number | null },
  nowMs: number,
): string {
  const expiresAtSeconds = expiresInSeconds === null ? null : Math.floor(nowMs / 1000) + expiresInSeconds;
  return makeToken(readKey(keyFile), { scope, expiresAtSeconds, id: randomBytes(ID_BYTES).toString('hex') });
}

/** For workers of other hosts: it lets them join and do what a worker does, and ends with the key. */
export function workToken(key: string): string {
  return makeToken(key, { scope: 'work', expiresAtSeconds: null, id: randomBytes(ID_BYTES).toString('hex') });
}

/** Whether other users of this machine can read a file that holds a secret. */
export function isOpenToOthers(file: string): boolean {
  return process.platform !== 'win32' && (statSync(file).mode & 0o044) !== 0;
}
