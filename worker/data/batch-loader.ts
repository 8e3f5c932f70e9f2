// Turns a place in the training (epoch, batch, microbatch) into the samples themselves: looks up which samples they are,
// reads them, augments each by its own key. No state is carried from one microbatch to the next but the epoch's order of
// samples, so any rank can load any microbatch, or a part of it, at any time and gets the same floats.
//
// Cost: the split's read plus the augmentation, an image at a time, on the calling thread; one sample's floats of scratch.

import type { Augmentation, Split } from '../../jobs/contract.ts';
import { epochPermutation, microbatchRange, pieceOf, type BatchPlan } from '../../protocol/batch-plan.ts';
import { RandomUse, randomStream } from '../../protocol/random.ts';

export interface LoadedMicrobatch {
  /** Samples in it; 0 when a short batch has none for this microbatch. */
  readonly size: number;
  /** float32 [size, ...inputShape]; a view of the loader's buffer, valid until the next `load`. */
  readonly inputs: Float32Array;
  /** [size]; likewise. */
  readonly labels: Int32Array;
}

/** A place in the training. Epoch, batch and microbatch count from 0. */
export interface Place {
  readonly epoch: number;
  readonly batch: number;
  readonly microbatch: number;
}

export function isSamePlace(a: Place, b: Place): boolean {
  return a.epoch === b.epoch && a.batch === b.batch && a.microbatch === b.microbatch;
}

/** Where the training loop gets its samples from. */
export interface Loader {
  load(place: Place): LoadedMicrobatch | Promise<LoadedMicrobatch>;
  /** Where there are no threads for it: prepares a sample of what is needed next; false when there is nothing to be prepared for now. */
  prepare?(): boolean;
  close(): Promise<void>;
}

/** What samples are made of: all but where they are put. */
export interface SampleSource {
  readonly plan: BatchPlan;
  readonly split: Split;
  readonly inputShape: readonly number[];
  readonly augment: Augmentation | null;
}

/** For one microbatch: float32 inputs, int32 labels. */
export interface Room {
  readonly inputs: Float32Array;
  readonly labels: Int32Array;
}

/** Makes zeros to read into: where the engine would copy plain ones, others. */
export type MakeFloats = (floats: number) => Float32Array;

/** Samples of the largest microbatch. */
export function largestMicrobatch(plan: BatchPlan): number {
  return Math.ceil(plan.globalBatch / plan.microbatches);
}

/** Room for one microbatch of `plan`. */
export function roomFor(
  plan: BatchPlan,
  sampleFloats: number,
  make: MakeFloats = (floats) => new Float32Array(floats),
): Room {
  const most = largestMicrobatch(plan);
  return { inputs: make(most * sampleFloats), labels: new Int32Array(most) };
}

/** The part of a room that a microbatch of `size` samples fills. */
export function loadedIn({ inputs, labels }: Room, size: number, sampleFloats: number): LoadedMicrobatch {
  return { size, inputs: inputs.subarray(0, size * sampleFloats), labels: labels.subarray(0, size) };
}

/** Reads samples into rooms. */
export class SampleReader {
  private readonly source: SampleSource;
  readonly sampleFloats: number;
  private readonly plain: Float32Array;
  private order: Uint32Array = new Uint32Array(0);
  private orderEpoch = -1;

  constructor(source: SampleSource) {
    this.source = source;
    this.sampleFloats = source.inputShape.reduce((a, b) => a * b, 1);
    this.plain = new Float32Array(this.sampleFloats);
  }

  /** Reads piece `piece` of `pieces` of a microbatch to its place in `room`; returns the size of the whole microbatch. */
  read({ epoch, batch, microbatch }: Place, room: Room, piece = 0, pieces = 1): number {
    const { plan, split, augment, inputShape } = this.source;
    if (this.orderEpoch !== epoch) {
      this.order = epochPermutation(plan, epoch);
      this.orderEpoch = epoch;
    }
    const range = microbatchRange(plan, batch, microbatch);
    const part = pieceOf(range, pieces, piece);
    for (let position = part.start; position < part.end; position++) {
      const sample = this.order[position] ?? 0;
      const i = position - range.start;
      const into = room.inputs.subarray(i * this.sampleFloats, (i + 1) * this.sampleFloats);
      if (augment === null) {
        room.labels[i] = split.read(sample, into);
      } else {
        room.labels[i] = split.read(sample, this.plain);
        augment.apply(this.plain, into, inputShape, randomStream(plan.seed, RandomUse.augment, epoch, sample));
      }
    }
    return range.end - range.start;
  }
}

/** Loads a microbatch when it is asked for, on the calling thread. */
export class BatchLoader implements Loader {
  private readonly reader: SampleReader;
  private readonly room: Room;

  constructor(source: SampleSource, make?: MakeFloats) {
    this.reader = new SampleReader(source);
    this.room = roomFor(source.plan, this.reader.sampleFloats, make);
  }

  load(place: Place): LoadedMicrobatch {
    return loadedIn(this.room, this.reader.read(place, this.room), this.reader.sampleFloats);
  }

  async close(): Promise<void> {}
}
