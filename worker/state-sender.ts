// Sends states to the coordinator, to be kept, behind the training: a copy of one, part by part, while steps go on. A shell.
//
// Cost: memory for the copy, and the time to copy it, which the step waits for. The next one waits for the one before.

import { statePartsOf } from '../protocol/state-parts.ts';
import type { ControlLink } from './control-link.ts';
import { nextTurn } from './next-turn.ts';

/** A small state goes at once; of a large one so much, and then the training has its turn. */
const AT_ONCE_BYTES = 8 * 1024 * 1024;

export class StateSender {
  private readonly control: Pick<ControlLink, 'send' | 'drained'>;
  private sending: Promise<void> = Promise.resolve();
  private isOver = false;

  constructor(control: Pick<ControlLink, 'send' | 'drained'>) {
    this.control = control;
  }

  /** Resolves when `vectors` may change. */
  async send(
    step: number,
    digest: string,
    vectors: readonly { readonly name: string; readonly data: Float32Array }[],
  ): Promise<void> {
    await this.sending;
    const copies = vectors.map(({ name, data }) => ({ name, data: data.slice() }));
    this.sending = this.sendParts(step, digest, copies);
  }

  /** Resolves when all is on its way. */
  async finish(): Promise<void> {
    await this.sending;
  }

  /** What has not left is not sent: in the next generation nobody could tell where it belongs. */
  stop(): void {
    this.isOver = true;
  }

  private async sendParts(...state: Parameters<typeof statePartsOf>): Promise<void> {
    let sinceTurn = 0;
    for (const part of statePartsOf(...state)) {
      if (sinceTurn >= AT_ONCE_BYTES) {
        sinceTurn = 0;
        await nextTurn();
      }
      if (this.isOver) return;
      this.control.send(part);
      sinceTurn += part.bytes.byteLength;
      await this.control.drained();
    }
  }
}
