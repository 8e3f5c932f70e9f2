// The token that workers show: read from a file, never from a command line, where other users of the machine could see it.

import { readFileSync } from 'node:fs';
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
  return token;
}
