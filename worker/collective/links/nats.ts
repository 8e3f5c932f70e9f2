// Links over a NATS server, for workers that cannot reach each other: frames on a stream of bytes (nats/stream.ts). A shell.

import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { Nats } from '../../../nats/connect.ts';
import { callOn, listenOn } from '../../../nats/meet.ts';
import { subjectOf } from '../../../nats/server.ts';
import type { NatsStream, StreamTiming } from '../../../nats/stream.ts';
import { encodeFrameHeader, FrameReader } from '../../../protocol/frame.ts';
import { isSameSecret, proofBy } from '../../../protocol/keys.ts';
import type { Link } from '../../../protocol/link.ts';
import { WaitingRoom, type PairCheck, type PeerAddress } from './waiting-room.ts';
import type { PeerListener } from './ws.ts';

const aboutSchema = z.strictObject({
  generation: z.int().min(0),
  rank: z.int().min(0),
  /** By the key of the two ranks: that it is the one that it says. That the call is no recorded one is nats/meet.ts's to see. */
  pair: z.string().max(64).optional(),
});

const pairProof = (key: string, subject: string, { generation, rank }: PeerAddress): string =>
  proofBy(key, 'call', generation, rank, subject);

export interface NatsLinkOptions {
  /** The run's peer key. */
  readonly token: string | null;
  readonly run: string;
  readonly timing?: StreamTiming;
}

function linkOn(stream: NatsStream): Link {
  return {
    transport: 'nats',
    send: (header, payload) => stream.send(encodeFrameHeader(header), payload),
    receive: (sink) => {
      const reader = new FrameReader(sink);
      stream.receive((bytes) => reader.push(bytes));
    },
    closed: stream.closed,
    drained: () => stream.drained(),
    close: (because) => stream.close(because),
    cut: () => stream.lose('the link was cut'),
    get bytesOut() {
      return stream.bytesOut;
    },
    get bytesIn() {
      return stream.bytesIn;
    },
  };
}

/** Listens for the peers of a run on a subject of its own. Closing it leaves the connection open. */
export async function listenOverNats(
  nats: Nats,
  options: NatsLinkOptions & { readonly onRefused?: (code: string) => void },
): Promise<PeerListener> {
  const { token, run, timing, onRefused = () => {} } = options;
  const subject = `lockstep.${subjectOf(run)}.peer.${randomBytes(16).toString('hex')}`;
  const room = new WaitingRoom(onRefused);
  const listening = await listenOn(nats, subject, {
    token,
    ...(timing === undefined ? {} : { timing }),
    onRefused,
    onCall: (about, open) => {
      const caller = aboutSchema.safeParse(about);
      if (!caller.success) return '400 malformed';
      const { pair, ...peer } = caller.data;
      const check: PairCheck | null =
        pair === undefined ? null : (pairKey) => isSameSecret(pair, pairProof(pairKey, subject, peer));
      const place = room.placeOf(peer, check);
      if (place.kind === 'refused') {
        onRefused(place.code);
        return `${place.status} ${place.code}`;
      }
      place.take(linkOn(open()));
      return null;
    },
  });
  return {
    url: `nats:${subject}`,
    accept: (peer, pairKey) => room.accept(peer, pairKey ?? null),
    close: async () => {
      room.close('the worker ends');
      await listening.close();
    },
  };
}

/** Calls a peer on its subject, saying who `self` is. Throws E_PEER_LOST or E_UNAUTHORIZED. */
export async function connectOverNats(
  nats: Nats,
  url: string,
  options: NatsLinkOptions & { readonly self: PeerAddress; readonly pairKey?: string | undefined },
): Promise<Link> {
  const { token, self, pairKey, timing } = options;
  const subject = url.slice('nats:'.length);
  const { generation, rank } = self;
  const stream = await callOn(nats, subject, {
    token,
    about: { generation, rank, ...(pairKey !== undefined && { pair: pairProof(pairKey, subject, self) }) },
    whom: `the peer at ${url}`,
    lostCode: 'E_PEER_LOST',
    ...(timing === undefined ? {} : { timing }),
  });
  return linkOn(stream);
}
