// The worker's end of the control link over a NATS server: messages.ts on a stream of bytes (nats/stream.ts) to the subject on which the
// run's coordinator listens. A shell. Its connection is its own: gradients have another.

import { randomBytes } from 'node:crypto';
import { connectNats } from '../nats/connect.ts';
import { callOn } from '../nats/meet.ts';
import { controlSubject, type NatsServer } from '../nats/server.ts';
import type { NatsStream, StreamTiming } from '../nats/stream.ts';
import { SMALL_WINDOW_BYTES } from '../protocol/byte-stream.ts';
import { MessageReader, messageHead } from '../protocol/message-stream.ts';
import { encodeMessage } from '../protocol/messages.ts';
import { ControlInbox } from './control-inbox.ts';
import type { ControlLink } from './control-link.ts';
import type { StartHeart } from './heart/heart.ts';

/** That the coordinator gets to take what was sent before the link is left. */
const CLOSE_MS = 5000;

/** Calls the coordinator of `run`; `startHeart` null: without a heart. Throws E_NATS_UNREACHABLE, E_NATS_REFUSED, E_UNAUTHORIZED or E_COORDINATOR_LOST. */
export async function connectControlOverNats(
  server: NatsServer,
  run: string,
  token: string | null,
  startHeart: StartHeart | null = null,
  timing?: StreamTiming,
): Promise<ControlLink> {
  const url = `${server.url}/${encodeURIComponent(run)}`;
  const nats = await connectNats(server, `lockstep ${run}: worker`, 'worker');
  const inbox = new ControlInbox(url);
  void nats.lost.then((error) => {
    if (error !== null) inbox.loseBy(error);
  });
  const key = randomBytes(16).toString('hex');
  let stream: NatsStream;
  try {
    stream = await callOn(nats, controlSubject(run), {
      token,
      about: startHeart === null ? {} : { heart: key },
      whom: `the coordinator at ${url}`,
      lostCode: 'E_COORDINATOR_LOST',
      windows: { windowIn: SMALL_WINDOW_BYTES },
      remedy: "Check the run's name, that its coordinator runs with --transport nats, and --token-file.",
      ...(timing === undefined ? {} : { timing }),
    });
  } catch (error) {
    await nats.close();
    throw error;
  }
  void stream.closed.then(({ because, error }) => {
    inbox.lose(
      error === null
        ? `the link to the coordinator at ${url} closed (${because})`
        : `the coordinator at ${url} sent ${because}`,
      error ?? undefined,
    );
  });
  const heart = startHeart?.({ kind: 'nats', server, run, token, key }, (because) => stream.lose(because));
  const reader = new MessageReader((message) => inbox.take(message));
  stream.receive((bytes) => reader.push(bytes));
  return {
    localAddress: null,
    send: (message) => {
      const bytes = encodeMessage(message);
      stream.send(messageHead(bytes), bytes);
    },
    drained: () => stream.drained(),
    next: () => inbox.next(),
    listen: (handler) => inbox.listen(handler),
    closed: inbox.closed,
    close: async () => {
      stream.close('the worker ends');
      const impatience = setTimeout(() => stream.lose('the coordinator takes nothing more'), CLOSE_MS);
      await stream.closed;
      clearTimeout(impatience);
      await heart?.close();
      await nats.close();
    },
  };
}
