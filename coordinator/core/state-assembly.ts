// Puts the state of one step together from the parts that workers send. Rank 0 sends its replica: weights and optimizer slots. Where
// gradients are compressed each rank sends the residuals of its microbatches as well, and a state is whole with the last rank's.
// Parts of one worker come in order on its link; anything else is that worker's fault and is refused by name.
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

/** What one worker sends. */
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

/** What all senders send, put together. */
export class StateGathering {
  private readonly assemblies: ReadonlyMap<string, StateAssembly>;
  private readonly vectors: ReadonlyMap<string, readonly string[]>;
  /** By step, then by sender. Ranks are at most a step apart, so these are two at most. */
  private readonly parts = new Map<number, Map<string, ReplicaState>>();

  /**
   * @param vectors the names of what each worker sends, in order; the first worker's come first in the state
   * @param lengthOf the floats of a vector
   */
  constructor(vectors: ReadonlyMap<string, readonly string[]>, lengthOf: (vector: string) => number) {
    this.vectors = vectors;
    this.assemblies = new Map(
      [...vectors].map(([worker, names]) => [
        worker,
        new StateAssembly((name) => (names.includes(name) ? lengthOf(name) : null)),
      ]),
    );
  }

  /** Takes a worker's next part; returns the whole state with the last one of all. Throws E_PROTOCOL on a part out of place. */
  accept(worker: string, part: StatePart): ReplicaState | null {
    const assembly = this.assemblies.get(worker);
    if (assembly === undefined) throw new LockstepError('E_PROTOCOL', `${worker} has no state to send`);
    const sent = assembly.accept(part);
    if (sent === null) return null;
    const missing = (this.vectors.get(worker) ?? []).filter((name) => !sent.vectors.some((v) => v.name === name));
    if (missing.length > 0) {
      throw new LockstepError('E_PROTOCOL', `${worker}'s state of step ${sent.step} lacks ${missing.join(', ')}`);
    }
    const bySender = this.parts.get(sent.step) ?? new Map<string, ReplicaState>();
    this.parts.set(sent.step, bySender.set(worker, sent));
    if (bySender.size < this.vectors.size) return null;
    for (const step of this.parts.keys()) if (step <= sent.step) this.parts.delete(step);
    const states = [...this.vectors.keys()].flatMap((sender) => bySender.get(sender) ?? []);
    if (states.some((state) => state.digest !== sent.digest)) {
      throw new LockstepError('E_DIGEST', `${worker}'s part of the state of step ${sent.step} is of other weights`);
    }
    return { step: sent.step, digest: sent.digest, vectors: states.flatMap((state) => state.vectors) };
  }
}
