import { expect, test } from 'vitest';
import { flipAndRotate, randomFlipAndRotation } from '../../jobs/augment.ts';
import { RandomUse, randomStream } from '../../protocol/random.ts';
import { noise, readOracle, Stream } from '../oracles/formula.ts';

// Keras computes coordinates in float32, we in float64: at 32 pixels that is up to 2e-6 of a pixel, times a slope of at most
// 1 per pixel, in two directions.
const TOLERANCE = 1e-5;

for (const { shape, flip, degrees, float32LittleEndian } of readOracle('rotation').cases) {
  test(`an image of ${shape.join(' x ')}${flip ? ', flipped,' : ''} turned by ${degrees} degrees is Keras's`, () => {
    const length = shape.reduce((product, dimension) => product * dimension, 1);
    const image = Float32Array.from(noise(Stream.image, length));
    const bytes = Buffer.from(float32LittleEndian, 'base64');
    const expected = Float32Array.from({ length }, (_, i) => bytes.readFloatLE(4 * i));
    const turned = new Float32Array(length).fill(Number.NaN);
    flipAndRotate(image, turned, shape, flip, (degrees * Math.PI) / 180);
    const worst = Math.max(...turned.map((value, i) => Math.abs(value - (expected[i] ?? Number.NaN))));
    expect(worst).toBeLessThan(TOLERANCE);
  });
}

test('a flip without rotation moves pixels and changes none', () => {
  const turned = new Float32Array(6);
  flipAndRotate(Float32Array.of(1, 10, 2, 20, 3, 30), turned, [1, 3, 2], true, 0);
  expect([...turned]).toEqual([3, 30, 2, 20, 1, 10]);
});

test('a sample is changed by its key alone, and about half of the samples are flipped', () => {
  const { apply } = randomFlipAndRotation({ flip: 'horizontal', degrees: 0 });
  const outcome = (sample: number): string => {
    const to = new Float32Array(2);
    apply(Float32Array.of(1, 2), to, [1, 2, 1], randomStream(7, RandomUse.augment, 3, sample));
    return to.join();
  };
  const forward = Array.from({ length: 1000 }, (_, i) => outcome(i));
  const backward = Array.from({ length: 1000 }, (_, i) => outcome(999 - i)).toReversed();
  expect(forward).toEqual(backward);
  const flipped = forward.filter((pixels) => pixels === '2,1').length;
  expect(forward.filter((pixels) => pixels === '1,2').length).toBe(1000 - flipped);
  // Five standard deviations of 1000 fair coins.
  expect(Math.abs(flipped - 500)).toBeLessThan(80);
});

test('angles stay within the degrees that were asked for and reach both ends', () => {
  const { apply } = randomFlipAndRotation({ flip: 'none', degrees: 10 });
  const size = 101;
  const image = new Float32Array(size * size);
  // A bright pixel at the middle of the right edge: where its light lands tells the angle.
  image[50 * size + 100] = 1;
  const angles = Array.from({ length: 300 }, (_, sample) => {
    const to = new Float32Array(image.length);
    apply(image, to, [size, size, 1], randomStream(1, RandomUse.augment, 0, sample));
    let sum = 0;
    let sumX = 0;
    let sumY = 0;
    to.forEach((light, i) => {
      sum += light;
      sumX += light * ((i % size) - 50);
      sumY += light * (Math.floor(i / size) - 50);
    });
    return (Math.atan2(sumY / sum, sumX / sum) * 180) / Math.PI;
  });
  expect(Math.max(...angles)).toBeLessThan(10.1);
  expect(Math.min(...angles)).toBeGreaterThan(-10.1);
  expect(Math.max(...angles)).toBeGreaterThan(9);
  expect(Math.min(...angles)).toBeLessThan(-9);
});
