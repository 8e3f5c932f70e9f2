import { expect, test } from 'vitest';
import { digestOf } from '../../../worker/engine/digest.ts';

test('a digest is the SHA-256 of the float32 little-endian bytes', () => {
  // python3: hashlib.sha256(struct.pack('<3f', 1, -2.5, 0)).hexdigest()
  const expected = '738e86d615200bd3391d7ae379779a8e4644bade56d93d0634aa07004fa697f3';
  expect(digestOf(Float32Array.of(1, -2.5, 0))).toBe(expected);
  expect(digestOf(Float32Array.of(9, 1, -2.5, 0, 9).subarray(1, 4))).toBe(expected);
});

test('a digest tells 0 from -0: it is about bits', () => {
  expect(digestOf(Float32Array.of(0))).not.toBe(digestOf(Float32Array.of(-0)));
});
