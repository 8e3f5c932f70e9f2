// Links over a NATS server, for workers that cannot reach each other: frames on a stream of bytes (nats/stream.ts). A shell.

import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import type { Nats } from '../../../nats/connect.ts';
import { callOn, listenOn } from '../../../nats/meet.ts';
import { subjectOf } from '../../../nats/server.ts';
import type { NatsStream, StreamTiming } from '../../../nats/stream.ts';
import { encodeFrameHeader, FrameReader } from '../../../protocol/frame.ts';
import type { Link } from '../../../protocol/link.ts';
import type { PeerAddress, PeerListener } from './ws.ts';

/** Links that wait to be claimed by the generation that they name. */
const MAX_UNCLAIMED = 256;

const aboutSchema = z.strictObject({ generation: z.int().min(0), rank: z.int().min(0) });

export interface NatsLinkOptions {
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
export async function listenOverNats(nats: Nats, options: NatsLinkOptions): Promise<PeerListener> {
  const { token, run, timing } = options;
  const subject = `lockstep.${subjectOf(run)}.peer.${randomBytes(16).toString('hex')}`;
  const unclaimed = new Map<string, Link>();
  const claims = new Map<string, (link: Link) => void>();
  const keyOf = (peer: PeerAddress): string => `${peer.generation}/${peer.rank}`;
  const listening = await listenOn(nats, subject, {
    token,
    ...(timing === undefined ? {} : { timing }),
    onRefused: () => {},
    onCall: (about, open) => {
      const caller = aboutSchema.safeParse(about);
      if (!caller.success) return '400 malformed';
      const key = keyOf(caller.data);
      if (unclaimed.has(key)) return '409 there is one already';
      const claim = claims.get(key);
      if (claim === undefined && unclaimed.size >= MAX_UNCLAIMED) return '503 too many';
      const link = linkOn(open());
      if (claim === undefined) unclaimed.set(key, link);
      else {
        claims.delete(key);
        claim(link);
      }
      return null;
    },
  });
  return {
    url: `nats:${subject}`,
    accept: async (peer) => {
      const key = keyOf(peer);
      const link = unclaimed.get(key);
      unclaimed.delete(key);
      if (link !== undefined) return link;
      return new Promise((resolve) => {
        claims.set(key, resolve);
      });
    },
    close: async () => {
      for (const link of unclaimed.values()) link.close('the worker ends');
      await listening.close();
    },
  };
}

/** Calls a peer on its subject, saying who `self` is. Throws E_PEER_LOST or E_UNAUTHORIZED. */
export async function connectOverNats(
  nats: Nats,
  url: string,
  options: NatsLinkOptions & { readonly self: PeerAddress },
): Promise<Link> {
  const { token, self, timing } = options;
  const stream = await callOn(nats, url.slice('nats:'.length), {
    token,
    about: { generation: self.generation, rank: self.rank },
    whom: `the peer at ${url}`,
    lostCode: 'E_PEER_LOST',
    ...(timing === undefined ? {} : { timing }),
  });
  return linkOn(stream);
}
