// Puts a replica's state together from the parts that one worker sends: weights and optimizer slots of one step.
// Parts of a state come in order on one link; anything else is that worker's fault and is refused by name.
// Cost: one copy of each part; the vectors are allocated when their first part arrives, bounded by the model's own size.

import { LockstepError } from '../../protocol/errors.ts';
import type { StatePart } from '../../protocol/messages.ts';

export interface ReplicaState {
  /** Steps done. */
  readonly step: number;
  /** Digest of the weights, as the sender computed it. */
  readonly digest: string;
  readonly vectors: readonly { readonly name: string; readonly data: Float32Array }[];
}

export class StateAssembly {
  private step = -1;
  private digest = '';
  private vectors: { name: string; data: Float32Array }[] = [];
  private filled = 0;
  private readonly lengthOf: (vector: string) => number | null;

  /** `lengthOf` gives the floats that a vector of that name must have; null when there is no such vector. */
  constructor(lengthOf: (vector: string) => number | null) {
    this.lengthOf = lengthOf;
  }

  /** Takes the next part; returns the whole state with its last one. Throws E_PROTOCOL on a part out of place. */
  accept(part: StatePart): ReplicaState | null {
    if (part.vectorIndex === 0 && part.offset === 0) {
      this.step = part.step;
      this.digest = part.digest;
      this.vectors = [];
      this.filled = 0;
    }
    this.check(
      part.step === this.step && part.digest === this.digest,
      part,
      'of another state than the parts before it',
    );
    if (part.offset === 0) {
      this.check(part.vectorIndex === this.vectors.length, part, 'of a vector out of order');
      this.check(this.lengthOf(part.vector) === part.length, part, `of ${part.length} floats, which is not its length`);
      this.vectors.push({ name: part.vector, data: new Float32Array(part.length) });
      this.filled = 0;
    }
    const current = this.vectors[part.vectorIndex];
    this.check(current !== undefined && current.name === part.vector, part, 'of a vector that has not begun');
    this.check(part.offset === this.filled && part.bytes.byteLength % 4 === 0, part, `at float ${part.offset}`);
    this.check(part.offset + part.bytes.byteLength / 4 <= part.length, part, 'that runs over its end');
    if (current === undefined) return null;
    new Uint8Array(current.data.buffer).set(part.bytes, 4 * part.offset);
    this.filled += part.bytes.byteLength / 4;
    if (this.filled < part.length || part.vectorIndex + 1 < part.vectors) return null;
    const state = { step: this.step, digest: this.digest, vectors: this.vectors };
    this.step = -1;
    this.vectors = [];
    return state;
  }

  private check(holds: boolean, part: StatePart, what: string): void {
    if (!holds) throw new LockstepError('E_PROTOCOL', `a part of vector "${part.vector}" of step ${part.step} ${what}`);
  }
}
