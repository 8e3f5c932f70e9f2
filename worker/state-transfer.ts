// A replica's state as parts of control messages, out and in. Parts keep a message below its limit and let others through
// between them. Core: no socket; the caller sends what comes out.

import { LockstepError } from '../protocol/errors.ts';
import { MAX_STATE_PART_FLOATS, type StatePart } from '../protocol/messages.ts';

/** Cuts the named vectors into parts, in order. `bytes` are views of the vectors: send before they change. */
export function* statePartsOf(
  step: number,
  digest: string,
  vectors: readonly { readonly name: string; readonly data: Float32Array }[],
): Generator<StatePart> {
  for (const [vectorIndex, { name, data }] of vectors.entries()) {
    let offset = 0;
    do {
      const floats = Math.min(MAX_STATE_PART_FLOATS, data.length - offset);
      yield {
        kind: 'state',
        step,
        digest,
        vector: name,
        vectorIndex,
        vectors: vectors.length,
        offset,
        length: data.length,
        bytes: new Uint8Array(data.buffer, data.byteOffset + 4 * offset, 4 * floats),
      };
      offset += floats;
    } while (offset < data.length);
  }
}

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
