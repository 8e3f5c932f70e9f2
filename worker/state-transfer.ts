// Puts a replica's state together from the parts (protocol/state-parts.ts) that come in. Core: no socket.

import { LockstepError } from '../protocol/errors.ts';
import type { StatePart } from '../protocol/messages.ts';

/** Copies a part into the vector of its name; returns true with the last part. Throws E_JOB_CHANGED when it is of another model. */
export function takeStatePart(part: StatePart, vectors: ReadonlyMap<string, Float32Array>): boolean {
  const target = vectors.get(part.vector);
  const floats = part.bytes.byteLength / 4;
  if (
    target === undefined ||
    target.length !== part.length ||
    part.offset + floats > target.length ||
    !Number.isInteger(floats)
  ) {
    throw new LockstepError(
      'E_JOB_CHANGED',
      `state vector "${part.vector}" of ${part.length} floats does not fit this job's model and optimizer`,
      { remedy: 'Resume with the job that the checkpoint was made by.' },
    );
  }
  new Uint8Array(target.buffer, target.byteOffset).set(part.bytes, 4 * part.offset);
  return part.vectorIndex + 1 === part.vectors && part.offset + floats === part.length;
}
