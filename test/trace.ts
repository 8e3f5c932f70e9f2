// Reads a timeline as a viewer does: JSON whose end may be missing, each event checked against the Trace Event Format, spans of a row within
// one another. Written from the format's description, not from what writes it.

import { z } from 'zod';

const where = { pid: z.int().min(1), tid: z.int().min(1) };
const args = z.record(z.string(), z.unknown());
const metadata = z.enum(['process_name', 'process_sort_index', 'thread_name', 'thread_sort_index']);
const name = z.string().min(1);

const eventSchema = z.union([
  z.strictObject({
    ph: z.literal('M'),
    name: metadata,
    pid: z.int().min(1),
    tid: z.int().optional(),
    args: z.union([z.strictObject({ name }), z.strictObject({ sort_index: z.int() })]),
  }),
  z.strictObject({
    ph: z.literal('M'),
    name: z.literal('lockstep_timeline'),
    pid: z.literal(1),
    args: z.strictObject({
      run: name,
      begunAtUs: z.number(),
      zeroUs: z.number(),
      boot: z.string().nullable(),
    }),
  }),
  z.strictObject({ ph: z.literal('X'), name, ...where, ts: z.number(), dur: z.number().min(0), args }),
  z.strictObject({ ph: z.literal('i'), name, ...where, ts: z.number(), s: z.enum(['p', 'g']), args }),
  z.strictObject({ ph: z.literal('C'), name, ...where, ts: z.number(), args: z.record(z.string(), z.number()) }),
]);
export type TraceEvent = z.infer<typeof eventSchema>;

/** A span, in microseconds, with those that lie within it. */
export interface TraceSpan {
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  readonly start: number;
  readonly end: number;
  readonly args: Readonly<Record<string, unknown>>;
  readonly parts: TraceSpan[];
}

/** Times are written to the nanosecond; the sum of two of them is not exact. */
const EPSILON = 1e-4;

/** @param text a whole file, or one whose writer was killed between two events */
export function eventsOf(text: string): TraceEvent[] {
  const whole = text.trimEnd().endsWith(']') ? text : `${text.replace(/,\s*$/, '')}]`;
  return z.array(eventSchema).parse(JSON.parse(whole));
}

/** What is shown for a process, or a row. */
export function namesOf(events: readonly TraceEvent[], kind: 'process_name' | 'thread_name'): Map<number, string> {
  return new Map(
    events.flatMap((event): [number, string][] => {
      if (event.ph !== 'M' || event.name !== kind || !('name' in event.args)) return [];
      const number = kind === 'process_name' ? event.pid : (event.tid ?? 0);
      return [[number, event.args.name]];
    }),
  );
}

/** The outermost spans by row. Throws where two of a row overlap without one being within the other. */
export function rowsOf(events: readonly TraceEvent[]): Map<number, TraceSpan[]> {
  const rows = new Map<number, TraceSpan[]>();
  const spans = events
    .flatMap((event): TraceSpan[] => {
      if (event.ph !== 'X') return [];
      const { ts, dur, name: called, pid, tid, args: its } = event;
      return [{ name: called, pid, tid, start: ts, end: ts + dur, args: its, parts: [] }];
    })
    .map((span, order) => ({ span, order }));
  // Of two that begin and end together the one that was written last is the outer one.
  spans.sort((a, b) => a.span.start - b.span.start || b.span.end - a.span.end || b.order - a.order);
  const open = new Map<number, TraceSpan[]>();
  for (const { span } of spans) {
    const stack = open.get(span.tid) ?? [];
    open.set(span.tid, stack);
    while ((stack.at(-1)?.end ?? Infinity) <= span.start + EPSILON) stack.pop();
    const outer = stack.at(-1);
    if (outer !== undefined && span.end > outer.end + EPSILON) {
      throw new Error(`row ${span.tid}: ${JSON.stringify(span)} reaches out of ${JSON.stringify(outer)}`);
    }
    if (outer === undefined) rows.set(span.tid, [...(rows.get(span.tid) ?? []), span]);
    else outer.parts.push(span);
    stack.push(span);
  }
  return rows;
}
