// The kernels, in AssemblyScript: WebAssembly with 128-bit SIMD, compiled to kernels.wasm by `npm run kernels` (a test holds that
// file against this one). Pointers are byte offsets into the module's memory; kernels.ts lays it out.
//
// Arithmetic is float32, an operation at a time, in the order that is written: the same bits on every processor. What is left
// over after the last four floats is done one by one by the same formula.

/** The smallest normal float32. */
const SMALLEST: f32 = 1.17549435e-38;

/**
 * Subnormal numbers become zero, as on TensorFlow's own threads. A moment whose gradient stays zero (a ReLU that never fires)
 * would fade to a subnormal and stay there, and arithmetic on those is a hundred times slower.
 */
// @ts-ignore: decorator
@inline
function flushed(value: v128): v128 {
  return v128.andnot(value, f32x4.lt(f32x4.abs(value), f32x4.splat(SMALLEST)));
}

/** Adam (Kingma and Ba 2015) over n floats; `size` is the step size with both bias corrections in it. Subnormal moments become zero. */
export function adam(
  weights: usize,
  gradient: usize,
  m: usize,
  v: usize,
  n: i32,
  size: f32,
  rest1: f32,
  rest2: f32,
  epsilon: f32,
): void {
  const sizes = f32x4.splat(size);
  const rests1 = f32x4.splat(rest1);
  const rests2 = f32x4.splat(rest2);
  const epsilons = f32x4.splat(epsilon);
  const end = (<usize>n) << 2;
  let i: usize = 0;
  for (; i + 16 <= end; i += 16) {
    const g = v128.load(gradient + i);
    const mOld = v128.load(m + i);
    const vOld = v128.load(v + i);
    const mNew = flushed(f32x4.add(mOld, f32x4.mul(f32x4.sub(g, mOld), rests1)));
    const vNew = flushed(f32x4.add(vOld, f32x4.mul(f32x4.sub(f32x4.mul(g, g), vOld), rests2)));
    const step = f32x4.div(f32x4.mul(mNew, sizes), f32x4.add(f32x4.sqrt(vNew), epsilons));
    v128.store(m + i, mNew);
    v128.store(v + i, vNew);
    v128.store(weights + i, f32x4.sub(v128.load(weights + i), step));
  }
  for (; i < end; i += 4) {
    const g = load<f32>(gradient + i);
    const mOld = load<f32>(m + i);
    const vOld = load<f32>(v + i);
    let mNew = mOld + (g - mOld) * rest1;
    let vNew = vOld + (g * g - vOld) * rest2;
    if (abs<f32>(mNew) < SMALLEST) mNew = 0;
    if (abs<f32>(vNew) < SMALLEST) vNew = 0;
    store<f32>(m + i, mNew);
    store<f32>(v + i, vNew);
    store<f32>(weights + i, load<f32>(weights + i) - (mNew * size) / (sqrt<f32>(vNew) + epsilon));
  }
}

/** Divides n floats by `divisor`, in place; returns the sum of the quotients' squares, in float64. */
export function divide(values: usize, n: i32, divisor: f32): f64 {
  const divisors = f32x4.splat(divisor);
  const end = (<usize>n) << 2;
  let squares = f64x2.splat(0);
  let i: usize = 0;
  for (; i + 16 <= end; i += 16) {
    const quotient = f32x4.div(v128.load(values + i), divisors);
    v128.store(values + i, quotient);
    const low = f64x2.promote_low_f32x4(quotient);
    const high = f64x2.promote_low_f32x4(i64x2.shuffle(quotient, quotient, 1, 1));
    squares = f64x2.add(squares, f64x2.add(f64x2.mul(low, low), f64x2.mul(high, high)));
  }
  let total = f64x2.extract_lane(squares, 0) + f64x2.extract_lane(squares, 1);
  for (; i < end; i += 4) {
    const quotient = load<f32>(values + i) / divisor;
    store<f32>(values + i, quotient);
    total += <f64>quotient * <f64>quotient;
  }
  return total;
}

/** Four bytes as float32 in [0, 1]. */
// @ts-ignore: decorator
@inline
function fourBytes(from: usize): v128 {
  const words = i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(from)));
  return f32x4.div(f32x4.convert_i32x4_u(words), f32x4.splat(255));
}

/** An image of three planes of `pixels` bytes each, a multiple of 4, to float32 [pixels, 3] in [0, 1]. */
export function planesToPixels(from: usize, to: usize, pixels: i32): void {
  const plane = <usize>pixels;
  for (let i: usize = 0; i < plane; i += 4) {
    const r = fourBytes(from + i);
    const g = fourBytes(from + plane + i);
    const b = fourBytes(from + 2 * plane + i);
    const target = to + 12 * i;
    v128.store(target, i32x4.shuffle(i32x4.shuffle(r, g, 0, 4, 1, 5), b, 0, 1, 4, 2));
    v128.store(target + 16, i32x4.shuffle(i32x4.shuffle(g, b, 1, 5, 2, 6), r, 0, 1, 6, 2));
    v128.store(target + 32, i32x4.shuffle(i32x4.shuffle(b, r, 2, 7, 3, 3), g, 0, 1, 7, 2));
  }
}

/** `coordinate` folded into [0, size - 1]; the mirrors stand half a pixel outside the first and the last pixel. */
function reflected(coordinate: v128, size: f32): v128 {
  const period = f32x4.splat(2 * size);
  const turns = f32x4.floor(f32x4.div(coordinate, period));
  const folded = f32x4.sub(coordinate, f32x4.mul(period, turns));
  const mirrored = f32x4.sub(f32x4.splat(2 * size - 1), folded);
  // Before the half of the period the first is the smaller of the two, after it the second.
  return f32x4.pmax(f32x4.pmin(f32x4.pmin(folded, mirrored), f32x4.splat(size - 1)), f32x4.splat(0));
}

/** The four pixels around a place, weighted by nearness, into `target`; 16 bytes are read and written even for 3 channels. */
// @ts-ignore: decorator
@inline
function blend(
  target: usize,
  p00: usize,
  toRight: usize,
  down: usize,
  channelBytes: usize,
  w00: v128,
  w01: v128,
  w10: v128,
  w11: v128,
): void {
  let c: usize = 0;
  do {
    const p = p00 + c;
    let sum = f32x4.mul(v128.load(p), w00);
    sum = f32x4.add(sum, f32x4.mul(v128.load(p + toRight), w01));
    sum = f32x4.add(sum, f32x4.mul(v128.load(p + down), w10));
    sum = f32x4.add(sum, f32x4.mul(v128.load(p + down + toRight), w11));
    v128.store(target + c, sum);
    c += 16;
  } while (c < channelBytes);
}

/**
 * Flips an image left to right (when `flipped`), then rotates it about its centre by the angle with this cosine and sine,
 * between pixels (bilinear), reflected at the edges. Images are [height, width, channels]. Four pixels at a time; what is
 * written past a pixel is written over by the next one, and past the image it is margin: 4 pixels and 16 bytes after each.
 */
export function flipAndRotate(
  from: usize,
  to: usize,
  height: i32,
  width: i32,
  channels: i32,
  flipped: bool,
  cos: f32,
  sin: f32,
): void {
  const lastX = <f32>(width - 1);
  const lastY = <f32>(height - 1);
  const centreX = lastX / 2;
  const centreY = lastY / 2;
  const pixelBytes = <usize>channels << 2;
  const rowBytes = <usize>width * pixelBytes;
  // In a flipped image, the column to the right lies one pixel to the left.
  const right: usize = flipped ? -pixelBytes : pixelBytes;
  const origin: usize = flipped ? from + rowBytes - pixelBytes : from;
  const cosines = f32x4.splat(cos);
  const sines = f32x4.splat(sin);
  const one = f32x4.splat(1);
  for (let y = 0; y < height; y++) {
    const startX = f32x4.splat(centreX - centreX * cos - (<f32>y - centreY) * sin);
    const startY = f32x4.splat(centreY - centreX * sin + (<f32>y - centreY) * cos);
    let target = to + <usize>y * rowBytes;
    for (let x = 0; x < width; x += 4) {
      const columns = f32x4.add(f32x4.splat(<f32>x), f32x4(0, 1, 2, 3));
      const inX = reflected(f32x4.add(startX, f32x4.mul(columns, cosines)), <f32>width);
      const inY = reflected(f32x4.add(startY, f32x4.mul(columns, sines)), <f32>height);
      const floorX = f32x4.floor(inX);
      const floorY = f32x4.floor(inY);
      const fractionX = f32x4.sub(inX, floorX);
      const fractionY = f32x4.sub(inY, floorY);
      const w11 = f32x4.mul(fractionX, fractionY);
      const w01 = f32x4.sub(fractionX, w11);
      const w10 = f32x4.sub(fractionY, w11);
      const w00 = f32x4.sub(f32x4.sub(one, fractionX), w10);
      const place = i32x4.add(
        i32x4.mul(i32x4.trunc_sat_f32x4_s(floorY), i32x4.splat(<i32>rowBytes)),
        i32x4.mul(i32x4.trunc_sat_f32x4_s(floorX), i32x4.splat(<i32>right)),
      );
      // Past the last column or row the weight is 0 and any pixel will do: the pixel itself.
      const toRight = v128.and(f32x4.lt(floorX, f32x4.splat(lastX)), i32x4.splat(<i32>right));
      const down = v128.and(f32x4.lt(floorY, f32x4.splat(lastY)), i32x4.splat(<i32>rowBytes));
      blend(
        target,
        origin + <usize>i32x4.extract_lane(place, 0),
        <usize>i32x4.extract_lane(toRight, 0),
        <usize>i32x4.extract_lane(down, 0),
        pixelBytes,
        i32x4.shuffle(w00, w00, 0, 0, 0, 0),
        i32x4.shuffle(w01, w01, 0, 0, 0, 0),
        i32x4.shuffle(w10, w10, 0, 0, 0, 0),
        i32x4.shuffle(w11, w11, 0, 0, 0, 0),
      );
      blend(
        target + pixelBytes,
        origin + <usize>i32x4.extract_lane(place, 1),
        <usize>i32x4.extract_lane(toRight, 1),
        <usize>i32x4.extract_lane(down, 1),
        pixelBytes,
        i32x4.shuffle(w00, w00, 1, 1, 1, 1),
        i32x4.shuffle(w01, w01, 1, 1, 1, 1),
        i32x4.shuffle(w10, w10, 1, 1, 1, 1),
        i32x4.shuffle(w11, w11, 1, 1, 1, 1),
      );
      blend(
        target + 2 * pixelBytes,
        origin + <usize>i32x4.extract_lane(place, 2),
        <usize>i32x4.extract_lane(toRight, 2),
        <usize>i32x4.extract_lane(down, 2),
        pixelBytes,
        i32x4.shuffle(w00, w00, 2, 2, 2, 2),
        i32x4.shuffle(w01, w01, 2, 2, 2, 2),
        i32x4.shuffle(w10, w10, 2, 2, 2, 2),
        i32x4.shuffle(w11, w11, 2, 2, 2, 2),
      );
      blend(
        target + 3 * pixelBytes,
        origin + <usize>i32x4.extract_lane(place, 3),
        <usize>i32x4.extract_lane(toRight, 3),
        <usize>i32x4.extract_lane(down, 3),
        pixelBytes,
        i32x4.shuffle(w00, w00, 3, 3, 3, 3),
        i32x4.shuffle(w01, w01, 3, 3, 3, 3),
        i32x4.shuffle(w10, w10, 3, 3, 3, 3),
        i32x4.shuffle(w11, w11, 3, 3, 3, 3),
      );
      target += 4 * pixelBytes;
    }
  }
}
