// The peer "stock ws" of the all-reduce bench: the same collective over links of the `ws` library as a good user would set it up:
// no compression, no delay, no masking cost; whole messages, as it hands them over.

import { once } from 'node:events';
import { WebSocket, WebSocketServer } from 'ws';
import { encodeFrameHeader, FrameReader } from '../protocol/frame.ts';
import type { Link, LinkEnd } from '../protocol/link.ts';
import { inRankOrder, planFor, type Communication } from '../worker/collective/shell/generation.ts';
import { inPlace } from '../worker/collective/shell/in-place.ts';
import { linkUp } from '../worker/collective/shell/link-up.ts';

function linkOf(socket: WebSocket): Link {
  let bytesOut = 0;
  let bytesIn = 0;
  const early: Uint8Array[] = [];
  let take = (bytes: Uint8Array): void => void early.push(bytes);
  socket.on('message', (data: Buffer) => {
    bytesIn += data.byteLength;
    take(data);
  });
  const closed = once(socket, 'close').then((): LinkEnd => ({ because: 'closed', error: null }));
  return {
    transport: 'tcp',
    send: (header, payload) => {
      bytesOut += payload.byteLength;
      socket.send(encodeFrameHeader(header), { fin: false, binary: true, compress: false });
      socket.send(payload, { fin: true, binary: true, compress: false });
    },
    receive: (sink) => {
      const reader = new FrameReader(sink);
      take = (bytes) => reader.push(bytes);
      for (const bytes of early.splice(0)) take(bytes);
    },
    closed,
    drained: async () => {},
    close: () => socket.close(),
    cut: () => socket.terminate(),
    get bytesOut() {
      return bytesOut;
    },
    get bytesIn() {
      return bytesIn;
    },
  };
}

export async function openStockWs(): Promise<Communication> {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
  await once(server, 'listening');
  const came = new Map<string, Link>();
  const waits = new Map<string, (link: Link) => void>();
  server.on('connection', (socket, request) => {
    const key = request.url ?? '';
    const link = linkOf(socket);
    const wait = waits.get(key);
    if (wait === undefined) came.set(key, link);
    else wait(link);
  });
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    isLost: false,
    lost: new Promise(() => {}),
    url: `ws://127.0.0.1:${port}`,
    open: async (partial, members) => {
      const inOrder = inRankOrder(members);
      const plan = planFor(partial, inOrder);
      const links = await linkUp({
        rank: plan.rank,
        members: inOrder,
        connect: async (member) => {
          const options = { perMessageDeflate: false, generateMask: () => {} };
          const socket = new WebSocket(`${member.peerUrl}/${plan.generation}/${plan.rank}`, options);
          const link = linkOf(socket);
          await once(socket, 'open');
          return link;
        },
        accept: async (member) => {
          const key = `/${plan.generation}/${member.rank}`;
          const link = came.get(key);
          if (link !== undefined) return link;
          return new Promise((resolve) => {
            waits.set(key, resolve);
          });
        },
      });
      return inPlace(plan, inOrder, links);
    },
    close: async () => {
      for (const socket of server.clients) socket.terminate();
      server.close();
    },
  };
}
