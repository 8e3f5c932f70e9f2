// `lockstep status [URL]`: what a run that is under way is doing, as its coordinator tells it; with --watch for as long as it is.

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createLogUpdate } from 'log-update';
import { LockstepError } from '../protocol/errors.ts';
import type { RunView } from '../protocol/run-view.ts';
import type { Tls } from '../protocol/tls.ts';
import { answerOf, endpointIn, Refused, type Endpoint } from './endpoint.ts';
import { plainLine, PlainPace, statusText } from './terminal/live.ts';
import { duration, wantsColor, wantsUnicode, type Style } from './terminal/text.ts';
import { readToken } from './token.ts';

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

/** How often it is looked with --watch. */
const LOOK_EVERY_MS = 1000;
/** With --watch a coordinator may be away for so long: another takes over meanwhile. */
const AWAY_MAX_MS = 20_000;

/** The coordinator's own words about itself: shown, never acted on. Throws E_COORDINATOR_LOST or what TLS has against it. */
async function viewAt(endpoint: Endpoint, tls: Tls | null, tokenFile: string | null): Promise<RunView> {
  const url = new URL('/api/run', endpoint.url);
  const file = tokenFile ?? endpoint.tokenFile;
  const token = file === null ? null : readToken(file);
  try {
    return JSON.parse(await answerOf(url, tls ?? endpoint.trust, token)) as RunView;
  } catch (cause) {
    if (cause instanceof Refused && (cause.status === 401 || cause.status === 403)) {
      throw new LockstepError(
        'E_UNAUTHORIZED',
        `the coordinator at ${endpoint.url} refuses to tell: ${cause.message}`,
        {
          remedy: 'Give --token-file a token of the run: lockstep token --token-file KEY --scope observe.',
          cause,
        },
      );
    }
    const fault = await (await import('../worker/main.ts')).tlsError('the coordinator', url, cause);
    if (fault !== null) throw fault;
    throw new LockstepError('E_COORDINATOR_LOST', `no coordinator answers at ${endpoint.url}`, {
      remedy: 'Check the address; the run may have ended.',
      cause,
    });
  }
}

/**
 * @param tls whom to trust, as the flags say; null: they don't
 * @param tokenFile what is shown; null: the run's own, of a run in runs/
 */
export async function status(
  given: string | null,
  tls: Tls | null,
  isWatching: boolean,
  tokenFile: string | null,
): Promise<number> {
  const ask = async (): Promise<RunView> =>
    viewAt(given === null ? newestEndpoint() : { url: given, trust: null, tokenFile: null }, tls, tokenFile);
  const { stdout, env } = process;
  const style = (): Style => ({
    width: stdout.columns || 100,
    color: wantsColor(env, stdout.isTTY),
    unicode: wantsUnicode(env),
  });
  if (!isWatching) {
    stdout.write(`${statusText(await ask(), style())}\n`);
    return 0;
  }
  const isLive = stdout.isTTY && env['TERM'] !== 'dumb';
  const update = createLogUpdate(stdout, { showCursor: true });
  const pace = new PlainPace();
  const last = await watched({
    ask,
    show: (view, awayMs) => {
      const away = awayMs === 0 ? '' : `\nno answer for ${duration(awayMs / 1000)}: what is shown is from before`;
      if (isLive) update(`${statusText(view, style())}${away}`);
      else if (awayMs === 0 && pace.isDue(view, performance.now())) stdout.write(`${plainLine(view)}\n`);
    },
    pause: async () =>
      new Promise((resolve) => {
        setTimeout(resolve, LOOK_EVERY_MS);
      }),
    now: () => performance.now(),
  });
  if (isLive) update.done();
  else stdout.write(`${statusText(last, style())}\n`);
  stdout.write('The coordinator no longer answers: the run has ended.\n');
  return 0;
}

export interface Watching {
  readonly ask: () => Promise<RunView>;
  /** @param awayMs for how long nobody has answered; 0 when it just has */
  readonly show: (view: RunView, awayMs: number) => void;
  /** Between two looks. */
  readonly pause: () => Promise<void>;
  /** Milliseconds on a monotonic clock. */
  readonly now: () => number;
}

/** Looks until nobody has answered for AWAY_MAX_MS, or the run says that it is over; returns what was seen last. Throws when the first look fails. */
export async function watched({ ask, show, pause, now }: Watching): Promise<RunView> {
  let view = await ask();
  let heardAt = now();
  for (;;) {
    show(view, now() - heardAt);
    if (view.phase === 'done' || view.phase === 'stopped' || view.phase === 'failed') return view;
    await pause();
    try {
      view = await ask();
      heardAt = now();
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      if (now() - heardAt > AWAY_MAX_MS) return view;
    }
  }
}
