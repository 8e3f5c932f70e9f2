// `/api/events` over real sockets: what goes out, to whom, and that nobody's not reading costs anything.

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { Feed } from '../../../coordinator/core/feed.ts';
import { CLIENTS_MAX, PUBLISH_EVERY_MS, STALL_LIMIT_MS } from '../../../coordinator/http/event-stream.ts';
import { startHttp, type Http } from '../../../coordinator/http/server.ts';
import { pageOf } from './page-of.ts';
import { VIEW } from './view.ts';

async function start(feed: Feed, view = () => VIEW): Promise<Http> {
  const http = await startHttp({
    listen: { host: '127.0.0.1', port: 0 },
    view,
    metrics: () => Promise.resolve({ contentType: 'text/plain', text: '' }),
    ready: () => ({ ok: true, because: '' }),
    page: pageOf(view, feed),
  });
  onTestFinished(() => http.close());
  return http;
}

interface Reader {
  /** The next message: its id, and its data parsed. Null at the end. */
  next(): Promise<{ id: string; news: { view: object; curve: object | null; happenings: object[] } } | null>;
  close(): void;
}

async function read(http: Http, headers: Record<string, string> = {}): Promise<Reader> {
  const abort = new AbortController();
  const answer = await fetch(`${http.url}/api/events`, { headers, signal: abort.signal });
  expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'text/event-stream; charset=utf-8']);
  expect(answer.headers.get('content-security-policy')).toContain("default-src 'none'");
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  onTestFinished(() => abort.abort());
  return {
    next: async () => {
      while (!text.includes('\n\n')) {
        const { done, value } = await reader.read();
        if (done) return null;
        text += value;
      }
      const end = text.indexOf('\n\n');
      const [, id = ''] = /^id: (.*)$/m.exec(text.slice(0, end)) ?? [];
      const [, data = ''] = /^data: (.*)$/m.exec(text.slice(0, end)) ?? [];
      text = text.slice(end + 2);
      return { id, news: JSON.parse(data) };
    },
    close: () => abort.abort(),
  };
}

const warning = (message: string) => ({ kind: 'warning', message }) as const;

describe('the events', () => {
  it('are everything first, then what is new, at its pace', async () => {
    const feed = new Feed();
    feed.observe(warning('before'), 0);
    const http = await start(feed);
    const reader = await read(http);
    expect((await reader.next())?.news).toMatchObject({ view: { step: 1000 }, happenings: [{ text: 'before' }] });
    http.publish(0);
    expect((await reader.next())?.news).toMatchObject({ curve: null, happenings: [] });
    feed.observe(warning('after'), 0);
    http.publish(PUBLISH_EVERY_MS - 1);
    http.publish(PUBLISH_EVERY_MS);
    expect((await reader.next())?.news).toMatchObject({ curve: null, happenings: [{ text: 'after' }] });
    http.publish(2 * PUBLISH_EVERY_MS);
    expect((await reader.next())?.news).toMatchObject({ view: { step: 1000 }, happenings: [] });
  });

  it('go on where a page was cut off; to a page of another coordinator they are everything', async () => {
    const feed = new Feed();
    const http = await start(feed);
    feed.observe(warning('first'), 0);
    http.publish(0);
    const reader = await read(http);
    const seen = await reader.next();
    reader.close();
    feed.observe(warning('second'), 0);
    http.publish(PUBLISH_EVERY_MS);
    const back = await (await read(http, { 'last-event-id': seen?.id ?? '' })).next();
    expect(back?.news).toMatchObject({ curve: null, epochs: null, happenings: [{ text: 'second' }] });
    const stranger = await (await read(http, { 'last-event-id': 'another.1' })).next();
    expect(stranger?.news.happenings).toHaveLength(2);
    const mad = await (await read(http, { 'last-event-id': `${seen?.id.split('.')[0]}.999999` })).next();
    expect(mad?.news.happenings).toHaveLength(2);
  });

  it('have a head for who asks for that only, and no stream', async () => {
    const http = await start(new Feed());
    const answer = await fetch(`${http.url}/api/events`, { method: 'HEAD' });
    expect([answer.status, answer.headers.get('content-type'), await answer.text()]).toEqual([
      200,
      'text/event-stream; charset=utf-8',
      '',
    ]);
  });

  it('end with the last news', async () => {
    const feed = new Feed();
    const http = await start(feed);
    const reader = await read(http);
    await reader.next();
    feed.observe(warning('the end'), 0);
    await http.close();
    expect((await reader.next())?.news.happenings).toMatchObject([{ text: 'the end' }]);
    expect(await reader.next()).toBeNull();
  });

  it(`are for ${CLIENTS_MAX} pages; one more is told so, and served when another has gone`, async () => {
    const http = await start(new Feed());
    const sockets: Socket[] = [];
    for (let i = 0; i < CLIENTS_MAX; i++) {
      const socket = connect(http.port, '127.0.0.1');
      socket.write('GET /api/events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n');
      await once(socket, 'data');
      sockets.push(socket);
    }
    onTestFinished(() => sockets.forEach((socket) => socket.destroy()));
    const refused = await fetch(`${http.url}/api/events`);
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '10']);
    expect(await refused.json()).toMatchObject({ code: 'E_TOO_MANY' });
    sockets.pop()?.destroy();
    await vi.waitFor(async () => {
      const answer = await fetch(`${http.url}/api/events`);
      await answer.body?.cancel();
      expect(answer.status).toBe(200);
    });
  });
});

describe('a page that does not read', () => {
  it('has one message waiting, is sent nothing more, and is closed after a while; others go on', async () => {
    const feed = new Feed();
    // More than a socket's buffers hold.
    let asked = 0;
    const because = 'x'.repeat(16 * 1024 * 1024);
    const view = (): typeof VIEW => {
      asked++;
      return { ...VIEW, because: isLarge ? because : '' };
    };
    let isLarge = true;
    const http = await start(feed, view);
    const stalled = connect(http.port, '127.0.0.1');
    onTestFinished(() => {
      stalled.destroy();
    });
    stalled.on('error', () => undefined);
    stalled.pause();
    stalled.write('GET /api/events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n');
    await vi.waitFor(() => expect(asked).toBeGreaterThan(1));
    isLarge = false;
    const reader = await read(http);
    await reader.next();
    const connections = (): Promise<number> =>
      new Promise((resolve) => {
        http.server.getConnections((_, count) => resolve(count));
      });
    const before = await connections();
    const heapBefore = process.memoryUsage().external + process.memoryUsage().arrayBuffers;
    for (let i = 0; i * PUBLISH_EVERY_MS < STALL_LIMIT_MS; i++) {
      http.publish(i * PUBLISH_EVERY_MS);
      expect(await reader.next()).not.toBeNull();
    }
    expect(await connections()).toBe(before);
    const grown = process.memoryUsage().external + process.memoryUsage().arrayBuffers - heapBefore;
    expect(grown).toBeLessThan(because.length);
    http.publish(2 * STALL_LIMIT_MS);
    expect(await reader.next()).not.toBeNull();
    await vi.waitFor(async () => expect(await connections()).toBe(before - 1));
  });
});
