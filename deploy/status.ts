// `lockstep status [URL]`: what a run that is under way is doing, as its coordinator tells it.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LockstepError } from '../protocol/errors.ts';
import type { RunView } from '../protocol/run-view.ts';
import { statusText } from './terminal/live.ts';
import { wantsColor, wantsUnicode } from './terminal/text.ts';

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
  const { stdout, env } = process;
  const style = { width: stdout.columns || 100, color: wantsColor(env, stdout.isTTY), unicode: wantsUnicode(env) };
  stdout.write(`${statusText(view, style)}\n`);
  return 0;
}
