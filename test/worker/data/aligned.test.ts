import koffi from 'koffi';
import { expect, test } from 'vitest';
import { alignedFloats } from '../../../worker/data/shell/aligned.ts';
import { boardMemory, RequestBoard, ROOMS } from '../../../worker/data/shell/request-board.ts';

test('floats for samples begin at a multiple of 64 bytes, however many, and are zeros', () => {
  for (const length of [1, 7, 1000, 50_000, 786_432, 12_582_912]) {
    const floats = alignedFloats(length);
    expect(floats.length).toBe(length);
    expect(koffi.address(floats) % 64n).toBe(0n);
    expect([floats[0], floats[length - 1]]).toEqual([0, 0]);
  }
});

test('so do the rooms that data threads fill, with all the floats that a microbatch needs', () => {
  for (const [samples, sampleFloats] of [
    [1, 2],
    [7, 3],
    [64, 3072],
  ] as const) {
    const board = new RequestBoard(boardMemory(2, samples, sampleFloats));
    const rooms = Array.from({ length: ROOMS }, (_, request) => board.roomOf(request));
    rooms.forEach(({ inputs, labels }, i) => {
      expect(koffi.address(inputs) % 64n).toBe(0n);
      expect(inputs.length).toBeGreaterThanOrEqual(samples * sampleFloats);
      expect(labels.length).toBe(samples);
      inputs.fill(i + 1);
    });
    // None lies in another.
    expect(rooms.map(({ inputs }) => [inputs[0], inputs.at(-1)])).toEqual(rooms.map((_, i) => [i + 1, i + 1]));
  }
});
