// A coordinator's place on a NATS server: the connection, the run's name there, which one coordinator has at a time, and where the server
// has JetStream the run's bucket, in which it claims its term before it reads or tells anything. A shell.

import type { NatsServer } from '../../nats/server.ts';
import { connectNats, type Nats } from '../../nats/connect.ts';
import { LockstepError } from '../../protocol/errors.ts';
import type { Successor } from '../core/fence.ts';
import { claimTerm, openRunBucket, type RunBucket } from './bucket.ts';
import { claimRun } from './rivals.ts';

export interface NatsSession {
  readonly nats: Nats;
  readonly run: string;
  /** Null: nothing is kept there, `because` of what. */
  readonly bucket: RunBucket | null;
  readonly because: string;
  /** How many servers a stream was asked to lie on; null: the default. */
  readonly replicas: number | null;
  /** Claims the next term above `above`, and above all that were claimed there; without a bucket `above` itself. */
  claim(above: number): Promise<number>;
}

/**
 * Connects to the server and has the run's name there. Throws E_NATS_UNREACHABLE, E_NATS_REFUSED or E_RUN_IN_USE, naming who has the
 * name.
 */
export async function openNatsSession(
  server: NatsServer,
  run: string,
  self: Omit<Successor, 'term'>,
  replicas: number | null,
): Promise<NatsSession> {
  const nats = await connectNats(server, `lockstep ${run}: coordinator`, 'coordinator');
  try {
    await claimRun(nats, run, self);
    const { bucket, because } = await bucketFor(nats, run, replicas);
    return {
      nats,
      run,
      bucket,
      because,
      replicas,
      claim: async (above) => (bucket === null ? above : claimTerm(bucket.store, self, above)),
    };
  } catch (error) {
    await nats.close();
    throw error;
  }
}

async function bucketFor(
  nats: Nats,
  run: string,
  replicas: number | null,
): Promise<{ readonly bucket: RunBucket | null; readonly because: string }> {
  if (nats.connection.info?.jetstream !== true) return { bucket: null, because: 'it runs without JetStream' };
  try {
    return { bucket: await openRunBucket(nats, run, replicas), because: '' };
  } catch (error) {
    if (error instanceof LockstepError) throw error;
    const why = error instanceof Error ? error.message : String(error);
    return { bucket: null, because: `the run's bucket can't be opened: ${why}` };
  }
}
