// What the journal says of commits: effects in, effects with records out.

import { describe, expect, it } from 'vitest';
import { COMMIT_WAIT_MS, CommitLog, type RecordedEffect } from '../../../coordinator/core/commit-log.ts';
import { NO_PROGRESS } from '../../../coordinator/core/progress.ts';
import type { Effect } from '../../../coordinator/core/effects.ts';

const A = 'a'.repeat(64);
const PHASES = { data: 0, compute: 0, allreduce: 0, apply: 0, wait: 0 };

const step = (n: number, generation = 1): Effect => ({
  kind: 'tell',
  event: {
    kind: 'step',
    step: n,
    generation,
    loss: 1,
    accuracy: 0,
    gradientNorm: 1,
    samples: 4,
    seconds: 1,
    phases: PHASES,
  },
});
const generation = (n: number): Effect => ({
  kind: 'journal',
  record: { kind: 'generation', generation: n, members: ['w0'], because: 'ready' },
});
const checkpoint = (n: number): Effect => ({
  kind: 'write-checkpoint',
  state: { step: n, digest: A, vectors: [] },
  progress: NO_PROGRESS,
  final: false,
});
const finished = (n: number): Effect => ({ kind: 'journal', record: { kind: 'finished', step: n, digest: A } });

/** In words: `3`, a step; `[1:1-3]`, the record of generation 1's steps 1 to 3, with what it knows of the digest. */
function words(effects: readonly RecordedEffect[]): string[] {
  return effects.map((effect) => {
    if (effect.kind === 'tell' && effect.event.kind === 'step') return String(effect.event.step);
    if (effect.kind !== 'journal') return effect.kind;
    if (effect.record.kind !== 'commits') return effect.record.kind;
    const { generation: g, from, to, digest } = effect.record;
    return `[${g}:${from}-${to}${digest === null ? '' : ` ${digest.slice(0, 2)}`}]`;
  });
}

describe('the record of commits', () => {
  it('is one for consecutive steps of a generation, written a second after the first of them', () => {
    const log = new CommitLog();
    expect(words(log.weave([step(1), step(2)], 5000))).toEqual(['1', '2']);
    expect(words(log.weave([step(3)], 5000 + COMMIT_WAIT_MS - 1))).toEqual(['3']);
    expect(words(log.weave([], 5000 + COMMIT_WAIT_MS))).toEqual(['[1:1-3]']);
    expect(words(log.weave([], 60_000))).toEqual([]);
    expect(words(log.weave([step(4)], 60_000))).toEqual(['4']);
    expect(words(log.weave([], 61_000))).toEqual(['[1:4-4]']);
  });

  it('comes before what rests on it: a generation, a checkpoint, the end', () => {
    const log = new CommitLog();
    expect(words(log.weave([generation(1), step(1), step(2), generation(2)], 0))).toEqual([
      'generation',
      '1',
      '2',
      '[1:1-2]',
      'generation',
    ]);
    expect(words(log.weave([step(3, 2), checkpoint(3)], 1))).toEqual(['3', '[2:3-3 aa]', 'write-checkpoint']);
    expect(words(log.weave([step(4, 2), { kind: 'end', outcome: 'failed' }], 2))).toEqual(['4', '[2:4-4]', 'end']);
  });

  it('says the digest of its last step, and never that of an earlier one', () => {
    const log = new CommitLog();
    expect(words(log.weave([step(1), step(2), checkpoint(1)], 0))).toEqual(['1', '2', '[1:1-2]', 'write-checkpoint']);
    expect(words(log.weave([step(3), finished(3)], 0))).toEqual(['3', '[1:3-3 aa]', 'finished']);
  });

  it('is of one generation: a step that a later one does is in its own, also while the earlier one still ends', () => {
    const log = new CommitLog();
    // Generation 2 is prepared while generation 1 still steps.
    expect(words(log.weave([step(1, 1), generation(2), step(2, 1), step(3, 2)], 0))).toEqual([
      '1',
      '[1:1-1]',
      'generation',
      '2',
      '[1:2-2]',
      '3',
    ]);
    expect(words(log.weave([], COMMIT_WAIT_MS))).toEqual(['[2:3-3]']);
  });

  it('has no gap: steps that do not follow each other are records of their own', () => {
    const log = new CommitLog();
    expect(words(log.weave([step(1), step(3), { kind: 'end', outcome: 'done' }], 0))).toEqual([
      '1',
      '[1:1-1]',
      '3',
      '[1:3-3]',
      'end',
    ]);
  });
});
