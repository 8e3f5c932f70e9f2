// `lockstep status [URL]`: what a run that is under way is doing, as its coordinator tells it.

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { LockstepError } from '../protocol/errors.ts';
import type { RunView } from '../protocol/run-view.ts';
import type { Tls } from '../protocol/tls.ts';
import { answerOf, endpointIn, type Endpoint } from './endpoint.ts';
import { statusText } from './terminal/live.ts';
import { wantsColor, wantsUnicode } from './terminal/text.ts';

/** The newest run here that has an address. Throws E_RUN_NOT_FOUND. */
function newestEndpoint(): Endpoint {
  const runs = existsSync('runs') ? readdirSync('runs') : [];
  for (const run of runs.toSorted().toReversed()) {
    const endpoint = endpointIn(join('runs', run));
    if (endpoint !== null) return endpoint;
  }
  throw new LockstepError('E_RUN_NOT_FOUND', 'no run is under way in runs/ here', {
    remedy: 'Start one with `npm start`, or give the address of its coordinator.',
  });
}

/** @param tls whom to trust, as the flags say; null: they don't */
export async function status(given: string | null, tls: Tls | null): Promise<number> {
  const endpoint = given === null ? newestEndpoint() : { url: given, trust: null };
  const url = new URL('/api/run', endpoint.url);
  let view: RunView;
  try {
    // The coordinator's own words about itself: shown, never acted on.
    view = JSON.parse(await answerOf(url, tls ?? endpoint.trust)) as RunView;
  } catch (cause) {
    const fault = await (await import('../worker/main.ts')).tlsError('the coordinator', url, cause);
    if (fault !== null) throw fault;
    throw new LockstepError('E_COORDINATOR_LOST', `no coordinator answers at ${endpoint.url}`, {
      remedy: 'Check the address; the run may have ended.',
      cause,
    });
  }
  const { stdout, env } = process;
  const style = { width: stdout.columns || 100, color: wantsColor(env, stdout.isTTY), unicode: wantsUnicode(env) };
  stdout.write(`${statusText(view, style)}\n`);
  return 0;
}
