// The token that workers show: read from a file, never from a command line, where other users of the machine could see it.

import { readFileSync, statSync } from 'node:fs';
import { LockstepError } from '../protocol/errors.ts';

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
      remedy: 'Make another: openssl rand -base64 24',
    });
  }
  return token;
}

/** Whether other users of this machine can read a file that holds a secret. */
export function isOpenToOthers(file: string): boolean {
  return process.platform !== 'win32' && (statSync(file).mode & 0o044) !== 0;
}
