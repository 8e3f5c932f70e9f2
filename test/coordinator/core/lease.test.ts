import { describe, expect, it } from 'vitest';
import { LEASE_EVERY_MS, LeaseWatch, type SeenLease, type Standing } from '../../../coordinator/core/lease.ts';

const lease = (revision: number, term = 1, over: SeenLease['over'] = null): SeenLease => ({
  revision,
  holder: { term, host: 'red', pid: 7 },
  over,
});

/** Looks each half second from `fromMs` on until `untilMs`; `at(ms)` is what is there then. */
function looks(watch: LeaseWatch, fromMs: number, untilMs: number, at: (ms: number) => SeenLease | null): Standing {
  let last: Standing = { kind: 'nobody' };
  for (let ms = fromMs; ms <= untilMs; ms += LEASE_EVERY_MS) last = watch.look(at(ms), ms);
  return last;
}

describe('who stands by', () => {
  it('waits while nobody has begun, and while the lease is renewed', () => {
    const watch = new LeaseWatch();
    expect(looks(watch, 0, 60_000, () => null)).toEqual({ kind: 'nobody' });
    expect(looks(watch, 60_500, 120_000, (ms) => lease(ms))).toEqual({ kind: 'led', by: lease(0).holder });
  });

  it('takes over 5 s after the last renewal of a leader whose beats it knows, and not before', () => {
    const watch = new LeaseWatch();
    looks(watch, 0, 10_000, (ms) => lease(ms));
    expect(looks(watch, 10_500, 15_000, () => lease(10_000)).kind).toBe('led');
    expect(looks(watch, 15_500, 15_500, () => lease(10_000))).toMatchObject({
      kind: 'silent',
      by: { term: 1, host: 'red', pid: 7 },
      because: 'nothing was heard of it for 5.5 s, where 5 s is the limit',
    });
  });

  it('gives a leader of whom it knows nothing yet 30 s', () => {
    const watch = new LeaseWatch();
    expect(looks(watch, 0, 30_000, () => lease(3)).kind).toBe('led');
    expect(looks(watch, 30_500, 30_500, () => lease(3)).kind).toBe('silent');
  });

  it('counts no time in which it did not look itself: stopped for a minute, it calls nobody dead when it wakes', () => {
    const watch = new LeaseWatch();
    looks(watch, 0, 10_000, (ms) => lease(ms));
    expect(watch.look(lease(10_000), 70_000).kind).toBe('led');
    expect(watch.look(lease(10_001), 70_500).kind).toBe('led');
  });

  it('begins anew with another leader, and with one that has let go it is over', () => {
    const watch = new LeaseWatch();
    looks(watch, 0, 10_000, (ms) => lease(ms));
    expect(looks(watch, 10_500, 40_000, () => lease(20_000, 2))).toEqual({ kind: 'led', by: lease(0, 2).holder });
    expect(watch.look(lease(20_001, 2, 'done'), 40_500)).toEqual({ kind: 'over', outcome: 'done' });
  });
});
