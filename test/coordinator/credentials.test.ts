// What workers are given, and that what they say of coordinators and generations must be shown.

import { describe, expect, it } from 'vitest';
import { createCredentials } from '../../coordinator/credentials.ts';
import type { CoordinatorMessage, WorkerMessage } from '../../protocol/messages.ts';
import { decodeCoordinatorMessage, encodeMessage } from '../../protocol/messages.ts';
import { CONFIG } from './config.ts';

const KEY = 'the key of the run, which is long enough';
const second = createCredentials(KEY, 'r', 2);

const welcome: CoordinatorMessage = { kind: 'welcome', protocol: 7, worker: 'w0', config: CONFIG, step: 0, term: 2 };
const generationTo = (rank: number, generation = 7): CoordinatorMessage => ({
  kind: 'generation',
  generation,
  graceful: true,
  rank,
  worldSize: 3,
  members: [0, 1, 2].map((r) => ({ worker: `w${r}`, rank: r, peerUrl: 'ws://x', host: 'h' })),
  because: 'all are here',
});

type Granted<K extends CoordinatorMessage['kind']> = Extract<CoordinatorMessage, { kind: K }>;
const granted = (to: number, generation = 7): Granted<'generation'> =>
  second.grant(generationTo(to, generation)) as Granted<'generation'>;

function back(change: object): WorkerMessage {
  const { secrets } = second.grant(welcome) as Granted<'welcome'>;
  const rejoin = {
    worker: 'w0',
    generation: 7,
    worldSize: 3,
    step: 5,
    term: 2,
    termProof: secrets?.term,
    memberProof: granted(0).proof,
    ...change,
  };
  return { kind: 'hello', protocol: 7, lockstep: '0', node: 'v', host: 'h', pid: 1, localRank: null, rejoin };
}

describe('what workers are given', () => {
  it('a key for each two ranks of a generation, the same to both and to nobody else', () => {
    const keys = [0, 1, 2].map((rank) => granted(rank).members.map(({ key }) => key));
    expect(keys[0]?.[0]).toBeUndefined();
    expect(keys[0]?.[1]).toBe(keys[1]?.[0]);
    expect(keys[0]?.[2]).toBe(keys[2]?.[0]);
    expect(keys[1]?.[2]).toBe(keys[2]?.[1]);
    expect(new Set([keys[0]?.[1], keys[0]?.[2], keys[1]?.[2]]).size).toBe(3);
    expect(granted(0, 8).members[1]?.key).not.toBe(keys[0]?.[1]);
  });

  it('is well-formed on the wire, and none of it is the key', () => {
    for (const message of [welcome, generationTo(1)]) {
      const bytes = encodeMessage(second.grant(message));
      expect(decodeCoordinatorMessage(bytes)).toEqual(second.grant(message));
      expect(Buffer.from(bytes).includes(KEY)).toBe(false);
    }
  });

  it('by the next coordinator of the run is the same; by another run or key it is not', () => {
    expect(createCredentials(KEY, 'r', 3).grant(generationTo(0))).toEqual(second.grant(generationTo(0)));
    for (const other of [createCredentials(KEY, 's', 2), createCredentials('other', 'r', 2)]) {
      const [a, b] = [other.grant(generationTo(0)), granted(0)] as Granted<'generation'>[];
      expect(a?.proof).not.toBe(b?.proof);
      expect(a?.members[1]?.key).not.toBe(b?.members[1]?.key);
    }
  });

  it('in a run without a token nothing is given or asked', () => {
    const none = createCredentials(null, 'r', 1);
    expect(none.grant(welcome)).toBe(welcome);
    expect(none.complaintOf(back({ term: 99 }))).toBeNull();
  });
});

describe('who comes back', () => {
  it('with what it was given is believed, by the next coordinator, too', () => {
    for (const term of [2, 3]) expect(createCredentials(KEY, 'r', term).complaintOf(back({}))).toBeNull();
    expect(second.complaintOf(back({ generation: 0, worldSize: 0, memberProof: undefined }))).toBeNull();
  });

  it.each([
    ['a coordinator of a later term', { term: 3 }, 'joined a coordinator of term 3'],
    ['none to show for its term', { termProof: undefined }, 'term 2'],
    ['a later generation', { generation: 8 }, 'generation 8, of 3'],
    ['a larger one', { worldSize: 4 }, 'generation 7, of 4'],
    ['none to show for its generation', { memberProof: undefined }, 'generation 7'],
  ])('with %s is not', (_, lie, why) => {
    expect(second.complaintOf(back(lie))).toContain(why);
  });
});
