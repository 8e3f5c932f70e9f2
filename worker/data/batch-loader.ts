// Turns a place in the training (epoch, batch, microbatch) into the samples themselves: looks up which samples they are,
// reads them, augments each by its own key. No state is carried from one microbatch to the next but the epoch's order of
// samples, so any rank can load any microbatch at any time and gets the same floats.
//
// Cost: the split's read plus the augmentation, an image at a time, on this thread; one sample's floats of scratch.

import type { Augmentation, Split } from '../../jobs/contract.ts';
import { epochPermutation, microbatchRange, type BatchPlan } from '../../protocol/batch-plan.ts';
import { RandomUse, randomStream } from '../../protocol/random.ts';

export interface LoadedMicrobatch {
  /** Samples in it; 0 when a short batch has none for this microbatch. */
  readonly size: number;
  /** float32 [size, ...inputShape]; a view of the loader's buffer, valid until the next `load`. */
  readonly inputs: Float32Array;
  /** [size]; likewise. */
  readonly labels: Int32Array;
}

export class BatchLoader {
  private readonly plan: BatchPlan;
  private readonly split: Split;
  private readonly shape: readonly number[];
  private readonly augment: Augmentation | null;
  private readonly sampleFloats: number;
  private readonly inputs: Float32Array;
  private readonly labels: Int32Array;
  private readonly plain: Float32Array;
  private order: Uint32Array = new Uint32Array(0);
  private orderEpoch = -1;

  constructor(options: { plan: BatchPlan; split: Split; inputShape: readonly number[]; augment: Augmentation | null }) {
    this.plan = options.plan;
    this.split = options.split;
    this.shape = options.inputShape;
    this.augment = options.augment;
    this.sampleFloats = options.inputShape.reduce((a, b) => a * b, 1);
    const most = Math.ceil(options.plan.globalBatch / options.plan.microbatches);
    this.inputs = new Float32Array(most * this.sampleFloats);
    this.labels = new Int32Array(most);
    this.plain = new Float32Array(this.sampleFloats);
  }

  /** Epoch, batch and microbatch count from 0. */
  load(epoch: number, batch: number, microbatch: number): LoadedMicrobatch {
    if (this.orderEpoch !== epoch) {
      this.order = epochPermutation(this.plan, epoch);
      this.orderEpoch = epoch;
    }
    const range = microbatchRange(this.plan, batch, microbatch);
    const size = range.end - range.start;
    for (let i = 0; i < size; i++) {
      const sample = this.order[range.start + i] ?? 0;
      const into = this.inputs.subarray(i * this.sampleFloats, (i + 1) * this.sampleFloats);
      if (this.augment === null) {
        this.labels[i] = this.split.read(sample, into);
      } else {
        this.labels[i] = this.split.read(sample, this.plain);
        const random = randomStream(this.plan.seed, RandomUse.augment, epoch, sample);
        this.augment.apply(this.plain, into, this.shape, random);
      }
    }
    return { size, inputs: this.inputs.subarray(0, size * this.sampleFloats), labels: this.labels.subarray(0, size) };
  }
}
