// What the coordinator gives its page, of a run that a test makes up.

import { Feed } from '../../../coordinator/core/feed.ts';
import type { PageSources } from '../../../coordinator/http/page-routes.ts';
import type { RunView } from '../../../protocol/run-view.ts';

/** A page of a run without checkpoint and samples; what is observed by `feed` is its news. */
export function pageOf(view: () => RunView, feed = new Feed(), change: Partial<PageSources> = {}): PageSources {
  return {
    news: { next: () => feed.next(view()), since: (seen) => feed.since(seen, view()) },
    model: { manifest: () => Promise.resolve(null), weights: () => Promise.resolve(null) },
    samples: () => ({ because: 'A made-up run has no samples.' }),
    ...change,
  };
}
