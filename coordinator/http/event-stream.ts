// `/api/events`: server-sent events. Twice a second every page gets one message with what is new to it since its last one
// (core/feed.ts), and pages that have seen the same get the same text, made once. The id is the process and the revision, so that
// a page that was cut off goes on where it was (Last-Event-ID), and one that comes from another coordinator gets everything.
//
// Who does not read costs nothing: while what a page was sent last still waits here it is sent nothing more, and when it reads again
// it gets the sum of what it missed in one message; after STALL_LIMIT_MS its connection is closed. So what waits for a page is one message
// at most. Messages go out whether something changed or not: a page that hears nothing for some seconds knows that it is cut off.

import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

export const CLIENTS_MAX = 128;
/** Half a second, less the jitter of the timer that calls. */
export const PUBLISH_EVERY_MS = 450;
/** A page whose last message has not left for so long is closed. */
export const STALL_LIMIT_MS = 20_000;
/** How long a page waits before it calls again. */
const RETRY_MS = 1000;
/** At the end: how long the last message may take to leave. */
const FAREWELL_MS = 500;

export interface NewsSource {
  /** Ends the present revision and returns its number. */
  next(): number;
  /** What is new to who has seen revision `seen`; 0: everything. */
  since(seen: number): unknown;
}

export interface EventStream {
  /** Answers a request with the stream. False when there are CLIENTS_MAX already: nothing was written then. */
  open(request: IncomingMessage, response: ServerResponse, headers: Readonly<Record<string, string>>): boolean;
  /** Sends everybody what is new, when it is time for that. `nowMs`: milliseconds on a monotonic clock. */
  publish(nowMs: number): void;
  /** Sends the last news and ends all streams. */
  close(): Promise<void>;
  readonly clients: number;
}

interface Client {
  readonly response: ServerResponse;
  /** The revision that it has been sent. */
  seen: number;
  /** When what it was sent last was found to be waiting; null when all has left. */
  waitingSinceMs: number | null;
}

export function createEventStream(source: NewsSource): EventStream {
  const process = randomUUID();
  const clients = new Set<Client>();
  let publishedAtMs = -Infinity;
  /** The last revision that was sent to anybody. */
  let revision = source.next();

  const messageTo = (seen: number): string =>
    `id: ${process}.${revision}\ndata: ${JSON.stringify(source.since(seen))}\n\n`;

  const send = (client: Client, text: string): void => {
    client.seen = revision;
    client.response.write(text);
  };

  /** What a page says that it has; 0 where that is of another process. */
  const seenBy = (request: IncomingMessage): number => {
    const header = request.headers['last-event-id'];
    const query = new URL(request.url ?? '/', 'http://host').searchParams.get('since');
    const [whose, number = ''] = (typeof header === 'string' ? header : (query ?? '')).split('.');
    const seen = Number(number);
    return whose === process && Number.isSafeInteger(seen) && seen >= 0 && seen <= revision ? seen : 0;
  };

  const publishNow = (nowMs: number): void => {
    publishedAtMs = nowMs;
    revision = source.next();
    const made = new Map<number, string>();
    for (const client of clients) {
      if (client.response.writableLength > 0) {
        client.waitingSinceMs ??= nowMs;
        if (nowMs - client.waitingSinceMs >= STALL_LIMIT_MS) client.response.destroy();
        continue;
      }
      client.waitingSinceMs = null;
      const text = made.get(client.seen) ?? messageTo(client.seen);
      made.set(client.seen, text);
      send(client, text);
    }
  };

  return {
    open: (request, response, headers) => {
      if (clients.size >= CLIENTS_MAX) return false;
      const client: Client = { response, seen: seenBy(request), waitingSinceMs: null };
      clients.add(client);
      response.once('close', () => clients.delete(client));
      // A page that goes away in the middle of a message is no error of ours.
      response.once('error', () => clients.delete(client));
      response.writeHead(200, { ...headers, 'content-type': 'text/event-stream; charset=utf-8' });
      response.write(`retry: ${RETRY_MS}\n`);
      send(client, messageTo(client.seen));
      return true;
    },
    publish: (nowMs) => {
      if (nowMs - publishedAtMs >= PUBLISH_EVERY_MS) publishNow(nowMs);
    },
    close: async () => {
      publishNow(publishedAtMs);
      const leaving = [...clients].map(
        async ({ response }) =>
          new Promise<void>((resolve) => {
            const late = setTimeout(() => response.destroy(), FAREWELL_MS);
            response.once('close', () => {
              clearTimeout(late);
              resolve();
            });
            response.end();
          }),
      );
      await Promise.all(leaving);
    },
    get clients() {
      return clients.size;
    },
  };
}
