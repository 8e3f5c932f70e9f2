// Which version of a format a file of a run has. Another one's is refused, and left as it is: it is neither damaged nor to be guessed at, and
// a checkpoint that this version can't read must not be passed over for an older one. docs/compatibility.md is the policy.

import { LockstepError } from '../../protocol/errors.ts';

/** Throws E_RECORD_VERSION when `value` says that it has another schema than `known`. What says nothing is judged by its fields. */
export function refuseOtherSchema(what: string, value: unknown, known: number): void {
  const schema = typeof value === 'object' && value !== null && 'schema' in value ? value.schema : known;
  if (typeof schema !== 'number' || schema === known) return;
  throw new LockstepError('E_RECORD_VERSION', `${what} has schema ${schema}, and this Lockstep reads schema ${known}`, {
    remedy: 'Use the Lockstep that wrote it; nothing in it was changed. docs/compatibility.md says which reads what.',
  });
}

export function isOtherSchema(error: unknown): error is LockstepError & { readonly code: 'E_RECORD_VERSION' } {
  return error instanceof LockstepError && error.code === 'E_RECORD_VERSION';
}
