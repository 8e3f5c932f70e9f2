import { describe, expect, it } from 'vitest';
import { Audits, CASE_STEPS, MAX_OPEN_PAIRS, type Finding, type Mismatch } from '../../../coordinator/core/audits.ts';

const RIGHT = 'a'.repeat(64);
const WRONG = 'b'.repeat(64);
const MEMBERS = ['w0', 'w1', 'w2', 'w3'];

const finding = (microbatch: number, as: Finding['as'], digest = RIGHT): Finding => ({ microbatch, digest, as });

/**
 * One step of as many workers as there are members, a microbatch each, all audited by the next worker; `wrong` computes other bits, as
 * owner and as auditor. Returns what was concluded.
 */
function step(audits: Audits, number: number, wrong: string | null, members: readonly string[] = MEMBERS): Mismatch[] {
  const size = members.length;
  return members.flatMap((worker, rank) => {
    const digest = worker === wrong ? WRONG : RIGHT;
    const audited = (rank + size - 1) % size;
    return audits.accept(
      worker,
      number,
      [finding(rank, 'owner', digest), finding(audited, 'auditor', digest)],
      members,
    );
  });
}

describe('audits', () => {
  it('of workers that compute the same bits find nothing, and are counted', () => {
    const audits = new Audits();
    for (let number = 1; number <= 100; number++) expect(step(audits, number, null)).toEqual([]);
    expect(audits.compared).toBe(400);
  });

  it('name one of three or more that always deviates, once in the step in which both its neighbours have seen it', () => {
    for (const wrong of MEMBERS) {
      const found = step(new Audits(), 5, wrong);
      expect(found).toHaveLength(1);
      expect(found[0]).toMatchObject({ step: 5, culprit: wrong });
      expect(found[0]?.because).toContain(`${wrong} is wrong: its results differ from those of two others`);
    }
  });

  it('wait for a third: a case is open until another audit names one of its two suspects', () => {
    const audits = new Audits();
    expect(audits.accept('w1', 1, [finding(1, 'owner', WRONG)], MEMBERS)).toEqual([]);
    expect(audits.accept('w2', 1, [finding(1, 'auditor')], MEMBERS)).toEqual([]);
    audits.accept('w0', 3, [finding(0, 'owner')], MEMBERS);
    expect(audits.accept('w1', 3, [finding(0, 'auditor', WRONG)], MEMBERS)).toMatchObject([
      { step: 1, microbatch: 1, owner: 'w1', auditor: 'w2', culprit: 'w1' },
    ]);
  });

  it('name both, and say that it can’t be told, where no third tells in time', () => {
    const audits = new Audits();
    audits.accept('w1', 1, [finding(1, 'owner', WRONG)], MEMBERS);
    audits.accept('w2', 1, [finding(1, 'auditor')], MEMBERS);
    for (let number = 2; number <= 1 + CASE_STEPS; number++) expect(step(audits, number, null)).toEqual([]);
    expect(step(audits, 2 + CASE_STEPS, null)).toEqual([
      {
        step: 1,
        microbatch: 1,
        owner: 'w1',
        auditor: 'w2',
        culprit: null,
        because: `microbatch 1 of step 1 has other bits when it is computed again (w1 ${WRONG.slice(0, 16)}, w2 ${RIGHT.slice(0, 16)}); which of them is wrong can't be told; the weights since that step can't be trusted`,
      },
    ]);
    expect(step(audits, 3 + CASE_STEPS, null)).toEqual([]);
  });

  it('of two workers can’t be decided, and are concluded at once', () => {
    const found = step(new Audits(), 1, 'w1', ['w0', 'w1']);
    expect(found.map(({ culprit }) => culprit)).toEqual([null, null]);
  });

  it('compare a microbatch with itself only: other steps and other microbatches are others', () => {
    const audits = new Audits();
    audits.accept('w0', 1, [finding(0, 'owner')], MEMBERS);
    audits.accept('w1', 2, [finding(0, 'auditor', WRONG)], MEMBERS);
    audits.accept('w1', 1, [finding(3, 'auditor', WRONG)], MEMBERS);
    expect(audits.compared).toBe(0);
  });

  it('do not pair halves of two memberships, and remember what is known of workers', () => {
    const audits = new Audits();
    audits.accept('w1', 1, [finding(1, 'owner', WRONG)], MEMBERS);
    audits.accept('w2', 1, [finding(1, 'auditor')], MEMBERS);
    audits.accept('w0', 2, [finding(0, 'owner')], MEMBERS);
    audits.clear();
    expect(audits.accept('w1', 2, [finding(0, 'auditor', WRONG)], MEMBERS)).toEqual([]);
    audits.accept('w3', 3, [finding(0, 'owner')], MEMBERS);
    expect(audits.accept('w1', 3, [finding(0, 'auditor', WRONG)], MEMBERS)).toMatchObject([{ culprit: 'w1' }]);
  });

  it('keep no more halves than their limit', () => {
    const audits = new Audits();
    for (let number = 0; number <= MAX_OPEN_PAIRS; number++)
      audits.accept('w0', number, [finding(0, 'owner')], MEMBERS);
    audits.accept('w1', 0, [finding(0, 'auditor')], MEMBERS);
    expect(audits.compared).toBe(0);
    audits.accept('w1', 2, [finding(0, 'auditor')], MEMBERS);
    expect(audits.compared).toBe(1);
  });
});
