// A heart over a NATS server: a stream of its own that carries nothing but its beats (nats/stream.ts). A shell.

import { connectNats } from '../../nats/connect.ts';
import { callOn } from '../../nats/meet.ts';
import { heartSubject } from '../../nats/server.ts';
import { BEAT_EVERY_MS, BUSY_SILENCE } from '../../protocol/heartbeat.ts';
import type { HeartTarget } from './thread.ts';

/** Beats until the stream ends, or can't begin; returns why. */
export async function beatOverNats(target: Extract<HeartTarget, { kind: 'nats' }>): Promise<string> {
  const { server, run, key, token } = target;
  try {
    const nats = await connectNats(server, `lockstep ${run}: heart`, 'worker');
    const stream = await callOn(nats, heartSubject(run), {
      token,
      about: { heart: key },
      whom: `the coordinator of ${run}`,
      lostCode: 'E_COORDINATOR_LOST',
      timing: { beatMs: BEAT_EVERY_MS, silence: BUSY_SILENCE },
    });
    return (await stream.closed).because;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
