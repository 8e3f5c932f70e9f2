// When the vectors of a step in flight are kept, and for how long.

import { describe, expect, it } from 'vitest';
import { KeptMicrobatches } from '../../worker/kept-microbatches.ts';

/** 4,000 floats: by the estimate 8 us to copy. */
const FLOATS = 4000;

function keeping(options: { limitBytes?: number } = {}): KeptMicrobatches {
  const kept = new KeptMicrobatches({ floats: FLOATS, ...options });
  kept.took(0.05, 2);
  return kept;
}

const BUCKETS = [
  { offset: 1000, length: 3001 },
  { offset: 0, length: 1000 },
];

/** Microbatch m's vector is all m + 1. Whether it is kept. */
function keep(kept: KeptMicrobatches, step: number, m: number): boolean {
  const out = new Float32Array(FLOATS).fill(m + 1);
  const copy = kept.copy(step, m, out, BUCKETS);
  for (const bucket of BUCKETS.keys()) copy?.take(bucket);
  // It has left, and is added to where it lies.
  out.fill(Number.NaN);
  copy?.end();
  return copy !== null;
}

describe('microbatches of the step in flight', () => {
  it('are at hand in that step, and in no other', () => {
    const kept = keeping();
    keep(kept, 3, 5);
    keep(kept, 3, 6);
    expect(kept.of(3, 5)?.every((x) => x === 6)).toBe(true);
    expect([kept.of(3, 5)?.[0], kept.of(3, 6)?.[0], kept.of(3, 7), kept.of(4, 5), kept.of(2, 5)]).toEqual([
      6,
      7,
      null,
      null,
      null,
    ]);
    expect([kept.count(3), kept.count(4)]).toEqual([2, 0]);
    keep(kept, 4, 0);
    expect([kept.of(3, 5), kept.of(4, 5), kept.of(4, 0)?.[0]]).toEqual([null, null, 1]);
  });

  it('are at hand only when they are whole', () => {
    const kept = keeping();
    kept.copy(3, 0, new Float32Array(FLOATS), BUCKETS)?.take(0);
    expect([kept.of(3, 0), kept.count(3)]).toEqual([null, 0]);
  });

  it('are gone when the state is another', () => {
    const kept = keeping();
    keep(kept, 3, 5);
    kept.forget();
    expect([kept.of(3, 5), kept.count(3)]).toEqual([null, 0]);
  });

  it('use the memory of those of the step before', () => {
    const kept = keeping();
    keep(kept, 3, 5);
    const first = kept.of(3, 5);
    keep(kept, 4, 0);
    expect(kept.of(4, 0)).toBe(first);
  });

  it('are as many as there is room for', () => {
    const kept = keeping({ limitBytes: 2 * 4 * FLOATS + 3 });
    expect([keep(kept, 0, 0), keep(kept, 0, 1), keep(kept, 0, 2)]).toEqual([true, true, false]);
  });

  it.each([
    ['nothing is known yet', null, false],
    ['a step takes less than 0.1 s', [0.049, 2], false],
    ['copying takes more than a fiftieth of computing', [0.00039, 1000], false],
    ['it is worth while', [0.05, 2], true],
    ['one microbatch is the step', [0.1, 1], true],
  ] as const)('are kept where that costs little and saves something: %s', (_, took, isKept) => {
    const kept = new KeptMicrobatches({ floats: FLOATS });
    if (took !== null) kept.took(took[0], took[1]);
    expect(keep(kept, 0, 0)).toBe(isKept);
  });
});
