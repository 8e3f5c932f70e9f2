// The hosts of a launch: who is started, tried again, left out, replaced.

import { describe, expect, it } from 'vitest';
import { parseHostList } from '../../../deploy/launch/hosts.ts';
import { Roster, type Effect, type HostEnd, type RosterOptions } from '../../../deploy/launch/roster.ts';

const LOST: HostEnd = { kind: 'failed', because: 'the connection ended', remedy: 'Look.', isFinal: false };
const UNKNOWN: HostEnd = { kind: 'failed', because: 'its name is not known', remedy: 'Correct it.', isFinal: true };

const short = (effects: readonly Effect[]): string[] =>
  effects.map((effect) =>
    effect.kind === 'tell' ? `${effect.host}: ${effect.message}` : `${effect.kind} ${effect.host.name}`,
  );

function rosterOf(options: Partial<RosterOptions> = {}): Roster {
  return new Roster({
    hostsMax: null,
    retryLimit: 3,
    backoff: { firstMs: 1000, mostMs: 30_000 },
    steadyMs: 10_000,
    ...options,
  });
}

describe('a host that fails', () => {
  it('is started again at once, then after waits that double, and is left out beyond the limit', () => {
    const roster = rosterOf();
    expect(short(roster.named(parseHostList('a:4,b:4')))).toEqual(['start a', 'start b']);
    roster.up('b', 4, 0);
    expect(short(roster.ended('a', LOST, 0))).toEqual(['a: the connection ended; it is started again', 'start a']);
    expect(short(roster.ended('a', LOST, 100))).toEqual(['a: the connection ended; it is started again in 1 s']);
    expect(short(roster.tick(1099))).toEqual([]);
    expect(short(roster.tick(1100))).toEqual(['start a']);
    expect(short(roster.ended('a', LOST, 1200))).toEqual(['a: the connection ended; it is started again in 2 s']);
    expect(short(roster.tick(3200))).toEqual(['start a']);
    expect(roster.slotsExpected).toBe(8);
    expect(short(roster.ended('a', LOST, 3300))).toEqual([
      'a: it is left out: the connection ended, for the 4th time in a row -> Look.',
    ]);
    expect(short(roster.tick(1e9))).toEqual([]);
    expect(roster.slotsExpected).toBe(4);
    expect(roster.isHopeless).toBe(false);
  });

  it('begins with a clean record when it was up for long', () => {
    const roster = rosterOf({ retryLimit: 1 });
    roster.named(parseHostList('a:1'));
    for (let i = 0; i < 5; i++) {
      roster.up('a', 1, i * 20_000);
      expect(short(roster.ended('a', LOST, i * 20_000 + 10_000))).toContain('start a');
    }
    roster.up('a', 1, 200_000);
    expect(short(roster.ended('a', LOST, 209_999))).toEqual([
      'a: it is left out: the connection ended, for the 2nd time in a row -> Look.',
    ]);
    expect(roster.isHopeless).toBe(true);
    expect(roster.leftOut.map(({ host, because }) => `${host.name} ${because}`)).toEqual(['a the connection ended']);
  });

  it('in a way that will not change is left out at once; but not when it was up before', () => {
    const roster = rosterOf();
    roster.named(parseHostList('typo:1,b:1'));
    expect(short(roster.ended('typo', UNKNOWN, 0))).toEqual([
      'typo: it is left out: its name is not known -> Correct it.',
    ]);
    roster.up('b', 1, 0);
    expect(short(roster.ended('b', UNKNOWN, 1))).toContain('start b');
  });

  it('is not among those that failed when its workers were dismissed', () => {
    const roster = rosterOf();
    roster.named(parseHostList('a:1'));
    roster.up('a', 1, 0);
    expect(short(roster.ended('a', { kind: 'well' }, 5))).toEqual([]);
    expect(short(roster.tick(1e9))).toEqual([]);
    expect(roster.leftOut).toEqual([]);
  });
});

describe('hosts that come and go', () => {
  it('start and stop; one that comes back while it stops starts when it has stopped, with a clean record', () => {
    const roster = rosterOf({ retryLimit: 1 });
    roster.named(parseHostList('a:1,b:1'));
    roster.ended('a', LOST, 0);
    roster.up('a', 1, 0);
    expect(short(roster.named(parseHostList('b:1')))).toEqual(['stop a']);
    expect(short(roster.named(parseHostList('b:1,a:1')))).toEqual([]);
    expect(short(roster.ended('a', LOST, 5))).toEqual(['start a']);
    expect(short(roster.ended('a', LOST, 6))).toEqual(['a: the connection ended; it is started again', 'start a']);
  });

  it('one that is gone for good stays away, whatever becomes of its connection', () => {
    const roster = rosterOf();
    roster.named(parseHostList('a:1,b:1'));
    roster.named(parseHostList('b:1'));
    expect(short(roster.ended('a', LOST, 5))).toEqual([]);
    expect(short(roster.tick(1e9))).toEqual([]);
  });

  it('one whose slots change is stopped and started with the new ones', () => {
    const roster = rosterOf();
    roster.named(parseHostList('a:4'));
    roster.up('a', 4, 0);
    expect(short(roster.named(parseHostList('a:2')))).toEqual(['stop a']);
    expect(roster.ended('a', { kind: 'well' }, 5)).toMatchObject([{ kind: 'start', host: { name: 'a', slots: 2 } }]);
  });
});

describe('--nnodes', () => {
  it('has the first so many at work, and gives the place of one that is left out to the next', () => {
    const roster = rosterOf({ hostsMax: 2, retryLimit: 0 });
    expect(short(roster.named(parseHostList('a:1,b:1,c:1,d:1')))).toEqual(['start a', 'start b']);
    roster.up('a', 1, 0);
    roster.up('b', 1, 0);
    expect(roster.slotsExpected).toBe(2);
    expect(short(roster.ended('a', LOST, 1))).toEqual([
      'a: it is left out: the connection ended, for the 1st time in a row -> Look.',
      'start c',
    ]);
    expect(roster.present).toBe(1);
    expect(roster.isSettled).toBe(false);
    roster.up('c', 1, 2);
    expect(roster.isSettled).toBe(true);
  });
});
