// Lines of a Chrome trace: the "Trace Event Format" in its form as an array, whose end may be missing, so that the file of a process that was
// killed opens as well (Perfetto, chrome://tracing). An event a line, each followed by a comma; the last one by the array's end.
//
// Times are rounded to nanoseconds before lengths are taken, so that what lies within something else does so in the file, too.

import { z } from 'zod';

export const TRACE_BEGIN = '[\n';
export const TRACE_BETWEEN = ',\n';
export const TRACE_END = '\n]\n';

/** What the first event says, for who goes on with the file. Viewers pass over a kind of metadata that they don't know. */
const headSchema = z.object({
  name: z.literal('lockstep_timeline'),
  args: z.object({
    run: z.string(),
    /** Unix time at which it was begun, in microseconds. */
    begunAtUs: z.number(),
    /** The clock of the machine then, and which: the same name, the same clock. */
    zeroUs: z.number(),
    boot: z.string().nullable(),
  }),
});
export type TraceHead = z.infer<typeof headSchema>['args'];

export function headLine(args: TraceHead): string {
  return JSON.stringify({ name: 'lockstep_timeline', ph: 'M', pid: 1, args });
}

/** Null: the line is no head. */
export function headOf(line: string): TraceHead | null {
  try {
    return headSchema.parse(JSON.parse(line)).args;
  } catch {
    return null;
  }
}

/** Where an event is shown. */
export interface Row {
  readonly pid: number;
  readonly tid: number;
}

export type Args = Readonly<Record<string, unknown>>;

/** Makes lines of times on one clock. */
export class TraceLines {
  private readonly zeroUs: number;

  /** @param zeroUs the time that is 0 in the trace, in microseconds */
  constructor(zeroUs: number) {
    this.zeroUs = zeroUs;
  }

  span(row: Row, name: string, startUs: number, endUs: number, args: Args): string {
    const start = this.nanoseconds(startUs);
    const length = this.nanoseconds(endUs) - start;
    return this.line('X', row, name, `"ts":${text(start)},"dur":${text(length)}`, args);
  }

  /** Something without a length, shown over the process, or over all of them. */
  instant(row: Row, name: string, atUs: number, args: Args, scope: 'process' | 'global'): string {
    return this.line('i', row, name, `"ts":${text(this.nanoseconds(atUs))},"s":"${scope.charAt(0)}"`, args);
  }

  /** A curve's value from now on. */
  counter(row: Row, name: string, atUs: number, args: Args): string {
    return this.line('C', row, name, `"ts":${text(this.nanoseconds(atUs))}`, args);
  }

  process(pid: number, name: string): string[] {
    return [
      JSON.stringify({ name: 'process_name', ph: 'M', pid, args: { name } }),
      JSON.stringify({ name: 'process_sort_index', ph: 'M', pid, args: { sort_index: pid } }),
    ];
  }

  thread({ pid, tid }: Row, name: string): string[] {
    return [
      JSON.stringify({ name: 'thread_name', ph: 'M', pid, tid, args: { name } }),
      JSON.stringify({ name: 'thread_sort_index', ph: 'M', pid, tid, args: { sort_index: tid } }),
    ];
  }

  private line(phase: string, { pid, tid }: Row, name: string, times: string, args: Args): string {
    return `{"name":${JSON.stringify(name)},"ph":"${phase}","pid":${pid},"tid":${tid},${times},"args":${JSON.stringify(args)}}`;
  }

  private nanoseconds(us: number): number {
    return Math.round(1000 * (us - this.zeroUs));
  }
}

/** As microseconds. */
function text(nanoseconds: number): string {
  return (nanoseconds / 1000).toFixed(3);
}
