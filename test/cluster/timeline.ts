// What a timeline of a real run must show, whatever was killed in it.

import { readFileSync } from 'node:fs';
import { expect } from 'vitest';
import { eventsOf, namesOf, rowsOf, type TraceEvent, type TraceSpan } from '../trace.ts';

/** Spans of one name, wherever they are, by row. */
function named(rows: ReadonlyMap<number, readonly TraceSpan[]>, name: string): TraceSpan[] {
  const within = (spans: readonly TraceSpan[]): TraceSpan[] =>
    spans.flatMap((span) => (span.name === name ? [span] : within(span.parts)));
  return [...rows.values()].flatMap(within);
}

const lengthOf = ({ start, end }: TraceSpan): number => end - start;
const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

interface Shown {
  readonly events: readonly TraceEvent[];
  /** Names of the processes. */
  readonly processes: readonly string[];
  /** Marks over all processes, in the order of the file. */
  readonly marks: readonly string[];
}

/**
 * Reads it and checks what holds for every run: it parses; spans of a row nest; so many different steps are there; the phases of steps sum
 * to their length; nobody has all of a bucket's sums before each of its owners has summed its slice, by the clocks of different workers.
 */
export function checkTimeline(file: string, steps: number): Shown {
  const events = eventsOf(readFileSync(file, 'utf8'));
  const rows = rowsOf(events);
  const done = named(rows, 'step');
  expect(new Set(done.map(({ args }) => args['step'])).size).toBeGreaterThanOrEqual(steps);
  const shares = done.map((step) => step.parts.reduce((sum, part) => sum + lengthOf(part), 0) / lengthOf(step));
  expect(Math.max(...shares)).toBeLessThan(1.0001);
  expect(median(shares)).toBeGreaterThan(0.95);
  const phases = new Set(done.flatMap((step) => step.parts.map((part) => part.name)));
  for (const phase of ['data', 'forward/backward', 'all-reduce', 'apply', 'digest']) expect(phases).toContain(phase);

  // A bucket of a step, by the generation's members who have told of it.
  const buckets = new Map<string, TraceSpan[]>();
  for (const span of named(rows, 'bucket')) {
    const key = `bucket ${String(span.args['bucket'])} of step ${String(span.args['step'])}`;
    buckets.set(key, [...(buckets.get(key) ?? []), span]);
  }
  let shared = 0;
  for (const [bucket, ways] of buckets) {
    for (const mine of ways) {
      expect(mine.parts.map(({ name }) => name).join()).toMatch(/^(send)?,?(sum)?,?(gather)?$/);
      for (const other of ways) {
        if (other === mine) continue;
        const summed = other.parts.find(({ name }) => name === 'gather')?.start ?? other.end;
        // Of one machine: the clocks are the same. A step that was done twice was done by others then.
        const areTogether = mine.start < other.end && other.start < mine.end;
        if (areTogether) expect([bucket, mine.end - summed > -2]).toEqual([bucket, true]);
        if (areTogether && other.pid !== mine.pid) shared++;
      }
    }
  }
  expect(shared).toBeGreaterThan(0);
  const marks = events.flatMap((event) => (event.ph === 'i' && event.s === 'g' ? [event.name] : []));
  return { events, processes: [...namesOf(events, 'process_name').values()], marks };
}
