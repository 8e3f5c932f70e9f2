// What a worker hears of its coordinator, whatever carries it: messages in order, those that come before somebody listens kept; and the
// end of the link, once, with its reason.

import { LockstepError } from '../protocol/errors.ts';
import { decodeCoordinatorMessage, type CoordinatorMessage } from '../protocol/messages.ts';

export class ControlInbox {
  readonly closed: Promise<LockstepError>;
  private readonly from: string;
  private readonly queue: CoordinatorMessage[] = [];
  private handler: ((message: CoordinatorMessage) => void) | null = null;
  private waiting: { resolve: (m: CoordinatorMessage) => void; reject: (e: Error) => void } | null = null;
  private lost: LockstepError | null = null;
  private resolveClosed: (error: LockstepError) => void = () => {};

  /** @param from the coordinator's address, for errors */
  constructor(from: string) {
    this.from = from;
    this.closed = new Promise((resolve) => {
      this.resolveClosed = resolve;
    });
  }

  /** Takes a whole message as bytes. Throws what it is refused for: the link is lost then. */
  take(bytes: Uint8Array): void {
    if (this.lost !== null) return;
    let message: CoordinatorMessage;
    try {
      message = decodeCoordinatorMessage(bytes);
    } catch (error) {
      this.lose(
        `the coordinator at ${this.from} sent ${error instanceof Error ? error.message : String(error)}`,
        error,
      );
      throw error;
    }
    if (this.handler !== null) this.handler(message);
    else if (this.waiting !== null) {
      this.waiting.resolve(message);
      this.waiting = null;
    } else this.queue.push(message);
  }

  lose(because: string, cause?: unknown): void {
    this.loseBy(new LockstepError('E_COORDINATOR_LOST', because, { cause }));
  }

  loseBy(error: LockstepError): void {
    if (this.lost !== null) return;
    this.lost = error;
    this.waiting?.reject(error);
    this.waiting = null;
    this.resolveClosed(error);
  }

  next(): Promise<CoordinatorMessage> {
    const message = this.queue.shift();
    if (message !== undefined) return Promise.resolve(message);
    if (this.lost !== null) return Promise.reject(this.lost);
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
    });
  }

  listen(handler: (message: CoordinatorMessage) => void): void {
    this.handler = handler;
    for (const message of this.queue.splice(0)) handler(message);
  }
}
