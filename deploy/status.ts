// `lockstep status [URL]`: what a run that is under way is doing, as its coordinator tells it.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LockstepError } from '../protocol/errors.ts';
import type { RunView } from '../protocol/run-view.ts';
import { plainLine } from './terminal/live.ts';
import { bytes } from './terminal/text.ts';

const ANSWER_TIMEOUT_MS = 5000;

/** The address of the newest run here that has one. Throws E_RUN_NOT_FOUND. */
function newestEndpoint(): string {
  const runs = existsSync('runs') ? readdirSync('runs') : [];
  for (const run of runs.toSorted().toReversed()) {
    const file = join('runs', run, 'endpoint.json');
    if (!existsSync(file)) continue;
    const endpoint: unknown = JSON.parse(readFileSync(file, 'utf8'));
    if (typeof endpoint === 'object' && endpoint !== null && 'url' in endpoint) return String(endpoint.url);
  }
  throw new LockstepError('E_RUN_NOT_FOUND', 'no run is under way in runs/ here', {
    remedy: 'Start one with `npm start`, or give the address of its coordinator.',
  });
}

export async function status(given: string | null): Promise<number> {
  const url = given ?? newestEndpoint();
  let view: RunView;
  try {
    const answer = await fetch(new URL('/api/run', url), { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    // The coordinator's own words about itself: shown, never acted on.
    view = (await answer.json()) as RunView;
  } catch (cause) {
    throw new LockstepError('E_COORDINATOR_LOST', `no coordinator answers at ${url}`, {
      remedy: 'Check the address; the run may have ended.',
      cause,
    });
  }
  const lines = [
    `${view.job} (${view.run}): ${view.phase}, ${view.because}`,
    plainLine(view),
    ...view.workers.map(
      (w) =>
        `  ${w.id}  ${w.rank === null ? 'no rank' : `rank ${w.rank}`}  ${w.state}  pid ${w.pid} on ${w.host}  ${w.device ?? 'device not known yet'}${w.rssBytes === null ? '' : `  ${bytes(w.rssBytes)}`}`,
    ),
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
  return 0;
}
