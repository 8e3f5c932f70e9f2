// Where a worker's peers reach it, and how it reaches them: over sockets and shared memory, or over a NATS server.

import type { NatsServer } from '../../../nats/server.ts';
import { BEAT_EVERY_MS, BUSY_SILENCE } from '../../../protocol/heartbeat.ts';
import type { Link } from '../../../protocol/link.ts';
import type { Tls } from '../../../protocol/tls.ts';
import type { PeerAddress } from '../links/waiting-room.ts';
import { connectToPeer, listenForPeers, type LocalWays, type PeerListener } from '../links/ws.ts';

/** How this worker's links are made. */
export interface LinkOptions {
  /** The address that this worker listens at, and its port; none: a free one. */
  readonly host: string;
  readonly port?: number;
  /** The address that peers reach this worker at, where that is another. */
  readonly announced?: string;
  /** The run's peer key, which peers must prove that they know; null: nothing is asked. */
  readonly token: string | null;
  readonly run: string;
  readonly ways?: LocalWays;
  /** What links over a network are encrypted with; null: they are not. */
  readonly tls?: Tls | null;
  /** All links go over this server, those within a machine, too. */
  readonly nats?: NatsServer;
}

export interface Meeting extends PeerListener {
  /**
   * Calls a peer, saying who `self` is and proving that by `pairKey`; `who` is what the peer is called in errors. Throws E_PEER_LOST,
   * E_UNAUTHORIZED or E_TLS.
   */
  connect(url: string, self: PeerAddress, who: string, pairKey?: string): Promise<Link>;
  /** Resolves when nobody can be met here any more: the connection to the NATS server has ended. Sockets have no such end. */
  readonly lost: Promise<void>;
}

/** Listens for peers; `onRefused` is told by which code one is not taken. Throws E_NATS_UNREACHABLE or E_NATS_REFUSED. */
export async function openMeeting(options: LinkOptions, onRefused: (code: string) => void): Promise<Meeting> {
  if (options.nats === undefined) {
    const listener = await listenForPeers({ ...options, onRefused });
    return {
      url: listener.url,
      accept: (peer, pairKey) => listener.accept(peer, pairKey),
      connect: (url, self, who, pairKey) => connectToPeer(url, { ...options, who, self, pairKey }),
      lost: new Promise(() => {}),
      close: () => listener.close(),
    };
  }
  // Where it is needed only: the client of NATS takes a tenth of a second to load.
  const [{ connectNats }, { connectOverNats, listenOverNats }] = await Promise.all([
    import('../../../nats/connect.ts'),
    import('../links/nats.ts'),
  ]);
  const { token, run } = options;
  // This thread is never held by an engine (startCommunication sees to that).
  const timing = { beatMs: BEAT_EVERY_MS, silence: BUSY_SILENCE };
  const nats = await connectNats(options.nats, `lockstep ${run}: gradients`, 'worker');
  const listener = await listenOverNats(nats, { token, run, timing, onRefused });
  return {
    url: listener.url,
    accept: (peer, pairKey) => listener.accept(peer, pairKey),
    connect: (url, self, _who, pairKey) => connectOverNats(nats, url, { token, run, self, pairKey, timing }),
    lost: new Promise((resolve) => {
      void nats.lost.then((error) => (error === null ? undefined : resolve()));
    }),
    close: async () => {
      await listener.close();
      await nats.close();
    },
  };
}
