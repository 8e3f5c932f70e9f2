// The next microbatches are read and augmented, a sample at a time, in the time in which a rank waits for its peers. In a synchronous
// step the faster rank waits for the slower one, now this one and now that: what it prepares meanwhile it need not do in a step in which
// it is the slower one itself. The same floats as BatchLoader's, because a sample's floats depend on its place alone.
//
// Cost: memory for the microbatches ahead (AHEAD). A peer that comes while a sample is being read is answered that much later, and the
// next step begins that much earlier.

import { microbatchRange } from '../../protocol/batch-plan.ts';
import type { Share } from '../../protocol/shares.ts';
import { nextPlace } from './ahead.ts';
import {
  isSamePlace,
  largestMicrobatch,
  loadedIn,
  roomFor,
  SampleReader,
  type LoadedMicrobatch,
  type Loader,
  type MakeFloats,
  type Place,
  type Room,
  type SampleSource,
} from './batch-loader.ts';

/**
 * How far ahead a rank may be. A rank that is ahead waits the longer in each step, and keeps what it has; so both must have enough to last
 * through the times in which a core is taken from one of them, and four steps made no difference.
 */
const AHEAD = { steps: 32, bytes: 64 * 1024 * 1024 } as const;

interface Prepared {
  readonly place: Place;
  readonly room: Room;
  readonly size: number;
  /** Samples that are in the room. */
  read: number;
}

export interface WhileWaitingOptions {
  /** This rank's microbatches. */
  readonly mine: Share;
  /** Steps of the run: nothing is prepared beyond them. */
  readonly steps: number;
  readonly make?: MakeFloats;
}

export class WhileWaitingLoader implements Loader {
  private readonly source: SampleSource;
  private readonly options: WhileWaitingOptions;
  private readonly reader: SampleReader;
  private readonly most: number;
  /** Rooms that nothing is in; the one used last is the first to be used again, since it is in the cache. */
  private readonly free: Room[] = [];
  private ahead: Prepared[] = [];
  /** What is in the engine's hands. */
  private last: Prepared | null = null;

  constructor(source: SampleSource, options: WhileWaitingOptions) {
    this.source = source;
    this.options = options;
    this.reader = new SampleReader(source);
    const bytes = largestMicrobatch(source.plan) * this.reader.sampleFloats * Float32Array.BYTES_PER_ELEMENT;
    this.most = Math.max(1, Math.min(AHEAD.steps * options.mine.length, Math.floor(AHEAD.bytes / bytes)));
  }

  load(place: Place): LoadedMicrobatch {
    if (this.last !== null) this.free.push(this.last.room);
    let present = this.ahead.shift();
    if (present !== undefined && !isSamePlace(present.place, place)) {
      this.free.push(present.room, ...this.ahead.map(({ room }) => room));
      this.ahead = [];
      present = undefined;
    }
    present ??= this.begin(place);
    while (present.read < present.size) this.readSample(present);
    this.last = present;
    return loadedIn(present.room, present.size, this.reader.sampleFloats);
  }

  prepare(): boolean {
    let present = this.ahead.at(-1);
    while (present === undefined || present.read === present.size) {
      const { mine, steps } = this.options;
      const after = present ?? this.last;
      const next = after === null ? null : nextPlace(this.source.plan, mine, steps, after.place);
      if (next === null || this.ahead.length === this.most) return false;
      present = this.begin(next);
      this.ahead.push(present);
    }
    this.readSample(present);
    return true;
  }

  async close(): Promise<void> {}

  private begin(place: Place): Prepared {
    const { start, end } = microbatchRange(this.source.plan, place.batch, place.microbatch);
    const room = this.free.pop() ?? roomFor(this.source.plan, this.reader.sampleFloats, this.options.make);
    return { place, room, size: end - start, read: 0 };
  }

  private readSample(prepared: Prepared): void {
    this.reader.read(prepared.place, prepared.room, prepared.read++, prepared.size);
  }
}
