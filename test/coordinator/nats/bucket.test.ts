// What a bucket's entries say, whatever order they are read in.

import { describe, expect, it } from 'vitest';
import { holderIn, keptIn, type KeptEntry } from '../../../coordinator/nats/bucket.ts';
import { withLater } from '../../../coordinator/nats/restore.ts';

const generation = (n: number): object => ({
  t: '2026-11-26T17:00:00.000Z',
  kind: 'generation',
  generation: n,
  members: ['w0'],
  because: 'b',
});
const entry = (revision: number, key: string, value: object): KeptEntry => ({
  key,
  revision,
  text: JSON.stringify(value),
});
const claim = (revision: number, term: number, pid = 7): KeptEntry =>
  entry(revision, `term.${term}`, { host: 'red', pid });

describe("a run's bucket", () => {
  it('has the run by the highest term, numbers compared as numbers', () => {
    expect(holderIn([])).toBeNull();
    expect(holderIn([claim(1, 9, 1), claim(3, 10, 2), claim(2, 2, 3)])).toEqual({ term: 10, host: 'red', pid: 2 });
  });

  it('is read by revision, without what an older coordinator wrote after a newer one had claimed', () => {
    const entries = [
      claim(1, 1),
      entry(2, 'journal.1.1', generation(1)),
      entry(3, 'journal.1.2', generation(2)),
      claim(4, 2),
      entry(5, 'journal.1.3', generation(66)),
      entry(6, 'journal.2.1', generation(3)),
      entry(7, 'journal.1.4', generation(77)),
      entry(8, 'lease', { term: 2, host: 'red', pid: 7, over: null }),
    ];
    for (const order of [entries, entries.toReversed()]) {
      const { journal, term } = keptIn(order);
      expect([journal, term]).toEqual([[generation(1), generation(2), generation(3)], 2]);
    }
  });

  it('passes over what it does not understand', () => {
    const torn = { key: 'journal.1.1', revision: 2, text: '{"kind":' };
    expect(keptIn([claim(1, 1), torn, entry(3, 'journal.1.2', generation(1))]).journal).toEqual([generation(1)]);
  });
});

describe('a journal from the object store', () => {
  const t = '2026-11-26T17:00:00.000Z';
  const digest = 'd'.repeat(64);
  const at = (n: number, step: number): object => ({ t, kind: 'begin', generation: n, step, digest });
  const checkpoint = (step: number): object => ({ t, kind: 'checkpoint', step, digest, directory: 'x' });
  const keptOf = (...records: readonly object[]): ReturnType<typeof keptIn> =>
    keptIn(records.map((record, i) => entry(i + 1, `journal.1.${i + 1}`, record)));
  const line = (record: object): string => JSON.stringify(record);

  it('gets the records that came after it, each once, but none that rests on steps which only workers can tell of', () => {
    const kept = keptOf(generation(1), at(1, 0), checkpoint(4), generation(2), at(2, 7), checkpoint(8), generation(3));
    const journal = `${line(generation(1))}\n${line(at(1, 0))}\n{"kind":"torn`;
    const lines = [generation(1), at(1, 0), checkpoint(4), generation(2), generation(3)].map(line);
    expect(withLater(journal, kept, 4)).toEqual(lines);
  });
});
