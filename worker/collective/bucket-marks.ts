// When each bucket of a step came how far, for the timeline: this rank's first vector of it was offered, all of this rank's had been given to
// the links, this rank's slice was summed, all slices were here. In ascending order, though a sum may be whole before the last part has
// been sent. Times come in as arguments; the array is one for all steps.

import { MAX_TRACED_BUCKETS } from '../../protocol/timeline.ts';

/** Times a bucket. */
export const MARKS = 4;

const [OFFERED, SENT, SUMMED, GATHERED] = [0, 1, 2, 3] as const;

export class BucketMarks {
  /** `MARKS` a bucket, in the order of buckets, of the first MAX_TRACED_BUCKETS; what is written beyond is lost. To be read when the step is done, until the next begins. */
  readonly times: Float64Array;

  constructor(buckets: number) {
    this.times = new Float64Array(MARKS * Math.min(buckets, MAX_TRACED_BUCKETS));
  }

  begin(): void {
    this.times.fill(Number.NaN);
  }

  /** A vector of the bucket is offered, and has been taken: summed or sent, as far as that goes at once. */
  offered(bucket: number, before: number, after: number): void {
    const { times } = this;
    const at = MARKS * bucket;
    if (Number.isNaN(times[at + OFFERED] ?? 0)) times[at + OFFERED] = before;
    const summed = times[at + SUMMED] ?? Number.NaN;
    times[at + SENT] = after > summed ? summed : after;
  }

  gathered(bucket: number, isOwn: boolean, now: number): void {
    const at = MARKS * bucket;
    if (isOwn) this.times[at + SUMMED] = now;
    this.times[at + GATHERED] = now;
  }
}
