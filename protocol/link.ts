// A link: an ordered two-way channel of binary messages between two processes. All transports look like this to the
// collective; one contract suite (test/worker/collective/link-contract.ts) holds them to it.

export interface Link {
  /** Sends one message made of `chunks`, in order. The bytes are taken before the call returns or must not change until sent. */
  send(chunks: readonly Uint8Array[]): void;
  /** Messages in the order sent; the bytes are valid only during the call. Those that came before are delivered first. */
  onMessage(handler: (bytes: Uint8Array) => void): void;
  /** Resolves once, when the link is closed by either side or broken, with the reason. */
  readonly closed: Promise<{ readonly because: string }>;
  /** Resolves when all that was sent has left this process. */
  drained(): Promise<void>;
  close(because: string): void;
  readonly bytesOut: number;
  readonly bytesIn: number;
}
