// The dashboards as the files that Grafana reads: `npm run dashboards` writes them to dashboards/grafana/, where they are committed.

import type { Dashboard } from '@grafana/grafana-foundation-sdk/dashboard';
import { cluster } from './cluster.ts';
import { performance } from './performance.ts';
import { training } from './training.ts';

export const dashboards = (): readonly Dashboard[] => [training(), performance(), cluster()];

/** File names and texts. */
export function files(): Map<string, string> {
  return new Map(dashboards().map((one) => [`${one.uid}.json`, `${JSON.stringify(one, null, 2)}\n`]));
}
