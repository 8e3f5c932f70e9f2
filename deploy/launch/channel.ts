// What a launcher and the supervisor of a host say to each other over the standard streams of an ssh connection: a JSON object a line,
// each line of the supervisor's after a mark, because a login shell may write lines of its own. Parsed here, at the border.

import { z } from 'zod';

/** Raised when an older side would misread the other. */
export const CHANNEL_VERSION = 1;
/** Begins each line of a supervisor. */
const MARK = '\u0001lockstep ';
/** Characters of one line at most; what a worker writes beyond is cut. */
const MAX_LINE = 1_048_576;
export const MAX_WORKER_LINE = 16_384;

const prepareSchema = z.object({
  kind: z.literal('prepare'),
  version: z.int(),
  lockstep: z.string(),
  /** Known to this launch and its hosts alone. */
  launch: z.string().min(16),
  /** The engine that is wished for: a name, or auto. */
  engine: z.string(),
  adapter: z.string().nullable(),
  /** Workers; null: one a GPU, or else one a core. */
  slots: z.int().min(1).nullable(),
  /** Milliseconds without a beat after which the launcher is taken for gone. */
  graceMs: z.int().min(1),
});

const startSchema = z.object({
  kind: z.literal('start'),
  coordinatorUrl: z.string(),
  token: z.string(),
  /** The contents of the files, where the run has TLS. */
  tls: z.object({
    cert: z.string().nullable(),
    key: z.string().nullable(),
    ca: z.string().nullable(),
    'client-ca': z.string().nullable(),
  }),
  /** As `--job` takes it. */
  job: z.string(),
  /** Of each `lockstep worker`. */
  flags: z.array(z.string()),
  environment: z.record(z.string(), z.string()),
  engine: z.string(),
  restartLimit: z.int().min(0),
  pin: z.enum(['auto', 'on', 'off']),
});

const toHostSchema = z.discriminatedUnion('kind', [
  prepareSchema,
  startSchema,
  z.object({ kind: z.literal('beat') }),
  /** One of its workers does not hear any more. */
  z.object({ kind: z.literal('kill'), pid: z.int() }),
  /** The run is over, or goes on without this host: its workers get the time to end by themselves, or end at once. */
  z.object({ kind: z.literal('end'), isUrgent: z.boolean() }),
]);

const fromHostSchema = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('prepared'),
    host: z.string(),
    pid: z.int(),
    slots: z.int().min(1),
    engine: z.object({ engine: z.string(), said: z.array(z.string()) }),
  }),
  z.object({ kind: z.literal('refused'), code: z.string(), message: z.string(), remedy: z.string() }),
  z.object({ kind: z.literal('said'), message: z.string() }),
  z.object({ kind: z.literal('line'), localRank: z.int().min(0), text: z.string() }),
  /** It has fewer workers than it had: one can't be kept alive. */
  z.object({ kind: z.literal('fewer'), slots: z.int().min(0) }),
  /** All its workers have ended, each dismissed by the coordinator. */
  z.object({ kind: z.literal('through') }),
]);

export type Prepare = z.infer<typeof prepareSchema>;
export type Start = z.infer<typeof startSchema>;
export type ToHost = z.infer<typeof toHostSchema>;
export type FromHost = z.infer<typeof fromHostSchema>;

export function toHostLine(message: ToHost): string {
  return `${JSON.stringify(message)}\n`;
}

export function fromHostLine(message: FromHost): string {
  return `${MARK}${JSON.stringify(message)}\n`;
}

function parsed<T>(schema: z.ZodType<T>, text: string): T | null {
  try {
    return schema.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}

/** Null: it is none. */
export function readToHost(line: string): ToHost | null {
  return parsed(toHostSchema, line);
}

/** Null: the supervisor did not write it; somebody else on the host did. */
export function readFromHost(line: string): FromHost | null {
  return line.startsWith(MARK) ? parsed(fromHostSchema, line.slice(MARK.length)) : null;
}

/** Cuts a stream into lines, whatever the pieces that it comes in. A line that never ends is cut. */
export class Lines {
  private rest = '';
  private readonly decoder = new TextDecoder();

  take(chunk: Uint8Array): string[] {
    const lines = (this.rest + this.decoder.decode(chunk, { stream: true })).split('\n');
    this.rest = (lines.pop() ?? '').slice(0, MAX_LINE);
    return lines.map((line) => line.replace(/\r$/, ''));
  }

  /** What came after the last line's end. */
  end(): string[] {
    const rest = this.rest + this.decoder.decode();
    this.rest = '';
    return rest === '' ? [] : [rest];
  }
}
