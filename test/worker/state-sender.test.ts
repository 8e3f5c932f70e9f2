// States on their way behind the training, with a control link that holds what is sent.

import { describe, expect, it } from 'vitest';
import type { StatePart, WorkerMessage } from '../../protocol/messages.ts';
import { StateSender } from '../../worker/state-sender.ts';
import { takeStatePart } from '../../worker/state-transfer.ts';

const DIGEST = 'a'.repeat(64);
/** Three parts. */
const LARGE = 5 * 1024 * 1024;

function link(): {
  sent: StatePart[];
  drain: () => void;
  control: { send(m: WorkerMessage): void; drained(): Promise<void> };
} {
  const sent: StatePart[] = [];
  let waiting: (() => void)[] = [];
  return {
    sent,
    drain: () => {
      for (const go of waiting.splice(0)) go();
      waiting = [];
    },
    control: {
      send: (message) => {
        // As a socket does: it is encoded at once.
        if (message.kind === 'state') sent.push({ ...message, bytes: message.bytes.slice() });
      },
      drained: () =>
        new Promise((resolve) => {
          waiting.push(resolve);
        }),
    },
  };
}

const taken = (sent: readonly StatePart[], length: number): Float32Array => {
  const vector = new Float32Array(length);
  for (const part of sent) takeStatePart(part, new Map([['weights', vector]]));
  return vector;
};

const turn = (): Promise<void> =>
  new Promise((resolve) => {
    setImmediate(resolve);
  });

describe('a state that is sent behind the training', () => {
  it('is the one that it was, whatever steps do to it meanwhile, and does not hold them up', async () => {
    const { sent, drain, control } = link();
    const sender = new StateSender(control);
    const weights = new Float32Array(LARGE).fill(1);
    await sender.send(3, DIGEST, [{ name: 'weights', data: weights }]);
    expect(sent).toHaveLength(1);
    weights.fill(2);
    let turns = 0;
    while (sent.length < 3 && turns++ < 20) {
      drain();
      await turn();
    }
    drain();
    await sender.finish();
    expect(sent.map(({ step }) => step)).toEqual([3, 3, 3]);
    const found = taken(sent, LARGE);
    expect([found[0], found[LARGE - 1], found.every((x) => x === 1)]).toEqual([1, 1, true]);
  });

  it('waits for the one before it', async () => {
    const { sent, drain, control } = link();
    const sender = new StateSender(control);
    const data = Float32Array.of(1);
    await sender.send(1, DIGEST, [{ name: 'weights', data }]);
    const second = sender.send(2, DIGEST, [{ name: 'weights', data }]);
    await turn();
    expect(sent.map(({ step }) => step)).toEqual([1]);
    drain();
    await second;
    expect(sent.map(({ step }) => step)).toEqual([1, 2]);
  });

  it('ends where its generation does', async () => {
    const { sent, drain, control } = link();
    const sender = new StateSender(control);
    await sender.send(3, DIGEST, [{ name: 'weights', data: new Float32Array(LARGE) }]);
    sender.stop();
    drain();
    await sender.finish();
    expect(sent).toHaveLength(1);
  });

  it('goes whole before anything else is said where it is small', async () => {
    const said: string[] = [];
    const control = { send: (message: WorkerMessage) => void said.push(message.kind), drained: async () => {} };
    const sender = new StateSender(control);
    const names = ['weights', 'slot:m', 'slot:v'];
    await sender.send(
      3,
      DIGEST,
      names.map((name) => ({ name, data: new Float32Array(122_570) })),
    );
    await sender.finish();
    said.push('report');
    expect(said).toEqual(['state', 'state', 'state', 'report']);
  });
});
