// The first test samples as a page shows them and runs the model on them: a header as JSON and the values as bytes. Images are
// nearly always 8-bit pixels, as they are or over 255; where one byte a value says exactly the same float32, one byte is sent, else
// the floats. So what a browser computes with is what the workers evaluate on, to the bit.
//
// Cost: read once, when the first page asks; SAMPLES_BYTES_MAX of memory at most.

import type { DataSet } from '../../jobs/contract.ts';

export const SAMPLES_MAX = 500;
/** Of the values as float32. */
export const SAMPLES_BYTES_MAX = 8 * 1024 * 1024;

/** How bytes become the float32 values of a sample: as they are, over 255, or each four of them little-endian. */
export type SampleEncoding = 'byte' | 'byte/255' | 'float32';

export interface Samples {
  /** [height, width, channels] */
  readonly shape: readonly number[];
  readonly classes: readonly string[];
  /** True classes, as indices into `classes`; sample i is test sample i. */
  readonly labels: readonly number[];
  readonly encoding: SampleEncoding;
  /** Least and greatest value. */
  readonly range: readonly [number, number];
  /** One sample after the other. */
  readonly values: Uint8Array;
}

export interface NoSamples {
  readonly because: string;
}

/** Whether every value is a byte, divided by `by` in float32; then those bytes. */
function asBytes(values: Float32Array, by: number): Uint8Array | null {
  const bytes = new Uint8Array(values.length);
  for (const [i, value] of values.entries()) {
    const byte = Math.round(value * by);
    if (byte < 0 || byte > 255 || Math.fround(byte / by) !== value) return null;
    bytes[i] = byte;
  }
  return bytes;
}

/** The first of the `testSamples` test samples that are used; why there are none, where they are no images. */
export function samplesOf(
  { inputShape, classes, test }: Pick<DataSet, 'inputShape' | 'classes' | 'test'>,
  testSamples: number,
): Samples | NoSamples {
  const [height = 0, width = 0, channels = 0] = inputShape;
  const shape = `[${inputShape.join(', ')}]`;
  if (inputShape.length !== 3 || (channels !== 1 && channels !== 3))
    return {
      because: `A sample of this job has the shape ${shape}. Images, of [height, width, 1] or [height, width, 3], can be shown.`,
    };
  const length = height * width * channels;
  const count = Math.min(SAMPLES_MAX, testSamples, Math.floor(SAMPLES_BYTES_MAX / (4 * length)));
  if (testSamples === 0) return { because: 'This run has no test samples (--test-samples 0).' };
  if (count === 0) return { because: `A sample of the shape ${shape} is too large to be shown.` };
  const floats = new Float32Array(count * length);
  const labels = Array.from({ length: count }, (_, i) => test.read(i, floats.subarray(i * length, (i + 1) * length)));
  let [least, greatest] = [Infinity, -Infinity];
  for (const value of floats) {
    least = Math.min(least, value);
    greatest = Math.max(greatest, value);
  }
  const over255 = greatest <= 1 ? asBytes(floats, 255) : null;
  const bytes = over255 ?? asBytes(floats, 1);
  return {
    shape: [height, width, channels],
    classes,
    labels,
    encoding: over255 !== null ? 'byte/255' : bytes !== null ? 'byte' : 'float32',
    range: [least, greatest],
    values: bytes ?? new Uint8Array(floats.buffer),
  };
}
