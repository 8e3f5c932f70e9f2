import { expect, it } from 'vitest';
import { MAX_TRACED_BUCKETS } from '../../../protocol/timeline.ts';
import { BucketMarks, MARKS } from '../../../worker/collective/bucket-marks.ts';

it('has of each bucket its first vector, the last one on its way, its own slice summed, all slices here', () => {
  const marks = new BucketMarks(2);
  for (const shift of [0, 100]) {
    marks.begin();
    marks.offered(1, shift + 1, shift + 2);
    marks.offered(0, shift + 3, shift + 4);
    marks.offered(1, shift + 5, shift + 6);
    marks.gathered(0, false, shift + 7);
    marks.gathered(1, true, shift + 8);
    marks.gathered(1, false, shift + 9);
    marks.gathered(0, true, shift + 10);
    expect([...marks.times]).toEqual([3, 4, 10, 10, 1, 6, 8, 9].map((time) => shift + time));
  }
});

it('times ascend although a sum is whole before its last part has been taken', () => {
  const marks = new BucketMarks(1);
  marks.begin();
  marks.offered(0, 1, 2);
  // Within the last offer: everybody else's parts were here.
  marks.gathered(0, true, 4);
  marks.offered(0, 3, 5);
  marks.gathered(0, false, 6);
  expect([...marks.times]).toEqual([1, 4, 4, 6]);
});

it('of more buckets than are shown the first are', () => {
  const marks = new BucketMarks(MAX_TRACED_BUCKETS + 5);
  marks.begin();
  marks.offered(MAX_TRACED_BUCKETS + 1, 1, 2);
  marks.gathered(MAX_TRACED_BUCKETS + 1, true, 3);
  expect(marks.times).toHaveLength(MARKS * MAX_TRACED_BUCKETS);
  expect(marks.times.every(Number.isNaN)).toBe(true);
});
