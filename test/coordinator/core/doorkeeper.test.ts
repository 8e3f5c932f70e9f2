// Who may keep a connection: limits, who makes room for whom, and when time is over.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Doorkeeper, networkOf } from '../../../coordinator/core/doorkeeper.ts';
import { MessageRate, MESSAGES_BURST_MAX, MESSAGES_PER_SECOND_MAX } from '../../../coordinator/core/message-rate.ts';

const LIMITS = {
  connectionsMax: 6,
  connectionsPerNetworkMax: 4,
  unprovenMax: 3,
  unprovenPerNetworkMax: 2,
  handshakeMs: 1000,
};

describe('the doorkeeper', () => {
  it('lets the oldest of a network that has shown nothing make room for its next', () => {
    const keeper = new Doorkeeper(LIMITS);
    expect(keeper.arrive('a1', 'a', 0)).toEqual({ kind: 'in', evicted: null });
    expect(keeper.arrive('a2', 'a', 1)).toEqual({ kind: 'in', evicted: null });
    expect(keeper.arrive('a3', 'a', 2)).toEqual({ kind: 'in', evicted: 'a1' });
    expect(keeper.count).toBe(2);
  });

  it('a flood from one network closes none of another, and none that is proven', () => {
    const keeper = new Doorkeeper(LIMITS);
    keeper.arrive('b1', 'b', 0);
    keeper.arrive('a0', 'a', 0);
    keeper.prove('a0');
    const evicted = Array.from({ length: 1000 }, (_, i) => keeper.arrive(`a${i + 1}`, 'a', 1));
    expect(evicted.flatMap((one) => (one.kind === 'in' && one.evicted !== null ? [one.evicted] : []))).toEqual(
      Array.from({ length: 998 }, (_, i) => `a${i + 1}`),
    );
    expect(keeper.count).toBe(4);
  });

  it('a flood from many networks makes room for who comes among them', () => {
    const keeper = new Doorkeeper(LIMITS);
    for (let i = 0; i < 50; i++) keeper.arrive(`x${i}`, `10.0.0.${i}`, i);
    expect(keeper.arrive('worker', '10.1.0.1', 50)).toEqual({ kind: 'in', evicted: 'x47' });
    keeper.prove('worker');
    for (let i = 50; i < 100; i++) keeper.arrive(`x${i}`, `10.0.0.${i}`, i);
    keeper.leave('worker');
    expect(keeper.count).toBe(3);
  });

  it('refuses who comes when all places of its network, or all, are taken by those who are proven', () => {
    const keeper = new Doorkeeper(LIMITS);
    const prove = (id: string, network: string): void => {
      expect(keeper.arrive(id, network, 0).kind).toBe('in');
      keeper.prove(id);
    };
    for (const id of ['a1', 'a2', 'a3', 'a4']) prove(id, 'a');
    expect(keeper.arrive('a5', 'a', 0)).toEqual({ kind: 'refused', because: '4 connections from a' });
    prove('b1', 'b');
    prove('b2', 'b');
    expect(keeper.arrive('c1', 'c', 0)).toEqual({ kind: 'refused', because: '6 connections' });
    keeper.leave('a1');
    expect(keeper.arrive('c1', 'c', 0)).toEqual({ kind: 'in', evicted: null });
  });

  it('cuts who has shown nothing in time, to the millisecond, and nobody else', () => {
    const keeper = new Doorkeeper(LIMITS);
    keeper.arrive('early', 'a', 0);
    keeper.arrive('proven', 'a', 0);
    keeper.prove('proven');
    keeper.arrive('late', 'b', 1);
    expect(keeper.late(999)).toEqual([]);
    expect(keeper.late(1000)).toEqual(['early']);
    expect(keeper.late(1001)).toEqual(['late']);
    expect(keeper.count).toBe(1);
  });

  it('whatever comes and goes, no limit is passed and its books are right', () => {
    const move = fc.record({
      what: fc.constantFrom('arrive', 'prove', 'leave', 'late'),
      who: fc.nat(12),
      from: fc.nat(3),
    });
    fc.assert(
      fc.property(fc.array(move, { maxLength: 200 }), (moves) => {
        const keeper = new Doorkeeper(LIMITS);
        const present = new Map<string, string>();
        let now = 0;
        for (const { what, who, from } of moves) {
          const id = `c${who}`;
          now += 100;
          if (what === 'arrive' && !present.has(id)) {
            const arrival = keeper.arrive(id, `n${from}`, now);
            if (arrival.kind === 'in') {
              present.delete(arrival.evicted ?? '');
              present.set(id, `n${from}`);
            }
          } else if (what === 'prove') keeper.prove(id);
          else if (what === 'leave') {
            keeper.leave(id);
            present.delete(id);
          } else if (what === 'late') for (const gone of keeper.late(now)) present.delete(gone);
          expect(keeper.count).toBe(present.size);
          expect(present.size).toBeLessThanOrEqual(LIMITS.connectionsMax);
          for (const network of present.values()) {
            const ofIt = [...present.values()].filter((one) => one === network).length;
            expect(ofIt).toBeLessThanOrEqual(LIMITS.connectionsPerNetworkMax);
          }
        }
      }),
    );
  });
});

it.each([
  ['10.0.0.5', '10.0.0.5'],
  ['::ffff:10.0.0.5', '10.0.0.5'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:db8:1:2::1', '2001:db8:1:2::/64'],
  ['2001:0db8:0001:0002::1', '2001:db8:1:2::/64'],
  ['2001:db8::1', '2001:db8:0:0::/64'],
  ['fe80::1%eth0', 'fe80:0:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
  ['', ''],
])('%s is of the network %s', (address, network) => {
  expect(networkOf(address)).toBe(network);
});

it('a worker may send so many messages at once, and then so many a second', () => {
  const rate = new MessageRate(0);
  const taken = (count: number, nowMs: number): number =>
    Array.from({ length: count }, () => rate.take(nowMs)).filter(Boolean).length;
  expect(taken(MESSAGES_BURST_MAX + 5, 0)).toBe(MESSAGES_BURST_MAX);
  expect(taken(MESSAGES_PER_SECOND_MAX, 500)).toBe(MESSAGES_PER_SECOND_MAX / 2);
  expect(taken(1, 500)).toBe(0);
  // A long rest is worth no more than the first burst.
  expect(taken(2 * MESSAGES_BURST_MAX, 1e9)).toBe(MESSAGES_BURST_MAX);
});
