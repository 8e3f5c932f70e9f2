// The events of the coordinator: keeps the connection, puts what is new together with what was known, and knows how old that is. A
// connection that breaks is taken up by the browser where it was; one that the coordinator refused is tried again from here.

/** Silence for so long, and what is shown is stale: news come twice a second. */
const STALE_AFTER_MS = 4000;
const RETRY_MS = 2000;

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

/**
 * Listens for ever. `onNews(fresh)` is called after each message with the happenings that are new; they are none in the first, which
 * tells of the past.
 */
export function listen(onNews) {
  const source = new EventSource(lastId === '' ? '/api/events' : `/api/events?since=${lastId}`);
  source.addEventListener('message', ({ data, lastEventId }) => {
    // Another coordinator begins with everything.
    const isSame = lastId.split('.')[0] === lastEventId.split('.')[0];
    if (!isSame) forget();
    lastId = lastEventId;
    known.heardAt = Date.now();
    const fresh = take(JSON.parse(data));
    onNews(isSame ? fresh : []);
  });
  source.addEventListener('error', () => {
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(() => listen(onNews), RETRY_MS);
  });
}

/** Seconds since the last news; null before the first; 0 while they come. */
export function staleSeconds() {
  if (known.heardAt === null) return null;
  const ms = Date.now() - known.heardAt;
  return ms < STALE_AFTER_MS ? 0 : ms / 1000;
}
