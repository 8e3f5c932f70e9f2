// What a page gets of the test samples is, decoded, the float32 values that the workers evaluate on.

import { describe, expect, it } from 'vitest';
import { SAMPLES_BYTES_MAX, SAMPLES_MAX, samplesOf, type Samples } from '../../../coordinator/core/samples.ts';
import type { Split } from '../../../jobs/contract.ts';

const splitOf = (size: number, valueOf: (sample: number, i: number) => number): Split => ({
  size,
  read: (index, into) => {
    for (let i = 0; i < into.length; i++) into[i] = valueOf(index, i);
    return index % 2;
  },
});

const of = (valueOf: (sample: number, i: number) => number, inputShape = [2, 2, 3], testSamples = 3): Samples => {
  const samples = samplesOf({ inputShape, classes: ['a', 'b'], test: splitOf(testSamples, valueOf) }, testSamples);
  if ('because' in samples) throw new Error(samples.because);
  return samples;
};

describe('samples for a page', () => {
  it('of pixels over 255 are a byte each, and the same float32 again', () => {
    const pixel = (sample: number, i: number): number => (sample * 97 + i * 31) % 256;
    const { encoding, values, labels, range, shape } = of((sample, i) => Math.fround(pixel(sample, i) / 255));
    expect([encoding, shape, labels]).toEqual(['byte/255', [2, 2, 3], [0, 1, 0]]);
    expect([...values]).toEqual(Array.from({ length: 36 }, (_, i) => pixel(Math.floor(i / 12), i % 12)));
    expect(range).toEqual([0, 1 * Math.fround(Math.max(...values) / 255)]);
  });

  it('of plain pixels are a byte each', () => {
    const { encoding, values } = of((sample, i) => sample * 100 + i);
    expect([encoding, ...values.slice(12, 15)]).toEqual(['byte', 100, 101, 102]);
  });

  it('of other values are the floats, little-endian', () => {
    const { encoding, values, range } = of((sample, i) => (sample === 2 && i === 11 ? -1.5 : 0.1));
    expect([encoding, values.length]).toEqual(['float32', 144]);
    expect(range).toEqual([-1.5, Math.fround(0.1)]);
    // 0.1 is 0x3dcccccd.
    expect(values.slice(0, 4)).toEqual(Uint8Array.of(0xcd, 0xcc, 0xcc, 0x3d));
  });

  it('are no more than fit, and no more than the run uses', () => {
    expect(of(() => 0, [1, 1, 1], SAMPLES_MAX + 7).labels).toHaveLength(SAMPLES_MAX);
    expect(of(() => 0, [512, 512, 1], 100).labels).toHaveLength(SAMPLES_BYTES_MAX / (512 * 512 * 4));
  });

  it.each([
    [[2], 3, 'the shape [2]'],
    [[4, 4, 2], 3, 'the shape [4, 4, 2]'],
    [[4096, 4096, 3], 3, 'too large'],
    [[2, 2, 1], 0, '--test-samples 0'],
  ])('there are none of the shape %j and %d test samples, and why is said', (inputShape, testSamples, because) => {
    const samples = samplesOf({ inputShape, classes: ['a'], test: splitOf(9, () => 0) }, testSamples);
    expect(samples).toEqual({ because: expect.stringContaining(because) });
  });
});
