// On how many servers of a NATS cluster a stream lies. By default on three where the server says that it is one of a cluster, else on
// one; where three can't be had (fewer servers, or some that are down) on one, and that is said: then its server is a single point of
// failure. A stream that is there already is spread when it can be. A shell.

import { JetStreamApiError, jetstreamManager } from '@nats-io/jetstream';
import type { Nats } from '../../nats/connect.ts';
import { patiently } from '../../nats/patience.ts';
import { LockstepError } from '../../protocol/errors.ts';

/** Of a clustered server, when nobody says: the loss of one is survived. */
export const DEFAULT_REPLICAS = 3;

/** Codes of JetStream's API: no suitable peers, insufficient resources, no cluster. */
const TOO_FEW: ReadonlySet<number> = new Set([10_005, 10_023, 10_074]);

export interface Replicas {
  /** On how many servers it lies. */
  readonly replicas: number;
  /** Why on fewer than it should; null: it does not. */
  readonly because: string | null;
}

/**
 * Makes a stream by `make`, or opens it where it is there. `wish` null: the default. Throws E_NATS_REFUSED where a wish can't be met.
 */
export async function replicated(
  nats: Nats,
  stream: string,
  wish: number | null,
  make: (replicas: number) => Promise<unknown>,
): Promise<Replicas> {
  const { connection, server } = nats;
  const wanted = wish ?? (connection.info?.cluster === undefined ? 1 : DEFAULT_REPLICAS);
  const tooFew = (cause: unknown): string => {
    if (!(cause instanceof JetStreamApiError) || !TOO_FEW.has(cause.code)) throw cause;
    if (wish === null) return `${wanted} servers that could have it are not there (${cause.message})`;
    throw new LockstepError(
      'E_NATS_REFUSED',
      `--nats-replicas ${wish}: the NATS server at ${server.url} can't keep the run's record on so many servers: ${cause.message}`,
      { remedy: 'Give it fewer, or see to it that so many servers of its cluster are up.', cause },
    );
  };
  let because: string | null = null;
  try {
    await patiently(() => make(wanted));
  } catch (error) {
    because = tooFew(error);
    await patiently(() => make(1));
  }
  const manager = await patiently(() => jetstreamManager(connection));
  const { config } = await patiently(() => manager.streams.info(stream));
  if (config.num_replicas >= wanted) return { replicas: config.num_replicas, because: null };
  if (because === null) {
    try {
      await patiently(() => manager.streams.update(stream, { ...config, num_replicas: wanted }));
      return { replicas: wanted, because: null };
    } catch (error) {
      because = tooFew(error);
    }
  }
  return { replicas: config.num_replicas, because };
}
