// `lockstep status [URL]`: what a run that is under way is doing, as its coordinator tells it.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { LockstepError } from '../protocol/errors.ts';
import type { RunView } from '../protocol/run-view.ts';
import type { Tls } from '../protocol/tls.ts';
import type { Trust } from '../worker/main.ts';
import { statusText } from './terminal/live.ts';
import { wantsColor, wantsUnicode } from './terminal/text.ts';

const ANSWER_TIMEOUT_MS = 5000;

interface Endpoint {
  readonly url: string;
  /** Whom to trust: the certificate that the run itself left there. */
  readonly trust: Trust | null;
}

/** The newest run here that has an address. Throws E_RUN_NOT_FOUND. */
function newestEndpoint(): Endpoint {
  const runs = existsSync('runs') ? readdirSync('runs') : [];
  for (const run of runs.toSorted().toReversed()) {
    const file = join('runs', run, 'endpoint.json');
    if (!existsSync(file)) continue;
    const endpoint = JSON.parse(readFileSync(file, 'utf8')) as { url?: unknown; certificate?: unknown } | null;
    if (typeof endpoint?.url !== 'string') continue;
    const { url, certificate } = endpoint;
    return { url, trust: typeof certificate === 'string' ? { identity: { cert: certificate }, ca: null } : null };
  }
  throw new LockstepError('E_RUN_NOT_FOUND', 'no run is under way in runs/ here', {
    remedy: 'Start one with `npm start`, or give the address of its coordinator.',
  });
}

async function answerOf(url: URL, trusted: Trust | null): Promise<string> {
  const options = { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) };
  const isSecure = url.protocol === 'https:';
  const trust = isSecure ? (await import('../worker/main.ts')).callerOptions(trusted) : {};
  return new Promise((resolve, reject) => {
    const request = isSecure ? httpsRequest(url, { ...options, ...trust }) : httpRequest(url, options);
    request.on('error', reject);
    request.on('response', (response) => {
      if (response.statusCode === 200) text(response).then(resolve, reject);
      else reject(new Error(`it answered ${response.statusCode} ${response.statusMessage}`));
    });
    request.end();
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
