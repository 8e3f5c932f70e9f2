// A proxy on loopback between a worker that calls and one that listens, whose faults the test decides: bytes can be held, cut into
// pieces, injected, and the connection cut in the middle of a frame.

import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

/** What a proxy does with the bytes of one direction: it calls `forward` with them, whole or in pieces, now or later. */
export type Fault = (bytes: Uint8Array, forward: (bytes: Uint8Array) => void) => void;

/** Makes a fault for each direction of each connection, where one direction must not wait for the other. */
export interface FaultSource {
  readonly forDirection: () => Fault;
}

/**
 * A slow network: bytes leave one after the other at `bytesPerSecond`, and arrive `seconds` later, in pieces that take a few milliseconds
 * at most. Timers are as good as the event loop: it is meant for links that are slower than this machine by far.
 */
export function slowLink(bytesPerSecond: number, seconds: number): FaultSource {
  const pieceBytes = Math.max(1024, Math.min(65_536, Math.round(bytesPerSecond * 0.002)));
  return {
    forDirection: () => {
      const queue: { readonly bytes: Uint8Array; readonly dueMs: number }[] = [];
      let freeMs = 0;
      let isWaiting = false;
      return (bytes, forward) => {
        for (let at = 0; at < bytes.length; at += pieceBytes) {
          // The socket's buffer is used again.
          const piece = bytes.slice(at, at + pieceBytes);
          freeMs = Math.max(freeMs, performance.now()) + (1000 * piece.length) / bytesPerSecond;
          queue.push({ bytes: piece, dueMs: freeMs + 1000 * seconds });
        }
        const deliver = (): void => {
          while (queue.length > 0 && (queue[0]?.dueMs ?? 0) <= performance.now()) {
            const first = queue.shift();
            if (first !== undefined) forward(first.bytes);
          }
          isWaiting = queue.length > 0;
          const leftMs = (queue[0]?.dueMs ?? 0) - performance.now();
          // A timer is a millisecond late as a rule.
          if (isWaiting && leftMs > 2) setTimeout(deliver, leftMs - 1.5);
          else if (isWaiting) setImmediate(deliver);
        };
        if (!isWaiting) deliver();
      };
    },
  };
}

export interface Proxy {
  /** The peer's url with the proxy's addresses in it. */
  readonly url: string;
  /** Ends all connections at once. */
  cut(): void;
  /** Sends bytes to the listener as if the caller had. */
  inject(bytes: Uint8Array): void;
  close(): Promise<void>;
}

/** Stands before the listener at `target` (TCP and, where it has one, its unix socket). */
export async function proxyTo(
  target: string,
  fault: Fault | FaultSource = (bytes, forward) => forward(bytes),
): Promise<Proxy> {
  const pairs = new Set<{ caller: Socket; callee: Socket }>();
  const serve = async (listen: object, to: { path: string } | { host: string; port: number }): Promise<Server> => {
    const server = createServer({ noDelay: true }, (caller) => {
      const callee = connect({ ...to, noDelay: true });
      const pair = { caller, callee };
      pairs.add(pair);
      for (const [from, other] of [
        [caller, callee],
        [callee, caller],
      ] as const) {
        const through = typeof fault === 'function' ? fault : fault.forDirection();
        from.on('data', (bytes: Uint8Array) => {
          through(bytes, (piece) => {
            if (other.writable && !other.write(piece)) {
              from.pause();
              other.once('drain', () => from.resume());
            }
          });
        });
        from.on('error', () => other.destroy());
        from.on('end', () => other.end());
        from.on('close', () => {
          pairs.delete(pair);
          other.destroySoon();
        });
      }
    });
    server.listen(listen);
    await once(server, 'listening');
    return server;
  };
  type Server = ReturnType<typeof createServer>;

  const url = new URL(target);
  const tcp = await serve({ host: '127.0.0.1', port: 0 }, { host: url.hostname, port: Number(url.port) });
  const servers = [tcp];
  url.port = String((tcp.address() as { port: number }).port);
  const unix = url.searchParams.get('unix');
  if (unix !== null) {
    const name = `${unix}-proxy`;
    servers.push(await serve({ path: `\0${name}` }, { path: `\0${unix}` }));
    url.searchParams.set('unix', name);
  }
  const cut = (): void => {
    for (const { caller, callee } of pairs) {
      caller.destroy();
      callee.destroy();
    }
  };
  return {
    url: url.href,
    cut,
    inject: (bytes) => {
      for (const { callee } of pairs) callee.write(bytes);
    },
    close: async () => {
      cut();
      await Promise.all(
        servers.map(async (server) => {
          server.close();
          await once(server, 'close');
        }),
      );
    },
  };
}
