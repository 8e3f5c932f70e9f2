// The events of the coordinator: keeps the connection, puts what is new together with what was known, and knows how old that is. A
// connection that breaks, or is refused, is taken up again where it was. Server-sent events are read from a fetch: the browser's own EventSource can
// show no token.

import { ask, pause } from './access.js';

/** Silence for so long, and what is shown is stale: news come twice a second. */
const STALE_AFTER_MS = 4000;
const RETRY_MS = 1000;

/** What the page knows. `points` are those of coordinator/core/curve.ts. */
export const known = {
  view: null,
  width: 1,
  points: [],
  epochs: [],
  happenings: [],
  heardAt: null,
};

let lastId = '';

function take(news) {
  known.view = news.view;
  if (news.curve !== null) {
    known.width = news.curve.width;
    known.points = [...known.points.slice(0, news.curve.from), ...news.curve.points];
  }
  if (news.epochs !== null) known.epochs = [...known.epochs.slice(0, news.epochs.from), ...news.epochs.reports];
  const newest = known.happenings.at(-1)?.id ?? 0;
  const fresh = news.happenings.filter(({ id }) => id > newest);
  // As many as the coordinator keeps.
  known.happenings = [...known.happenings, ...fresh].slice(-200);
  return fresh;
}

function forget() {
  Object.assign(known, { width: 1, points: [], epochs: [], happenings: [] });
}

/** One message of the stream as [id, data]; null for what is none. */
function messageIn(block) {
  const valueOf = (name) =>
    block
      .split('\n')
      .find((line) => line.startsWith(`${name}: `))
      ?.slice(name.length + 2);
  const [id, data] = [valueOf('id'), valueOf('data')];
  return id === undefined || data === undefined ? null : [id, data];
}

function hear([id, data], onNews) {
  // Another coordinator begins with everything.
  const isSame = lastId.split('.')[0] === id.split('.')[0];
  if (!isSame) forget();
  lastId = id;
  known.heardAt = Date.now();
  const fresh = take(JSON.parse(data));
  onNews(isSame ? fresh : []);
}

/** Follows one connection to its end. */
async function follow(onNews) {
  const answer = await ask(lastId === '' ? '/api/events' : `/api/events?since=${lastId}`);
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (text + decoder.decode(value, { stream: true })).split('\n\n');
    text = blocks.pop();
    for (const block of blocks) {
      const message = messageIn(block);
      if (message !== null) hear(message, onNews);
    }
  }
}

/**
 * Listens for ever. `onNews(fresh)` is called after each message with the happenings that are new; they are none in the first, which
 * tells of the past.
 */
export async function listen(onNews) {
  for (;;) {
    try {
      await follow(onNews);
    } catch {
      // It ended, or nobody answers; that what is shown grows old is said by staleSeconds.
    }
    await pause(RETRY_MS);
  }
}

/** Seconds since the last news; null before the first; 0 while they come. */
export function staleSeconds() {
  if (known.heardAt === null) return null;
  const ms = Date.now() - known.heardAt;
  return ms < STALE_AFTER_MS ? 0 : ms / 1000;
}
