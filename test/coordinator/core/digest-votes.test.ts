import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DigestVotes, MAX_OPEN_VOTES, type Verdict } from '../../../coordinator/core/digest-votes.ts';

const A = 'a'.repeat(64);
const B = 'b'.repeat(64);
const C = 'c'.repeat(64);

/** Members w0, w1, ... say these digests of one step, in this order; returns the last verdict. */
function vote(step: number, digests: readonly string[], votes = new DigestVotes()): Verdict {
  const members = digests.map((_, i) => `w${i}`);
  let verdict: Verdict = { kind: 'open' };
  for (const [i, digest] of digests.entries()) {
    expect(verdict).toEqual({ kind: 'open' });
    verdict = votes.accept(`w${i}`, step, digest, members);
  }
  return verdict;
}

describe('the digests of all members', () => {
  it('that are equal are agreed on, and that is remembered for the record', () => {
    const votes = new DigestVotes();
    expect(votes.agreed).toBeNull();
    expect(vote(100, [A, A, A], votes)).toEqual({ kind: 'agreed', step: 100, digest: A });
    expect(votes.agreed).toEqual({ step: 100, digest: A });
  });

  it('are counted as compared once all members have said theirs, whatever they hold', () => {
    const votes = new DigestVotes();
    votes.accept('w0', 100, A, ['w0', 'w1']);
    expect(votes.compared).toBe(0);
    votes.accept('w1', 100, A, ['w0', 'w1']);
    vote(200, [A, B], votes);
    expect(votes.compared).toBe(2);
  });

  it('one against two: the majority names who deviates', () => {
    expect(vote(7, [A, B, A])).toEqual({
      kind: 'deviating',
      step: 7,
      workers: ['w1'],
      digest: A,
      because: `after step 7 w1 holds the weights ${B.slice(0, 16)}, 2 of 3 members ${A.slice(0, 16)}`,
    });
  });

  it('one against one: both are named, and that it can’t be told who is right', () => {
    expect(vote(7, [A, B])).toEqual({
      kind: 'deviating',
      step: 7,
      workers: ['w0', 'w1'],
      digest: null,
      because: `after step 7 w0 holds the weights ${A.slice(0, 16)}, w1 holds the weights ${B.slice(0, 16)}: no majority, so who is right can't be told`,
    });
  });

  it.each<[string, string[], string[], string | null]>([
    ['two against two', [A, A, B, B], ['w0', 'w1', 'w2', 'w3'], null],
    ['all different', [A, B, C], ['w0', 'w1', 'w2'], null],
    ['two, one and one: the most is not a majority', [A, A, B, C], ['w0', 'w1', 'w2', 'w3'], null],
    ['three, one and one', [A, B, A, C, A], ['w1', 'w3'], A],
  ])('%s', (_, digests, workers, digest) => {
    expect(vote(1, digests)).toMatchObject({ kind: 'deviating', workers, digest });
  });

  it('of a worker alone are agreed on at once', () => {
    expect(new DigestVotes().accept('w0', 1, A, ['w0'])).toEqual({ kind: 'agreed', step: 1, digest: A });
  });

  it('a deviation is not remembered as agreed', () => {
    const votes = new DigestVotes();
    vote(1, [A, A], votes);
    vote(2, [A, B], votes);
    expect(votes.agreed).toEqual({ step: 1, digest: A });
  });

  it('of different steps are kept apart, in whatever order they come', () => {
    const votes = new DigestVotes();
    const members = ['w0', 'w1'];
    expect(votes.accept('w0', 1, A, members).kind).toBe('open');
    expect(votes.accept('w0', 2, B, members).kind).toBe('open');
    expect(votes.accept('w1', 2, B, members)).toEqual({ kind: 'agreed', step: 2, digest: B });
    expect(votes.accept('w1', 1, A, members)).toEqual({ kind: 'agreed', step: 1, digest: A });
  });

  it('of who is no member any more do not count, and those of an old membership are dropped', () => {
    const votes = new DigestVotes();
    votes.accept('w9', 1, C, ['w9', 'w0', 'w1']);
    votes.accept('w0', 1, A, ['w0', 'w1']);
    expect(votes.accept('w1', 1, A, ['w0', 'w1']).kind).toBe('agreed');
    votes.accept('w0', 2, B, ['w0', 'w1']);
    votes.clear();
    expect(votes.accept('w1', 2, A, ['w0', 'w1'])).toEqual({ kind: 'open' });
    expect(votes.accept('w0', 2, A, ['w0', 'w1']).kind).toBe('agreed');
  });

  it('of a member that says nothing are not waited for without end', () => {
    const votes = new DigestVotes();
    for (let step = 1; step <= MAX_OPEN_VOTES + 1; step++) votes.accept('w0', step, A, ['w0', 'w1']);
    expect(votes.accept('w1', 1, B, ['w0', 'w1'])).toEqual({ kind: 'open' });
    expect(votes.accept('w1', 3, A, ['w0', 'w1']).kind).toBe('agreed');
  });

  it('name planted deviants, and only them, wherever they are, if they are fewer than half', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 3, max: 64 }).chain((size) =>
          fc.record({
            size: fc.constant(size),
            deviants: fc.uniqueArray(fc.nat(size - 1), { minLength: 1, maxLength: Math.ceil(size / 2) - 1 }),
          }),
        ),
        ({ size, deviants }) => {
          const digests = Array.from({ length: size }, (_, i) => (deviants.includes(i) ? (i % 2 === 0 ? B : C) : A));
          const named = deviants.toSorted((a, b) => a - b).map((i) => `w${i}`);
          expect(vote(5, digests)).toMatchObject({ kind: 'deviating', workers: named, digest: A });
        },
      ),
    );
  });
});
