// The sockets of the coordinator's port, as the doorkeeper (core/doorkeeper.ts) wants them: refused, closed for another, cut when they have
// shown nothing in time. A shell: it has the clock.

import type { IncomingMessage } from 'node:http';
import type { Server, Socket } from 'node:net';
import { Doorkeeper, type DoorLimits } from '../core/doorkeeper.ts';

const LOOK_EVERY_MS = 250;

export interface Doors {
  watch(server: Server): void;
  /** A request on its connection was let in. */
  prove(request: IncomingMessage): void;
  close(): void;
}

/** The same for a socket and for what TLS makes of it. */
const idOf = ({ remoteAddress = '', remotePort = 0 }: Pick<Socket, 'remoteAddress' | 'remotePort'>): string =>
  `${remoteAddress} ${remotePort}`;

export function guardDoors(
  onRefused: (code: 'E_TOO_MANY' | 'E_HANDSHAKE') => void,
  limits: Partial<DoorLimits> = {},
): Doors {
  const keeper = new Doorkeeper(limits);
  const sockets = new Map<string, Socket>();
  const cut = (id: string): void => {
    sockets.get(id)?.destroy();
    sockets.delete(id);
  };
  const onConnection = (socket: Socket): void => {
    const id = idOf(socket);
    const arrival = keeper.arrive(id, socket.remoteAddress ?? '', performance.now());
    if (arrival.kind === 'refused') {
      onRefused('E_TOO_MANY');
      socket.destroy();
      return;
    }
    if (arrival.evicted !== null) {
      onRefused('E_TOO_MANY');
      cut(arrival.evicted);
    }
    sockets.set(id, socket);
    socket.once('close', () => {
      if (sockets.get(id) !== socket) return;
      sockets.delete(id);
      keeper.leave(id);
    });
  };
  const timer = setInterval(() => {
    for (const id of keeper.late(performance.now())) {
      onRefused('E_HANDSHAKE');
      cut(id);
    }
  }, LOOK_EVERY_MS);
  timer.unref();
  return {
    watch: (server) => {
      server.on('connection', onConnection);
    },
    prove: ({ socket }) => keeper.prove(idOf(socket)),
    close: () => clearInterval(timer),
  };
}
