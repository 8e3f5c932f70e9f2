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
  /** Resolves when all that was sent has left this process, or the link is closed. */
  drained(): Promise<void>;
  close(because: string): void;
  /**
   * Only where the link has no events of its own (shared memory): moves what can be moved, without waiting; true when
   * something did. Called by turns while a step is in flight; outside of it the other side wakes the process.
   */
  poll?(): boolean;
  /** Says whether polling has stopped, so that the other side must wake this process for what it sends. */
  sleep?(asleep: boolean): void;
  readonly bytesOut: number;
  readonly bytesIn: number;
}
