// Who hangs, by how long no step has come and what the members say: no clock but the one that is told.

import { describe, expect, it } from 'vitest';
import { ANSWER_MS, Stall, type Look } from '../../../coordinator/core/stall.ts';

const FLOOR = 60_000;
/** Two microbatches each. */
const TWO = ['w0', 'w1'].map((worker) => ({ worker, generation: 3, share: 2 }));

/** One whose members have done a step of `seconds` at time 0. */
function stepping(seconds = 0.1): Stall {
  const stall = new Stall(FLOOR);
  stall.begin(-1000);
  stall.step(seconds, 0);
  return stall;
}
/** Asked at the limit; what follows from these answers. */
function after(
  stall: Stall,
  answers: Record<string, [step: number, computed: number, generation?: number]>,
  at = FLOOR,
): Look {
  expect(stall.look(TWO, false, at - 1)).toEqual({ kind: 'well' });
  expect(stall.look(TWO, false, at)).toEqual({ kind: 'ask' });
  for (const [worker, [step, computed, generation = 3]] of Object.entries(answers))
    stall.answered(worker, { generation, step, computed });
  expect(stall.look(TWO, false, at + ANSWER_MS - 1)).toEqual({ kind: 'well' });
  return stall.look(TWO, false, at + ANSWER_MS);
}

describe('a member that hangs', () => {
  it('is the one who has not done its part of the step, when the others have', () => {
    expect(after(stepping(), { w0: [1, 2], w1: [1, 0] })).toEqual({
      kind: 'hung',
      workers: ['w1'],
      because: 'no step for 70 s, where 60 s is the limit: the others wait for w1',
    });
  });

  it('is the one who does not answer', () => {
    expect(after(stepping(), { w0: [1, 2] })).toMatchObject({ kind: 'hung', workers: ['w1'] });
  });

  it('is the one who has not left an older generation, however much it had done there', () => {
    expect(after(stepping(), { w0: [1, 2], w1: [1, 2, 2] })).toMatchObject({ kind: 'hung', workers: ['w1'] });
  });

  it('is not one who is ahead: it has the step that the others wait for', () => {
    expect(after(stepping(), { w0: [1, 1], w1: [2, 0] })).toMatchObject({ kind: 'hung', workers: ['w0'] });
  });

  it('is not told where nobody has done its part, or all have', () => {
    expect(after(stepping(), {})).toMatchObject({ kind: 'unknown', allWait: false });
    expect(after(stepping(), { w0: [1, 1], w1: [1, 0] })).toMatchObject({ kind: 'unknown', allWait: false });
    expect(after(stepping(), { w0: [1, 2], w1: [1, 2] })).toMatchObject({ kind: 'unknown', allWait: true });
  });
});

describe('the limit', () => {
  it('follows the longest step: twenty of it', () => {
    expect(after(stepping(10), { w0: [1, 2] }, 200_000)).toMatchObject({ kind: 'hung' });
  });

  it('is ten times the floor before the first step of a generation, and while weights are evaluated', () => {
    const stall = new Stall(FLOOR);
    stall.begin(0);
    expect(stall.look(TWO, false, 10 * FLOOR - 1).kind).toBe('well');
    expect(stall.look(TWO, false, 10 * FLOOR).kind).toBe('ask');
    const evaluating = stepping();
    expect(evaluating.look(TWO, true, 10 * FLOOR - 1).kind).toBe('well');
    expect(evaluating.look(TWO, true, 10 * FLOOR).kind).toBe('ask');
  });

  it('begins anew with each step, also with one that comes while the members are asked', () => {
    const stall = stepping();
    expect(stall.look(TWO, false, FLOOR).kind).toBe('ask');
    stall.step(0.1, FLOOR + 1);
    expect(stall.look(TWO, false, FLOOR + ANSWER_MS).kind).toBe('well');
    expect(stall.look(TWO, false, 2 * FLOOR).kind).toBe('well');
    expect(stall.look(TWO, false, 2 * FLOOR + 1).kind).toBe('ask');
  });

  it('of 0 looks for nobody', () => {
    const stall = new Stall(0);
    stall.begin(0);
    expect(stall.look(TWO, false, 1e9)).toEqual({ kind: 'well' });
  });
});
