// Where workers join over a NATS server: a subject of the run. Who may come in is decided here as at the WebSocket's door (the run's
// token, no more than so many), what they then say passes control-connection.ts. How a death is seen: nats/stream.ts.

import type { Nats } from '../../nats/connect.ts';
import { listenOn } from '../../nats/meet.ts';
import { subjectOf } from '../../nats/server.ts';
import type { NatsStream, StreamTiming } from '../../nats/stream.ts';
import { SMALL_WINDOW_BYTES } from '../../protocol/byte-stream.ts';
import { MessageReader, messageHead } from '../../protocol/message-stream.ts';
import { MAX_CONNECTIONS, openBorder, type ControlEvents } from '../control-connection.ts';

/** That a worker gets to take what was sent before its stream is left. */
const CLOSE_GRACE_MS = 2000;

export interface NatsControlOptions extends ControlEvents {
  readonly run: string;
  readonly token: string | null;
  readonly connectionsMax?: number;
  readonly helloMs?: number;
  readonly timing?: StreamTiming;
}

/** Listens for workers; resolves when they may come. Closing it leaves the connection to the server open. */
export async function openNatsControl(nats: Nats, options: NatsControlOptions): Promise<{ close(): Promise<void> }> {
  const { timing, connectionsMax = MAX_CONNECTIONS } = options;
  const streams = new Set<NatsStream>();
  let arrivals = 0;

  const join = (stream: NatsStream): void => {
    let graceTimer: NodeJS.Timeout | undefined;
    const border = openBorder(
      `w${arrivals++}`,
      {
        send: (message) => stream.send(messageHead(message), message),
        close: (text) => {
          stream.close(text);
          graceTimer ??= setTimeout(() => stream.lose(text), CLOSE_GRACE_MS);
        },
      },
      options,
      options.helloMs,
    );
    streams.add(stream);
    void stream.closed.then(({ because, error }) => {
      clearTimeout(graceTimer);
      streams.delete(stream);
      if (error !== null) {
        options.onRefused(error.code);
        options.onWarning(`${border.connection.id} sent ${error.message}`);
      }
      border.end(because);
    });
    options.onConnect(border.connection);
    const reader = new MessageReader((message) => border.receive(message));
    stream.receive((bytes) => reader.push(bytes));
  };

  const listening = await listenOn(nats, `lockstep.${subjectOf(options.run)}.control`, {
    token: options.token,
    // A worker that opens its engine does not read; the coordinator always does.
    windows: { windowOut: SMALL_WINDOW_BYTES },
    ...(timing === undefined ? {} : { timing }),
    onRefused: options.onRefused,
    onCall: (_about, open) => {
      if (streams.size >= connectionsMax) {
        options.onRefused('E_TOO_MANY');
        return '503 too many';
      }
      join(open());
      return null;
    },
  });
  return {
    close: async () => {
      await listening.close();
      const present = [...streams];
      for (const stream of present) stream.close('the run is over');
      const impatience = setTimeout(() => {
        for (const stream of present) stream.lose('the run is over');
      }, CLOSE_GRACE_MS);
      await Promise.all(present.map((stream) => stream.closed));
      clearTimeout(impatience);
    },
  };
}
