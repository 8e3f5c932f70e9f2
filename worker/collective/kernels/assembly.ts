// The collective's kernels, in AssemblyScript: WebAssembly with 128-bit SIMD on shared memory, compiled to sums.wasm by
// `npm run kernels` (a test holds that file against this one). Pointers are byte offsets into memory; memory.ts lays it out.
//
// Every sum is one float32 addition an element, so the bits are those of a plain loop, on every processor.

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
