// JetStream answers nobody while its servers elect a leader: for some seconds after one of them is lost. What is asked meanwhile is asked
// again; a refusal is not. A shell: it has the clock.

import { JetStreamApiError, JetStreamError } from '@nats-io/jetstream';
import { errors } from '@nats-io/transport-node';

/** An election takes 4 to 9 seconds once the loss is noticed. Without an answer for so long JetStream is taken for gone. */
export const LEADERLESS_LIMIT_MS = 30_000;
const AGAIN_MS = 250;
/** Codes of JetStream's API that pass: cluster incomplete, no leader, not the leader, stream or consumer offline. */
const PASSING: ReadonlySet<number> = new Set([10_004, 10_008, 10_009, 10_118, 10_119]);

/** True for what may go well a moment later: no answer, nobody who answers, no leader. */
function isPassing(error: unknown): boolean {
  if (error instanceof errors.TimeoutError || error instanceof errors.NoRespondersError) return true;
  if (error instanceof errors.RequestError) return error.isNoResponders() || isPassing(error.cause);
  if (error instanceof JetStreamApiError) return PASSING.has(error.code);
  // A class that the library does not export.
  const isUnanswered = error instanceof Error && error.name === 'JetStreamNotEnabled';
  if (isUnanswered || error instanceof JetStreamError) return error.cause === undefined || isPassing(error.cause);
  return false;
}

/** What `attempt` comes to, tried again for `limitMs` while its failures are passing ones; `isOver`: nobody wants it any more. */
export async function patiently<T>(
  attempt: () => Promise<T>,
  isOver: () => boolean = () => false,
  limitMs = LEADERLESS_LIMIT_MS,
): Promise<T> {
  const until = performance.now() + limitMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!isPassing(error) || isOver() || performance.now() > until) throw error;
    }
    await new Promise<void>((resolve) => {
      setTimeout(resolve, AGAIN_MS);
    });
  }
}
