// `lockstep worker --nproc-per-node N`: so many workers of this machine, by hand: started, watched, each line that they write after its
// worker's name.

import { LockstepError } from '../protocol/errors.ts';
import { environmentOf, ENTRY, gpusFor, placesFor, workersHere } from './crew.ts';
import { isEngineNoise } from './engine-noise.ts';
import { chooseEngineHere } from './engines.ts';
import { joinUrl } from './nats.ts';
import type { WorkerFlags } from './options.ts';
import { addressText, argumentsOf } from './options/values.ts';
import { secretUrlOf } from '../nats/server.ts';
import { wantsColor } from './terminal/text.ts';
import { workerLineText } from './terminal/worker-line.ts';
import { watchWorkers } from './watched-workers.ts';

/** Of each of them, as they were written for all; what is secret goes by the environment. */
function flagsOf({
  dataFrom,
  termGrace,
  natsCreds,
  engine,
  adapter,
  peerListen,
  localTransport,
  tlsCert,
  tlsKey,
  tlsCa,
  tlsClientCa,
}: WorkerFlags): string[] {
  return argumentsOf({
    '--nats-creds': natsCreds,
    '--engine': engine,
    '--adapter': adapter,
    '--peer-listen': peerListen === undefined ? undefined : addressText(peerListen),
    '--local-transport': localTransport,
    '--data-from': dataFrom,
    '--tls-cert': tlsCert,
    '--tls-key': tlsKey,
    '--term-grace': termGrace === 0 ? undefined : String(termGrace),
    '--tls-ca': tlsCa,
    '--tls-client-ca': tlsClientCa,
  });
}

/** Resolves to the exit code when all have ended. */
export async function runWorkers(flags: WorkerFlags, each: number | 'auto'): Promise<number> {
  const { engine } = await chooseEngineHere(flags.engine, flags.adapter ?? null);
  const count = each === 'auto' ? await workersHere(engine, flags.adapter ?? null) : each;
  if (flags.peerListen !== undefined && flags.peerListen.port !== 0 && count > 1) {
    throw new LockstepError(
      'E_USAGE',
      `--peer-listen ${addressText(flags.peerListen)}: ${count} workers need ports of their own`,
      {
        remedy: 'Give port 0: each takes a free one.',
      },
    );
  }
  const { coordinator } = flags;
  const secrets = {
    // Theirs are their own.
    LOCKSTEP_NPROC_PER_NODE: '',
    ...(coordinator.kind === 'nats' && { LOCKSTEP_NATS_URL: secretUrlOf(coordinator.server) }),
  };
  const environment = { gpus: await gpusFor(engine), adapter: flags.adapter ?? null, pin: flags.pin, secrets };
  const color = wantsColor(process.env, process.stdout.isTTY);
  const say = (message: string): void => {
    process.stdout.write(`${message}\n`);
  };
  const workers = watchWorkers({
    launch: {
      entry: ENTRY,
      coordinatorUrl: coordinator.kind === 'http' ? coordinator.url : joinUrl(coordinator.server, coordinator.run),
      tokenFile: flags.tokenFile ?? null,
      flags: flagsOf(flags),
      job: flags.job ?? null,
      logDirectory: null,
      onLine: (localRank, line) => {
        if (!isEngineNoise(line)) say(workerLineText(String(localRank), line, { color }));
      },
      localWorldSize: count,
      environment: (localRank) => environmentOf(environment, localRank),
      placeOf: placesFor(environment, count),
    },
    count,
    restartLimit: flags.restartLimit,
    say,
    onFewer: () => {},
  });
  let isInterrupted = false;
  const interrupt = (): void => {
    workers.signal(isInterrupted ? 'SIGKILL' : 'SIGTERM');
    // They go on for that long after a SIGTERM, until the coordinator dismisses them.
    if (!isInterrupted) setTimeout(() => void workers.end(), 1000 * flags.termGrace).unref();
    isInterrupted = true;
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  const { code } = await workers.ended;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, interrupt);
  return isInterrupted && flags.termGrace === 0 ? 130 : code;
}
