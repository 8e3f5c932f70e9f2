// Where workers join over a NATS server: a subject of the run. Who may come in is decided here as at the WebSocket's door (the run's
// token, no more than so many), what they then say passes control-connection.ts. How a death is seen: nats/stream.ts; a worker that is
// stopped or cut off by its heart, a stream of its own (protocol/heartbeat.ts), as its link is silent while the engine computes.

import { z } from 'zod';
import type { Nats } from '../../nats/connect.ts';
import { listenOn } from '../../nats/meet.ts';
import { controlSubject, heartSubject } from '../../nats/server.ts';
import type { NatsStream, StreamTiming } from '../../nats/stream.ts';
import { SMALL_WINDOW_BYTES } from '../../protocol/byte-stream.ts';
import { BEAT_EVERY_MS, HEART_KEY, WORKER_SILENCE } from '../../protocol/heartbeat.ts';
import { MessageReader, messageHead } from '../../protocol/message-stream.ts';
import { keysOf, secretOfClaim } from '../../protocol/token.ts';
import { MAX_CONNECTIONS, openBorder, type ControlEvents } from '../control-connection.ts';

/** That a worker gets to take what was sent before its stream is left. */
const CLOSE_GRACE_MS = 2000;

/**
 * A coordinator that was held up for so long hears calls that others may have answered meanwhile: a second answer would mix two streams on
 * one pair of subjects. For a moment it takes none; by then it knows whether it is replaced (record.ts), and who was not answered calls again.
 */
const HELD_UP_MS = 2000;
const RECOVER_MS = 1000;
const AWAKE_EVERY_MS = 250;

const heartTiming: StreamTiming = { beatMs: BEAT_EVERY_MS, silence: WORKER_SILENCE };
const aboutSchema = z.strictObject({ heart: z.string().regex(HEART_KEY).optional() });

export interface NatsControlOptions extends ControlEvents {
  readonly run: string;
  /** The run's key; null: it has none. */
  readonly token: string | null;
  /** The number in the name of the first worker that comes (default: 0). */
  readonly firstName?: number;
  readonly connectionsMax?: number;
  readonly helloMs?: number;
  readonly timing?: StreamTiming;
}

/** Listens for workers; resolves when they may come. Closing it leaves the connection to the server open. */
export async function openNatsControl(nats: Nats, options: NatsControlOptions): Promise<{ close(): Promise<void> }> {
  const { timing, connectionsMax = MAX_CONNECTIONS } = options;
  const streams = new Set<NatsStream>();
  /** Links by the key of the heart that comes after them, and the hearts that came. */
  const bodies = new Map<string, { readonly link: NatsStream; heart: NatsStream | null }>();
  let arrivals = options.firstName ?? 0;

  let awakeMs = performance.now();
  let deafUntilMs = 0;
  const awake = setInterval(() => {
    const nowMs = performance.now();
    if (nowMs - awakeMs > HELD_UP_MS) deafUntilMs = nowMs + RECOVER_MS;
    awakeMs = nowMs;
  }, AWAKE_EVERY_MS);
  awake.unref();

  const join = (stream: NatsStream, key: string | undefined): void => {
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
    if (key !== undefined) bodies.set(key, { link: stream, heart: null });
    void stream.closed.then(({ because, error }) => {
      clearTimeout(graceTimer);
      streams.delete(stream);
      if (key !== undefined) {
        bodies.get(key)?.heart?.close('its link ended');
        bodies.delete(key);
      }
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

  const { token } = options;
  const keys = token === null ? null : keysOf(token);
  const ofWorkers =
    keys === null ? {} : { secretOfClaim: (claim: string) => secretOfClaim(claim, 'work', keys, Date.now()) };
  const hearts = await listenOn(nats, heartSubject(options.run), {
    token,
    ...ofWorkers,
    timing: heartTiming,
    onRefused: options.onRefused,
    onCall: (about, open) => {
      const body = bodies.get(aboutSchema.safeParse(about).data?.heart ?? '');
      if (body === undefined) return '404 no link of that heart';
      if (body.heart !== null) return '409 there is one already';
      const heart = open();
      heart.receive(() => {});
      body.heart = heart;
      void heart.closed.then(({ because }) => body.link.lose(because));
      return null;
    },
  });
  const listening = await listenOn(nats, controlSubject(options.run), {
    token,
    ...ofWorkers,
    // A worker that opens its engine does not read; the coordinator always does.
    windows: { windowOut: SMALL_WINDOW_BYTES },
    ...(timing === undefined ? {} : { timing }),
    onRefused: options.onRefused,
    onCall: (about, open) => {
      const caller = aboutSchema.safeParse(about);
      if (!caller.success) return '400 malformed';
      const nowMs = performance.now();
      if (nowMs < deafUntilMs || nowMs - awakeMs > HELD_UP_MS) return '503 held up';
      if (caller.data.heart !== undefined && bodies.has(caller.data.heart)) return '409 there is one already';
      if (streams.size >= connectionsMax) {
        options.onRefused('E_TOO_MANY');
        return '503 too many';
      }
      join(open(), caller.data.heart);
      return null;
    },
  });
  return {
    close: async () => {
      clearInterval(awake);
      await listening.close();
      await hearts.close();
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
