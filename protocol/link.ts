// A link: an ordered two-way channel of frames (frame.ts) between two processes. All transports look like this to the
// collective; one contract suite (test/worker/collective/links/contract.ts) holds them to it.

import type { LockstepError } from './errors.ts';
import type { FrameHeader, FrameSink } from './frame.ts';

/** What carries a link's bytes: shared memory, a WebSocket on a unix socket or TCP, a NATS server. */
export const TRANSPORTS = ['shm', 'unix', 'tcp', 'nats'] as const;
export type Transport = (typeof TRANSPORTS)[number];

export interface LinkEnd {
  readonly because: string;
  /** What this side refused of the other: a malformed frame, or one that the sink threw at. Null for every other end. */
  readonly error: LockstepError | null;
}

/** What a process of the same machine must know to read another's vectors where they lie. */
export interface VectorsAddress {
  readonly pid: number;
  /** The open descriptor of the file in memory that they are in, and the file's length. */
  readonly fd: number;
  readonly bytes: number;
  /** Where in the file a word lies that shows that it is the right one, and the word, in hexadecimal. */
  readonly wordAt: number;
  readonly word: string;
}

export interface SharedVectors {
  readonly address: VectorsAddress;
  /** Where `bytes` lie in the file; null when they don't. */
  placeOf(bytes: Uint8Array): number | null;
  /** Who has not mapped it by now can't any more. */
  close(): void;
}

export interface Link {
  readonly transport: Transport;
  /**
   * Sends one frame; `payload` holds header.count numbers (none for an absent one). It returns at once, whether or not the other
   * side keeps up; the payload must stay as it is until `drained`. Sending on a closed link does nothing.
   */
  send(header: FrameHeader, payload: Uint8Array): void;
  /** Hands incoming frames to `sink`, in the order sent, from now on: until then they wait, at the sender's if they are many. */
  receive(sink: FrameSink): void;
  /** Resolves once, when the link is closed by either side or broken. Whole frames that came before have been delivered. */
  readonly closed: Promise<LinkEnd>;
  /** Resolves when all that was sent has left this process or been read by the other, or the link is closed. */
  drained(): Promise<void>;
  /** Says goodbye, after all that was sent; the link is closed when the other side has answered. */
  close(because: string): void;
  /** Ends it at once: the other side does not answer, or is not to be waited for. What was sent may be lost. */
  cut(): void;
  /**
   * Only where the link has no events of its own (shared memory): moves what can be moved, without waiting; true when
   * something did. Called by turns while a step is in flight; outside of it the other side wakes the process.
   */
  poll?(): boolean;
  /**
   * Only where the other side can read this one's memory (shared memory): lets it read payloads that lie in `vectors` instead of
   * sending them. Where it can't after all, they are sent.
   */
  share?(vectors: SharedVectors): void;
  /** Says whether polling has stopped, so that the other side must wake this process for what it sends. */
  sleep?(asleep: boolean): void;
  readonly bytesOut: number;
  readonly bytesIn: number;
}
