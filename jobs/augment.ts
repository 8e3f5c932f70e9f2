// Augmentations for images. Flip and rotation in one pass over the output: each output pixel is looked up at its place in the
// input, between four pixels (bilinear), and what lies outside is the image reflected at its edges. Angle convention, centre
// ((width - 1) / 2, (height - 1) / 2) and reflection (`d c b a | a b c d | d c b a`) are those of Keras's RandomRotation.
//
// Sine and cosine are summed here: JavaScript leaves Math.sin's last bit to the engine, and all workers need the same bits.
//
// Cost: 23 microseconds for 32 x 32 x 3 on one core here, against some 700 for the image's gradient.

import type { Augmentation } from './contract.ts';

export interface FlipAndRotation {
  /** Mirrored left to right with probability 1/2. */
  readonly flip: 'horizontal' | 'none';
  /** Rotated by an angle drawn uniformly from [-degrees, degrees]; at most 180. */
  readonly degrees: number;
}

/** For samples of shape [height, width, channels]. */
export function randomFlipAndRotation({ flip, degrees }: FlipAndRotation): Augmentation {
  const parts = [...(flip === 'horizontal' ? ['flip left-right'] : []), `rotate within ${degrees} degrees`];
  return {
    name: parts.join(', '),
    apply(from, to, shape, random) {
      const flipped = flip === 'horizontal' && random.uniform() < 0.5;
      const angle = ((2 * random.uniform() - 1) * degrees * Math.PI) / 180;
      flipAndRotate(from, to, shape, flipped, angle);
    },
  };
}

/** Flips (when `flipped`), then rotates by `angle` radians about the centre; `from` and `to` are [height, width, channels]. */
export function flipAndRotate(
  from: Float32Array,
  to: Float32Array,
  shape: readonly number[],
  flipped: boolean,
  angle: number,
): void {
  const [height = 0, width = 0, channels = 0] = shape;
  const cos = sumOfSeries(angle, 0);
  const sin = sumOfSeries(angle, 1);
  const lastX = width - 1;
  const lastY = height - 1;
  const centreX = lastX / 2;
  const centreY = lastY / 2;
  const rowLength = width * channels;
  // In a flipped image, the column to the right lies one pixel to the left.
  const right = flipped ? -channels : channels;
  const firstColumn = flipped ? lastX * channels : 0;

  let target = 0;
  for (let y = 0; y < height; y++) {
    const startX = centreX - centreX * cos - (y - centreY) * sin;
    const startY = centreY - centreX * sin + (y - centreY) * cos;
    for (let x = 0; x < width; x++) {
      let inX = startX + x * cos;
      let inY = startY + x * sin;
      if (inX < 0 || inX > lastX) inX = reflected(inX, width);
      if (inY < 0 || inY > lastY) inY = reflected(inY, height);
      const column = inX | 0;
      const row = inY | 0;
      const fractionX = inX - column;
      const fractionY = inY - row;
      const w11 = fractionX * fractionY;
      const w01 = fractionX - w11;
      const w10 = fractionY - w11;
      const w00 = 1 - fractionX - w10;
      // Offsets of the four pixels (imul: a plain product could be -0, which costs a fifth of the speed); past the last column or row the weight is 0 and any pixel will do.
      const stepX = column < lastX ? right : 0;
      let p00 = (firstColumn + Math.imul(row, rowLength) + Math.imul(column, right)) | 0;
      let p01 = p00 + stepX;
      let p10 = row < lastY ? p00 + rowLength : p00;
      let p11 = p10 + stepX;
      if (channels === 3) {
        // The loop below, unrolled: a quarter of the time.
        to[target] =
          w00 * (from[p00] as number) +
          w01 * (from[p01] as number) +
          w10 * (from[p10] as number) +
          w11 * (from[p11] as number);
        to[target + 1] =
          w00 * (from[p00 + 1] as number) +
          w01 * (from[p01 + 1] as number) +
          w10 * (from[p10 + 1] as number) +
          w11 * (from[p11 + 1] as number);
        to[target + 2] =
          w00 * (from[p00 + 2] as number) +
          w01 * (from[p01 + 2] as number) +
          w10 * (from[p10 + 2] as number) +
          w11 * (from[p11 + 2] as number);
        target += 3;
        continue;
      }
      for (const end = target + channels; target < end; target++) {
        to[target] =
          w00 * (from[p00++] as number) +
          w01 * (from[p01++] as number) +
          w10 * (from[p10++] as number) +
          w11 * (from[p11++] as number);
      }
    }
  }
}

/** `coordinate` folded into [0, size - 1]; the mirrors stand half a pixel outside the first and the last pixel. */
function reflected(coordinate: number, size: number): number {
  const period = 2 * size;
  let folded = coordinate - period * Math.floor(coordinate / period);
  if (folded >= size) folded = period - 1 - folded;
  return Math.min(Math.max(folded, 0), size - 1);
}

/** The Taylor series of cosine (`first` 0) or sine (`first` 1), to float64's precision for |x| <= pi. */
function sumOfSeries(x: number, first: 0 | 1): number {
  let term = first === 0 ? 1 : x;
  let sum = term;
  for (let k = first + 2; k < 40; k += 2) {
    term *= -(x * x) / (k * (k - 1));
    sum += term;
  }
  return sum;
}
