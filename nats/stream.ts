// A stream of bytes (protocol/byte-stream.ts) on a pair of NATS subjects of its own. A shell: it has the clock and the connection.
//
// How a death is seen: a beat asks for an answer on the subject that this side listens on. When the other process is gone, the server
// has no subscriber for the beat and says so itself ("no responders"), within a beat. The silence limit is for a process that is stopped
// or cut off, and for a server where somebody listens to everything, so that no beat is without a subscriber. It is generous unless told
// otherwise, because an engine may hold its one thread for as long as a microbatch takes: see protocol/heartbeat.ts.

import { errors } from '@nats-io/transport-node';
import { ByteStream, STREAM_HEAD_BYTES, WINDOW_BYTES } from '../protocol/byte-stream.ts';
import { HEARTLESS_SILENCE_MS } from '../protocol/heartbeat.ts';
import type { LinkEnd } from '../protocol/link.ts';
import { fixedSilence, type SilenceLimits } from '../protocol/silence.ts';
import type { Nats } from './connect.ts';

/** Of one message, where the server allows as much: large enough to be cheap, small enough to begin on. */
const CHUNK_BYTES = 256 * 1024;
const NO_RESPONDERS = 503;

export interface StreamTiming {
  readonly beatMs: number;
  readonly silence: SilenceLimits;
}
const TIMING: StreamTiming = { beatMs: 500, silence: fixedSilence(HEARTLESS_SILENCE_MS) };

/** See byte-stream.ts; what is left out is a large window. */
export interface StreamWindows {
  readonly windowOut?: number;
  readonly windowIn?: number;
}

export interface NatsStream {
  /** Beats from now on: the other side listens. */
  begin(): void;
  /** Sends the pieces one after another; they must stay as they are until `drained`. Does nothing on a closed stream. */
  send(...pieces: readonly Uint8Array[]): void;
  receive(deliver: (bytes: Uint8Array) => void): void;
  readonly closed: Promise<LinkEnd>;
  /** Resolves when all that was sent has left this process, or the stream is closed. */
  drained(): Promise<void>;
  close(because: string): void;
  /** Ends it at once with an error that this side found; the other is told. */
  refuse(error: unknown): void;
  /** Leaves it at once without a word. */
  lose(because: string): void;
  readonly bytesOut: number;
  readonly bytesIn: number;
}

export function openStream(
  nats: Nats,
  subjects: { readonly out: string; readonly into: string },
  windows: StreamWindows = {},
  timing: StreamTiming = TIMING,
): NatsStream {
  const { connection } = nats;
  const { out, into } = subjects;
  let resolveClosed: (end: LinkEnd) => void = () => {};
  const closed = new Promise<LinkEnd>((resolve) => {
    resolveClosed = resolve;
  });
  let timer: NodeJS.Timeout | undefined;
  const stream = new ByteStream({
    chunkBytes: Math.min(CHUNK_BYTES, nats.payloadBytes - STREAM_HEAD_BYTES),
    windowOut: windows.windowOut ?? WINDOW_BYTES,
    windowIn: windows.windowIn ?? WINDOW_BYTES,
    silence: timing.silence,
    nowMs: performance.now(),
    publish: (message, isBeat) => {
      if (connection.isClosed()) return;
      try {
        connection.publish(out, message, isBeat ? { reply: into } : {});
      } catch (error) {
        // It is being closed: the stream ends with it.
        if (!(error instanceof errors.DrainingConnectionError)) throw error;
      }
    },
    ended: (end) => {
      clearInterval(timer);
      subscription.unsubscribe();
      resolveClosed(end);
    },
  });
  const subscription = connection.subscribe(into, {
    callback: (error, message) => {
      if (error !== null) stream.lose(error.message);
      else if (message.headers?.code === NO_RESPONDERS)
        stream.lose('its process is gone: nobody listens there any more');
      else stream.hear(message.data);
      return undefined;
    },
  });
  void nats.lost.then((error) => stream.lose(error?.message ?? 'the connection to the NATS server is closed'));

  return {
    begin: () => {
      timer = setInterval(() => stream.tick(performance.now()), timing.beatMs);
      timer.unref();
    },
    send: (...pieces) => {
      for (const piece of pieces) stream.send(piece);
      stream.push();
    },
    receive: (deliver) => stream.receive(deliver),
    closed,
    drained: () =>
      new Promise((resolve) => {
        stream.whenDrained(resolve);
      }),
    close: (because) => stream.close(because),
    refuse: (error) => stream.refuse(error),
    lose: (because) => stream.lose(because),
    get bytesOut() {
      return stream.bytesOut;
    },
    get bytesIn() {
      return stream.bytesIn;
    },
  };
}
