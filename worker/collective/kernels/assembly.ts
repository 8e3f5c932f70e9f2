// The collective's kernels, in AssemblyScript: WebAssembly with 128-bit SIMD on shared memory, compiled to sums.wasm by
// `npm run kernels` (a test holds that file against this one). Pointers are byte offsets into memory; memory.ts lays it out.
//
// Every sum is one float32 addition an element, so the bits are those of a plain loop, on every processor.
//
// For numbers that travel in 16 bits there is each kernel twice, for bfloat16 and for IEEE half precision. They are rounded to
// nearest, ties to even; there is one NaN, so that no processor's own shows. What is left over after the last four or eight is done
// one by one, by the same formula in the first lane of a vector.

/** into[i] += from[i] over n floats. The two do not overlap. */
export function add(into: usize, from: usize, n: i32): void {
  const end = (<usize>n) << 2;
  let i: usize = 0;
  for (; i + 64 <= end; i += 64) {
    const a = f32x4.add(v128.load(into + i), v128.load(from + i));
    const b = f32x4.add(v128.load(into + i, 16), v128.load(from + i, 16));
    const c = f32x4.add(v128.load(into + i, 32), v128.load(from + i, 32));
    const d = f32x4.add(v128.load(into + i, 48), v128.load(from + i, 48));
    v128.store(into + i, a);
    v128.store(into + i, b, 16);
    v128.store(into + i, c, 32);
    v128.store(into + i, d, 48);
  }
  for (; i < end; i += 4) store<f32>(into + i, load<f32>(into + i) + load<f32>(from + i));
}

/** A float32's bits that stand for not a number, in memory and, cut or converted, on the wire. */
// @ts-ignore: decorator
@inline
const NAN_BITS: i32 = 0x7fc00000;
// @ts-ignore: decorator
@inline
const INFINITY_BITS: i32 = 0x7f800000;
/** Half precision's smallest normal and largest numbers, and 0.5, whose last place is half precision's smallest step, 2^-24. */
// @ts-ignore: decorator
@inline
const FP16_NORMAL_BITS: i32 = 0x38800000;
// @ts-ignore: decorator
@inline
const FP16_LARGEST_BITS: i32 = 0x477fe000;
// @ts-ignore: decorator
@inline
const ONE_HALF_BITS: i32 = 0x3f000000;

// @ts-ignore: decorator
@inline
function nearestBf16(x: v128): v128 {
  const odd = v128.and(i32x4.shr_u(x, 16), i32x4.splat(1));
  const rounded = v128.and(i32x4.add(x, i32x4.add(odd, i32x4.splat(0x7fff))), i32x4.splat(0xffff0000));
  return v128.bitselect(i32x4.splat(NAN_BITS), rounded, f32x4.ne(x, x));
}

// @ts-ignore: decorator
@inline
function nearestFp16(x: v128): v128 {
  const sign = v128.and(x, i32x4.splat(0x80000000));
  const size = v128.xor(x, sign);
  const odd = v128.and(i32x4.shr_u(size, 13), i32x4.splat(1));
  const normal = v128.and(i32x4.add(size, i32x4.add(odd, i32x4.splat(0xfff))), i32x4.splat(0xffffe000));
  const small = f32x4.sub(f32x4.add(size, f32x4.splat(0.5)), f32x4.splat(0.5));
  const finite = v128.bitselect(small, normal, i32x4.lt_s(size, i32x4.splat(FP16_NORMAL_BITS)));
  const tooLarge = i32x4.gt_s(finite, i32x4.splat(FP16_LARGEST_BITS));
  const rounded = v128.or(v128.bitselect(i32x4.splat(INFINITY_BITS), finite, tooLarge), sign);
  return v128.bitselect(i32x4.splat(NAN_BITS), rounded, f32x4.ne(x, x));
}

/** x within +-limit; infinity and NaN as they are. */
// @ts-ignore: decorator
@inline
function limited(x: v128, limits: v128): v128 {
  const size = v128.and(x, i32x4.splat(0x7fffffff));
  const within = f32x4.max(f32x4.min(x, limits), f32x4.neg(limits));
  return v128.bitselect(within, x, i32x4.lt_s(size, i32x4.splat(INFINITY_BITS)));
}

/** Four numbers of 16 bits, in the low half of each lane, from float32 that bfloat16 holds. */
// @ts-ignore: decorator
@inline
function bitsBf16(x: v128): v128 {
  return i32x4.shr_u(x, 16);
}

/** The same of half precision. */
// @ts-ignore: decorator
@inline
function bitsFp16(x: v128): v128 {
  const sign = v128.and(x, i32x4.splat(0x80000000));
  const size = v128.xor(x, sign);
  const normal = i32x4.sub(i32x4.shr_u(size, 13), i32x4.splat(112 << 10));
  const small = i32x4.sub(f32x4.add(size, f32x4.splat(0.5)), i32x4.splat(ONE_HALF_BITS));
  const finite = v128.bitselect(small, normal, i32x4.lt_s(size, i32x4.splat(FP16_NORMAL_BITS)));
  const special = v128.or(i32x4.splat(0x7c00), v128.and(f32x4.ne(x, x), i32x4.splat(0x200)));
  const bits = v128.bitselect(finite, special, i32x4.lt_s(size, i32x4.splat(INFINITY_BITS)));
  return v128.or(bits, i32x4.shr_u(sign, 16));
}

// @ts-ignore: decorator
@inline
function floatsOfBf16(bits: v128): v128 {
  return i32x4.shl(bits, 16);
}

// @ts-ignore: decorator
@inline
function floatsOfFp16(bits: v128): v128 {
  const size = v128.and(bits, i32x4.splat(0x7fff));
  const sign = i32x4.shl(v128.xor(bits, size), 16);
  const wide = i32x4.shl(size, 13);
  const normal = i32x4.add(wide, i32x4.splat(112 << 23));
  const small = f32x4.sub(v128.or(size, i32x4.splat(ONE_HALF_BITS)), f32x4.splat(0.5));
  const finite = v128.bitselect(small, normal, i32x4.lt_s(size, i32x4.splat(0x400)));
  const special = v128.or(wide, i32x4.splat(INFINITY_BITS));
  return v128.or(v128.bitselect(finite, special, i32x4.lt_s(size, i32x4.splat(0x7c00))), sign);
}

/** into[i] += from[i] over n floats, each sum rounded to bfloat16. The two do not overlap. */
export function addBf16(into: usize, from: usize, n: i32): void {
  const end = (<usize>n) << 2;
  let i: usize = 0;
  for (; i + 32 <= end; i += 32) {
    const a = f32x4.add(v128.load(into + i), v128.load(from + i));
    const b = f32x4.add(v128.load(into + i, 16), v128.load(from + i, 16));
    v128.store(into + i, nearestBf16(a));
    v128.store(into + i, nearestBf16(b), 16);
  }
  for (; i < end; i += 4) {
    const sum = f32x4.splat(load<f32>(into + i) + load<f32>(from + i));
    store<f32>(into + i, f32x4.extract_lane(nearestBf16(sum), 0));
  }
}

/** Error feedback: value + residual is left as the bfloat16 number nearest to it, and the rest as the residual. */
export function quantizeBf16(values: usize, residuals: usize, n: i32, limit: f32): void {
  const limits = f32x4.splat(limit);
  const end = (<usize>n) << 2;
  let i: usize = 0;
  for (; i + 16 <= end; i += 16) {
    const whole = f32x4.add(v128.load(values + i), v128.load(residuals + i));
    const near = nearestBf16(limited(whole, limits));
    v128.store(values + i, near);
    v128.store(residuals + i, f32x4.sub(whole, near));
  }
  for (; i < end; i += 4) {
    const whole = f32x4.splat(load<f32>(values + i) + load<f32>(residuals + i));
    const near = nearestBf16(limited(whole, limits));
    store<f32>(values + i, f32x4.extract_lane(near, 0));
    store<f32>(residuals + i, f32x4.extract_lane(f32x4.sub(whole, near), 0));
  }
}

/** n floats that bfloat16 holds, as 16 bits each; `into` may be `from`. */
export function packBf16(into: usize, from: usize, n: i32): void {
  let i: usize = 0;
  for (; i + 8 <= <usize>n; i += 8) {
    const low = bitsBf16(v128.load(from + (i << 2)));
    const high = bitsBf16(v128.load(from + (i << 2), 16));
    v128.store(into + (i << 1), i16x8.narrow_i32x4_u(low, high));
  }
  for (; i < <usize>n; i++) {
    const bits = bitsBf16(f32x4.splat(load<f32>(from + (i << 2))));
    store<u16>(into + (i << 1), <u16>i32x4.extract_lane(bits, 0));
  }
}

/** n numbers of 16 bits as floats. The two do not overlap. */
export function unpackBf16(into: usize, from: usize, n: i32): void {
  let i: usize = 0;
  for (; i + 8 <= <usize>n; i += 8) {
    const bits = v128.load(from + (i << 1));
    v128.store(into + (i << 2), floatsOfBf16(i32x4.extend_low_i16x8_u(bits)));
    v128.store(into + (i << 2), floatsOfBf16(i32x4.extend_high_i16x8_u(bits)), 16);
  }
  for (; i < <usize>n; i++) {
    const bits = i32x4.splat(<i32>load<u16>(from + (i << 1)));
    store<f32>(into + (i << 2), f32x4.extract_lane(floatsOfBf16(bits), 0));
  }
}

/** into[i] += from[i] over n floats, each sum rounded to half precision. The two do not overlap. */
export function addFp16(into: usize, from: usize, n: i32): void {
  const end = (<usize>n) << 2;
  let i: usize = 0;
  for (; i + 32 <= end; i += 32) {
    const a = f32x4.add(v128.load(into + i), v128.load(from + i));
    const b = f32x4.add(v128.load(into + i, 16), v128.load(from + i, 16));
    v128.store(into + i, nearestFp16(a));
    v128.store(into + i, nearestFp16(b), 16);
  }
  for (; i < end; i += 4) {
    const sum = f32x4.splat(load<f32>(into + i) + load<f32>(from + i));
    store<f32>(into + i, f32x4.extract_lane(nearestFp16(sum), 0));
  }
}

/** Error feedback: value + residual is left as the half precision number nearest to it, and the rest as the residual. */
export function quantizeFp16(values: usize, residuals: usize, n: i32, limit: f32): void {
  const limits = f32x4.splat(limit);
  const end = (<usize>n) << 2;
  let i: usize = 0;
  for (; i + 16 <= end; i += 16) {
    const whole = f32x4.add(v128.load(values + i), v128.load(residuals + i));
    const near = nearestFp16(limited(whole, limits));
    v128.store(values + i, near);
    v128.store(residuals + i, f32x4.sub(whole, near));
  }
  for (; i < end; i += 4) {
    const whole = f32x4.splat(load<f32>(values + i) + load<f32>(residuals + i));
    const near = nearestFp16(limited(whole, limits));
    store<f32>(values + i, f32x4.extract_lane(near, 0));
    store<f32>(residuals + i, f32x4.extract_lane(f32x4.sub(whole, near), 0));
  }
}

/** n floats that half precision holds, as 16 bits each; `into` may be `from`. */
export function packFp16(into: usize, from: usize, n: i32): void {
  let i: usize = 0;
  for (; i + 8 <= <usize>n; i += 8) {
    const low = bitsFp16(v128.load(from + (i << 2)));
    const high = bitsFp16(v128.load(from + (i << 2), 16));
    v128.store(into + (i << 1), i16x8.narrow_i32x4_u(low, high));
  }
  for (; i < <usize>n; i++) {
    const bits = bitsFp16(f32x4.splat(load<f32>(from + (i << 2))));
    store<u16>(into + (i << 1), <u16>i32x4.extract_lane(bits, 0));
  }
}

/** n numbers of 16 bits as floats. The two do not overlap. */
export function unpackFp16(into: usize, from: usize, n: i32): void {
  let i: usize = 0;
  for (; i + 8 <= <usize>n; i += 8) {
    const bits = v128.load(from + (i << 1));
    v128.store(into + (i << 2), floatsOfFp16(i32x4.extend_low_i16x8_u(bits)));
    v128.store(into + (i << 2), floatsOfFp16(i32x4.extend_high_i16x8_u(bits)), 16);
  }
  for (; i < <usize>n; i++) {
    const bits = i32x4.splat(<i32>load<u16>(from + (i << 1)));
    store<f32>(into + (i << 2), f32x4.extract_lane(floatsOfFp16(bits), 0));
  }
}
