// A worker's part of the timeline, as it travels: spans, each what one of its threads did from when to when. There are thousands a second,
// so they are packed, five float64 each, and checked once, at the border. Nothing of it is read by anybody but the timeline's writer.
//
// Times are of the worker's machine; coordinator/core/aligned-clock.ts brings those of several machines together.

/** What a worker does, in the order of its number on the wire: a new one goes to the end. */
export const SPAN_KINDS = [
  /** A whole step; the spans until `digest` are its parts. */
  'step',
  /** Reading and augmenting a microbatch. */
  'data',
  /** Waiting until there is a place for a microbatch's vector. */
  'slot',
  /** Forward and backward pass of a microbatch. */
  'compute',
  /** Computing microbatches of others again. */
  'audit',
  /** From this rank's last vector to the sum. Its parts: until the last peer's contribution begins to come, and from then on. */
  'allreduce',
  'wait',
  'exchange',
  'apply',
  'digest',
  'evaluate',
  /** Sending the state to be kept. */
  'keep',
  /** A generation's beginning: links, the word to begin, the state. */
  'link',
  'begin',
  'state',
  /** One bucket's way in a step; its parts: sending this rank's, until its own slice is summed, until all slices are here. */
  'bucket',
  'send',
  'sum',
  'gather',
] as const;
export type SpanKind = (typeof SPAN_KINDS)[number];

const NUMBERS: ReadonlyMap<SpanKind, number> = new Map(SPAN_KINDS.map((kind, number) => [kind, number]));

/** Kind, start, end, step, detail. */
const SPAN_FLOATS = 5;
const SPAN_BYTES = SPAN_FLOATS * Float64Array.BYTES_PER_ELEMENT;
/** Buckets of a step that have their times taken; further ones are not in the timeline. */
export const MAX_TRACED_BUCKETS = 256;
/** Spans in one message (320 KiB), and what a worker keeps until the next; further ones are not recorded, and counted. */
export const MAX_SPANS = 8192;

export interface Span {
  readonly kind: SpanKind;
  /** Microseconds. */
  readonly startUs: number;
  readonly endUs: number;
  /** Steps done with the one that it is of; of what lies between two steps, those done before. */
  readonly step: number;
  /** A microbatch, a bucket, or, of a wait, the microseconds in which data of the next step was prepared. */
  readonly detail: number;
}

/** Takes spans, without making garbage, until they are sent. */
export class SpanBuffer {
  private readonly floats: Float64Array;
  private count = 0;
  private lost = 0;

  /** @param capacity in spans */
  constructor(capacity: number = MAX_SPANS) {
    this.floats = new Float64Array(SPAN_FLOATS * capacity);
  }

  add(kind: SpanKind, startUs: number, endUs: number, step: number, detail: number): void {
    const { floats } = this;
    const at = SPAN_FLOATS * this.count;
    if (at === floats.length) {
      this.lost++;
      return;
    }
    this.count++;
    floats[at] = NUMBERS.get(kind) ?? 0;
    floats[at + 1] = startUs;
    floats[at + 2] = Math.max(startUs, endUs);
    floats[at + 3] = step;
    floats[at + 4] = detail;
  }

  /** What was taken since the last call, packed, and how many found no room; null: nothing. */
  take(): { readonly spans: Uint8Array; readonly lost: number } | null {
    const { count, lost } = this;
    if (count === 0 && lost === 0) return null;
    this.count = 0;
    this.lost = 0;
    return { spans: new Uint8Array(this.floats.slice(0, SPAN_FLOATS * count).buffer), lost };
  }
}

function floatsOf(bytes: Uint8Array): Float64Array {
  return new Float64Array(new Uint8Array(bytes).buffer);
}

/** True for packed spans: whole ones, not too many, of known kinds, that end after they begin, with no number below zero. */
export function areSpans(bytes: unknown): bytes is Uint8Array {
  if (!(bytes instanceof Uint8Array)) return false;
  if (bytes.byteLength % SPAN_BYTES !== 0 || bytes.byteLength > MAX_SPANS * SPAN_BYTES) return false;
  const floats = floatsOf(bytes);
  return floats.every((value, at) => {
    if (!(value >= 0 && value <= Number.MAX_SAFE_INTEGER)) return false;
    switch (at % SPAN_FLOATS) {
      case 0:
        return value in SPAN_KINDS;
      case 2:
        return value >= (floats[at - 1] ?? 0);
      case 1:
        return true;
      default:
        return Number.isInteger(value);
    }
  });
}

/** Unpacks what `areSpans`. */
export function spansOf(bytes: Uint8Array): Span[] {
  const floats = floatsOf(bytes);
  return Array.from({ length: floats.length / SPAN_FLOATS }, (_, i) => {
    const [kind = 0, startUs = 0, endUs = 0, step = 0, detail = 0] = floats.subarray(SPAN_FLOATS * i);
    return { kind: SPAN_KINDS[kind] ?? 'step', startUs, endUs, step, detail };
  });
}
