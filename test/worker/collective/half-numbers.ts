// The oracle of numbers of 16 bits, by their definition in float64 arithmetic: no bit tricks, and no code shared with the kernels.

export type Half = 'bf16' | 'fp16';

interface Format {
  /** Bits of the fraction, and of the exponent. */
  readonly fraction: number;
  readonly exponent: number;
  /** The smallest normal number is 2 ** least. */
  readonly least: number;
  readonly largest: number;
}

const FORMATS: Readonly<Record<Half, Format>> = {
  bf16: { fraction: 7, exponent: 8, least: -126, largest: (2 - 2 ** -7) * 2 ** 127 },
  fp16: { fraction: 10, exponent: 5, least: -14, largest: 65_504 },
};

export const largestOf = (half: Half): number => FORMATS[half].largest;

/** The number of that format nearest to x, of two the one whose last bit is 0; beyond the largest, infinity. */
export function nearest(half: Half, x: number): number {
  if (Number.isNaN(x) || !Number.isFinite(x) || x === 0) return x;
  const { fraction, least, largest } = FORMATS[half];
  const size = Math.abs(x);
  let exponent = Math.floor(Math.log2(size));
  if (2 ** exponent > size) exponent--;
  if (2 ** (exponent + 1) <= size) exponent++;
  const step = 2 ** (Math.max(exponent, least) - fraction);
  const below = Math.floor(size / step);
  const rest = size / step - below;
  const steps = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
  const rounded = steps * step > largest ? Infinity : steps * step;
  // The sign of a zero, too.
  return x < 0 ? -rounded : rounded;
}

/** What 16 bits stand for. */
export function valueOf(half: Half, bits: number): number {
  const { fraction, exponent, least } = FORMATS[half];
  const sign = bits >= 0x8000 ? -1 : 1;
  const e = (bits & 0x7fff) >> fraction;
  const f = bits & (2 ** fraction - 1);
  if (e === 2 ** exponent - 1) return f === 0 ? sign * Infinity : Number.NaN;
  return e === 0 ? sign * f * 2 ** (least - fraction) : sign * (2 ** fraction + f) * 2 ** (e - 1 + least - fraction);
}

const tables = new Map<Half, Map<string, number>>();
const keyOf = (x: number): string => (Object.is(x, -0) ? '-0' : String(x));

/** The 16 bits of a number of that format, found by trying them all. */
export function bitsOfHalf(half: Half, x: number): number {
  let table = tables.get(half);
  if (table === undefined) {
    table = new Map();
    for (let bits = 0; bits < 0x1_0000; bits++) table.set(keyOf(valueOf(half, bits)), bits);
    table.set('NaN', half === 'bf16' ? 0x7fc0 : 0x7e00);
    tables.set(half, table);
  }
  const bits = table.get(keyOf(x));
  if (bits === undefined) throw new Error(`${half} has no ${x}`);
  return bits;
}
