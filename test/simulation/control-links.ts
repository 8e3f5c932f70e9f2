// Control messages on the simulated network, as bytes: a worker's end, and the coordinator's door past the border that the real one has.

import { openBorder, type ControlEvents } from '../../coordinator/control-connection.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { BUSY_SILENCE, WORKER_SILENCE } from '../../protocol/heartbeat.ts';
import { encodeMessage } from '../../protocol/messages.ts';
import { ControlInbox } from '../../worker/control-inbox.ts';
import type { ControlLink } from '../../worker/control-link.ts';
import type { Chance } from './chance.ts';
import type { End, Network } from './network.ts';
import type { Process } from './world.ts';

const HANDSHAKE_MS = 10_000;
/** From the connection's close on this side to the end of it where the other side is silent. */
const CLOSE_MS = 30_000;

/** A worker's control link. How long either side may be silent differs, as the real limits do, which adapt (protocol/silence.ts). Throws E_COORDINATOR_LOST. */
export async function simulatedControl(
  network: Network,
  process: Process,
  url: string,
  chance: Chance,
): Promise<ControlLink> {
  let end: End;
  try {
    end = await network.dial(process, url, { kind: 'control' }, HANDSHAKE_MS);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new LockstepError('E_COORDINATOR_LOST', `no coordinator can be joined at ${url}: ${why}`, { cause });
  }
  end.silenceMs = chance.spread(BUSY_SILENCE.floorMs, BUSY_SILENCE.ceilingMs);
  const inbox = new ControlInbox(url);
  takers.set(end, (bytes) => {
    try {
      inbox.take(bytes);
    } catch {
      network.close(end, 'a message that is refused');
    }
  });
  end.onClose = (because) => inbox.lose(`the link to the coordinator at ${url} closed: ${because}`);
  return {
    localAddress: process.host,
    send: (message) => {
      const bytes = encodeMessage(message);
      network.post(
        end,
        message.kind,
        () => takers.get(end.other)?.(bytes),
        () => `from ${process.name}`,
      );
    },
    drained: () =>
      new Promise((resolve) => {
        network.world.after(process, network.latencyUs(), 'has drained', resolve);
      }),
    next: () => inbox.next(),
    listen: (handler) => inbox.listen(handler),
    closed: inbox.closed,
    close: async () => {
      if (!end.isOpen) return;
      network.close(end, 'code 1000');
      inbox.lose(`the link to the coordinator at ${url} closed (1000)`);
      await new Promise<void>((resolve) => {
        network.world.after(
          process,
          network.isCut(process, end.other.process) ? CLOSE_MS * 1000 : 2 * network.latencyUs(),
          'has closed',
          resolve,
        );
      });
    },
  };
}

const takers = new WeakMap<End, (bytes: Uint8Array) => void>();

/** The coordinator's door: what comes in is handed to `events`, past the border that the real one has. */
export function openSimulatedControl(
  network: Network,
  process: Process,
  url: string,
  chance: Chance,
  firstName: number,
  events: ControlEvents,
): () => void {
  let arrivals = firstName;
  const ends = new Set<End>();
  const stop = network.listen(process, url, (end) => {
    ends.add(end);
    end.silenceMs = chance.spread(WORKER_SILENCE.floorMs, WORKER_SILENCE.ceilingMs);
    const finish = (because: string): void => {
      if (ends.delete(end)) border.end(because);
    };
    const border = openBorder(
      `w${arrivals++}`,
      {
        send: (bytes) =>
          network.post(
            end,
            'control',
            () => takers.get(end.other)?.(bytes),
            () => `to ${end.other.process.name}`,
          ),
        close: (text) => {
          network.close(end, text);
          network.world.after(process, 2 * network.latencyUs(), 'has closed', () => finish(text));
        },
      },
      events,
    );
    takers.set(end, (bytes) => border.receive(bytes));
    end.onClose = (because) => finish(`its link closed (${because})`);
    events.onConnect(border.connection);
  });
  return () => {
    stop();
    for (const end of ends) network.close(end, 'the run is over');
  };
}
