// Links over WebSocket on TCP: between any two hosts, through anything that passes HTTP. Uncompressed, and masked with zeros
// (RFC 6455 asks clients for a mask against caches in between; zeros are a valid one and cost nothing). A shell.
//
// A message is one WebSocket message of its chunks as fragments, so that header and payload are not copied together.

import { timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { WebSocket, WebSocketServer } from 'ws';
import { LockstepError } from '../../../protocol/errors.ts';
import { MAX_FRAME_BYTES } from '../../../protocol/frame.ts';
import type { Link } from '../../../protocol/link.ts';

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Connections that wait to be claimed by the generation that they name. */
const MAX_UNCLAIMED = 256;

export interface PeerAddress {
  readonly generation: number;
  readonly rank: number;
}

export interface PeerListener {
  /** Where peers reach this worker. */
  readonly url: string;
  /** The link of rank `rank` in `generation`, now or when it comes. */
  accept(peer: PeerAddress): Promise<Link>;
  close(): Promise<void>;
}

function linkOf(socket: WebSocket): Link {
  let handler: ((bytes: Uint8Array) => void) | null = null;
  let early: Uint8Array[] = [];
  let bytesOut = 0;
  let bytesIn = 0;
  let reason: string | null = null;
  let pending = 0;
  const drains: (() => void)[] = [];
  let resolveClosed: (value: { because: string }) => void = () => {};
  const closed = new Promise<{ because: string }>((resolve) => {
    resolveClosed = resolve;
  });
  socket.binaryType = 'nodebuffer';
  socket.on('message', (data: Buffer) => {
    bytesIn += data.byteLength;
    if (handler === null) early.push(data);
    else handler(data);
  });
  socket.on('error', (error) => {
    reason ??= error.message;
  });
  socket.on('close', (code, text) => {
    resolveClosed({ because: reason ?? (text.length > 0 ? text.toString() : `closed with code ${code}`) });
    for (const resolve of drains.splice(0)) resolve();
  });
  const sent = (): void => {
    pending--;
    if (pending === 0) for (const resolve of drains.splice(0)) resolve();
  };
  return {
    send: (chunks) => {
      if (socket.readyState !== WebSocket.OPEN) return;
      for (const [i, chunk] of chunks.entries()) {
        bytesOut += chunk.byteLength;
        pending++;
        socket.send(chunk, { fin: i === chunks.length - 1, binary: true, compress: false }, sent);
      }
    },
    onMessage: (h) => {
      handler = h;
      const waiting = early;
      early = [];
      for (const bytes of waiting) h(bytes);
    },
    closed,
    drained: () =>
      pending === 0 || socket.readyState === WebSocket.CLOSED
        ? Promise.resolve()
        : new Promise((resolve) => {
            drains.push(resolve);
          }),
    close: (because) => {
      reason ??= because;
      socket.close(1000, because.slice(0, 120));
    },
    get bytesOut() {
      return bytesOut;
    },
    get bytesIn() {
      return bytesIn;
    },
  };
}

/** Compares a bearer token in constant time. `expected` null: none is asked for. */
function isAuthorized(request: IncomingMessage, expected: string | null): boolean {
  if (expected === null) return true;
  const given = Buffer.from(request.headers.authorization ?? '');
  const wanted = Buffer.from(`Bearer ${expected}`);
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

function refuseUpgrade(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

/** Listens on `host` (a free port) for the peers of `run`. */
export async function listenForPeers(options: {
  host: string;
  token: string | null;
  run: string;
}): Promise<PeerListener> {
  const server = createServer((_request, response) => {
    response.writeHead(404).end();
  });
  const sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: MAX_FRAME_BYTES });
  const unclaimed = new Map<string, Link>();
  const claims = new Map<string, (link: Link) => void>();
  const keyOf = (peer: PeerAddress): string => `${peer.generation}/${peer.rank}`;

  server.on('upgrade', (request, socket, head) => {
    const url = new URL(request.url ?? '/', 'ws://peer');
    const generation = Number(url.searchParams.get('generation') ?? Number.NaN);
    const rank = Number(url.searchParams.get('rank') ?? Number.NaN);
    if (request.headers.origin !== undefined) return refuseUpgrade(socket, '403 Forbidden');
    if (!isAuthorized(request, options.token)) return refuseUpgrade(socket, '401 Unauthorized');
    const key = keyOf({ generation, rank });
    const isWanted = url.pathname === '/peer' && url.searchParams.get('run') === options.run;
    if (!isWanted || !Number.isSafeInteger(generation) || !Number.isSafeInteger(rank)) {
      return refuseUpgrade(socket, '404 Not Found');
    }
    if (unclaimed.has(key) || unclaimed.size >= MAX_UNCLAIMED) return refuseUpgrade(socket, '409 Conflict');
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      if (socket instanceof Socket) socket.setNoDelay(true);
      const link = linkOf(webSocket);
      const claim = claims.get(key);
      if (claim === undefined) unclaimed.set(key, link);
      else {
        claims.delete(key);
        claim(link);
      }
    });
    return undefined;
  });
  server.listen(0, options.host);
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('a TCP server listens on a port');
  const host = options.host.includes(':') ? `[${options.host}]` : options.host;
  return {
    url: `ws://${host}:${address.port}`,
    accept: (peer) => {
      const key = keyOf(peer);
      const link = unclaimed.get(key);
      unclaimed.delete(key);
      if (link !== undefined) return Promise.resolve(link);
      return new Promise((resolve) => {
        claims.set(key, resolve);
      });
    },
    close: async () => {
      for (const socket of sockets.clients) socket.terminate();
      sockets.close();
      const end = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await end;
    },
  };
}

/** Connects to a peer's listener, saying who `self` is. Throws E_PEER_LOST. */
export async function connectToPeer(
  url: string,
  options: { token: string | null; run: string; self: PeerAddress },
): Promise<Link> {
  const address = new URL('/peer', url);
  address.searchParams.set('run', options.run);
  address.searchParams.set('generation', String(options.self.generation));
  address.searchParams.set('rank', String(options.self.rank));
  const socket = new WebSocket(address, {
    perMessageDeflate: false,
    maxPayload: MAX_FRAME_BYTES,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    generateMask: () => {}, // leaves the mask at zeros
    ...(options.token === null ? {} : { headers: { authorization: `Bearer ${options.token}` } }),
  });
  socket.on('upgrade', (response) => response.socket.setNoDelay(true));
  const link = linkOf(socket);
  try {
    await once(socket, 'open');
  } catch (cause) {
    throw new LockstepError(
      'E_PEER_LOST',
      `no link to the peer at ${url}: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
  return link;
}
