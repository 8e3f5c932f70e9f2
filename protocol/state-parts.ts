// A state on its way, as parts of control messages: they keep a message below its limit and let others through between them. Workers and
// coordinator cut alike.

import { MAX_STATE_PART_FLOATS, type StatePart } from './messages.ts';

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
