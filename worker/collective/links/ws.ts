// How two workers meet: a WebSocket handshake between the one that listens and the one that calls, over TCP or, on one machine,
// over a unix socket; there they go on through shared memory when both can. A shell: what they say afterwards is the links' own.
//
// The handshake says which run, generation and rank calls, carries the run's token, and offers a shared-memory segment
// (`x-lockstep-segment`), which the other side accepts by repeating it.

import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, readlinkSync } from 'node:fs';
import { createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http';
import { createServer as createSecureServer, request as httpsRequest } from 'node:https';
import type { Duplex } from 'node:stream';
import { LockstepError } from '../../../protocol/errors.ts';
import type { Link, Transport } from '../../../protocol/link.ts';
import type { Tls } from '../../../protocol/tls.ts';
import { callerOptions, tlsError } from '../../tls.ts';
import { system } from './mapping.ts';
import { createSegment, openSegment, type Segment } from './segment.ts';
import { SEGMENT_BYTES, shmLink } from './shm.ts';
import { MAX_MESSAGE_BYTES, socketLink } from './socket-link.ts';
import { descriptorOf, WebSocketChannel } from './websocket.ts';

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Connections that wait to be claimed by the generation that they name. */
const MAX_UNCLAIMED = 256;
/** RFC 6455, section 1.3. */
const WEBSOCKET_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
/**
 * What a unix socket may hold that has not been read: by default 208 KiB, so that a peer is woken for each. Larger, gradients of 4 and 25 MB
 * take 0.5 and 0.75 of the time. A TCP socket's grows by itself.
 */
const UNIX_BUFFER_BYTES = 2 * 1024 * 1024;
const SEGMENT_HEADER = 'x-lockstep-segment';

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

/** Which ways a worker may take to a peer of its own machine; over the network there is TCP alone. */
export interface LocalWays {
  readonly unix: boolean;
  readonly shm: boolean;
}

export const ALL_WAYS: LocalWays = { unix: true, shm: true };

/** The same text on processes that can reach each other's unix sockets by name: one boot of one machine, one network namespace. */
function machineName(): string | null {
  if (process.platform !== 'linux') return null;
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    return createHash('sha256')
      .update(`${boot} ${readlinkSync('/proc/self/ns/net')}`)
      .digest('hex')
      .slice(0, 16);
  } catch {
    return null;
  }
}

/** Compares a bearer token by hash: neither content nor length of it shows in the time taken. `expected` null: none is asked for. */
function isAuthorized(request: IncomingMessage, expected: string | null): boolean {
  if (expected === null) return true;
  const hash = (text: string): Buffer => createHash('sha256').update(text).digest();
  return timingSafeEqual(hash(request.headers.authorization ?? ''), hash(`Bearer ${expected}`));
}

function acceptKey(key: string): string {
  return createHash('sha1')
    .update(key + WEBSOCKET_GUID)
    .digest('base64');
}

function refuseUpgrade(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

/** The segment that a caller offers; null when it offers none, or this side can't reach it: they go on over the socket. */
function offeredSegment(request: IncomingMessage): Segment | null {
  const name = request.headers[SEGMENT_HEADER];
  if (typeof name !== 'string') return null;
  try {
    return openSegment(name, SEGMENT_BYTES);
  } catch {
    return null;
  }
}

/**
 * Listens on `host` and `port` (0 or none: a free one), and on a unix socket, for the peers of `run`; `announced` is the address that
 * they are told, where `host` is all of this machine's. With TLS where it has a certificate. Throws E_LISTEN or E_PORT_IN_USE.
 */
export async function listenForPeers(options: {
  host: string;
  port?: number;
  announced?: string;
  token: string | null;
  run: string;
  ways?: LocalWays;
  tls?: Tls | null;
}): Promise<PeerListener> {
  const { ways = ALL_WAYS } = options;
  const identity = options.tls?.identity ?? null;
  const unclaimed = new Map<string, Link>();
  const claims = new Map<string, (link: Link) => void>();
  const channels = new Set<WebSocketChannel>();
  const keyOf = (peer: PeerAddress): string => `${peer.generation}/${peer.rank}`;

  const upgrade = (transport: Transport, request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    const url = new URL(request.url ?? '/', 'ws://peer');
    const generation = Number(url.searchParams.get('generation') ?? Number.NaN);
    const rank = Number(url.searchParams.get('rank') ?? Number.NaN);
    socket.on('error', () => {});
    if (request.headers.origin !== undefined) return refuseUpgrade(socket, '403 Forbidden');
    if (!isAuthorized(request, options.token)) return refuseUpgrade(socket, '401 Unauthorized');
    const key = keyOf({ generation, rank });
    const isWanted = url.pathname === '/peer' && url.searchParams.get('run') === options.run;
    if (!isWanted || !Number.isSafeInteger(generation) || !Number.isSafeInteger(rank)) {
      return refuseUpgrade(socket, '404 Not Found');
    }
    const webSocketKey = request.headers['sec-websocket-key'];
    if (typeof webSocketKey !== 'string' || request.headers['sec-websocket-version'] !== '13') {
      return refuseUpgrade(socket, '400 Bad Request');
    }
    if (unclaimed.has(key) || unclaimed.size >= MAX_UNCLAIMED) return refuseUpgrade(socket, '409 Conflict');
    const segment = transport === 'unix' && ways.shm ? offeredSegment(request) : null;
    socket.write(
      [
        'HTTP/1.1 101 Switching Protocols',
        'Upgrade: websocket',
        'Connection: Upgrade',
        `Sec-WebSocket-Accept: ${acceptKey(webSocketKey)}`,
        ...(segment === null ? [] : [`${SEGMENT_HEADER}: ${segment.name}`]),
        '\r\n',
      ].join('\r\n'),
    );
    const channel = new WebSocketChannel(socket, { isClient: false, head, maxMessageBytes: MAX_MESSAGE_BYTES });
    channels.add(channel);
    void channel.closed.then(() => channels.delete(channel));
    const link =
      segment !== null
        ? shmLink(segment, channel, 1)
        : transport === 'unix'
          ? unixLink(socket, channel)
          : socketLink(channel, transport);
    const claim = claims.get(key);
    if (claim === undefined) {
      unclaimed.set(key, link);
      // Who called in vain has given up: a generation that never began.
      void link.closed.then(() => {
        if (unclaimed.get(key) === link) unclaimed.delete(key);
      });
    } else {
      claims.delete(key);
      claim(link);
    }
    return undefined;
  };
  const serve = (server: Server, transport: Transport): Server =>
    server
      .on('upgrade', (request, socket, head) => upgrade(transport, request, socket, head))
      .on('request', (_request, response) => response.writeHead(404).end());

  const tcp = serve(identity === null ? createServer() : createSecureServer(identity), 'tcp');
  await listenOn(tcp, options.host, options.port ?? 0);
  const servers = [tcp];
  const address = tcp.address();
  if (address === null || typeof address === 'string') throw new Error('a TCP server listens on a port');
  const announced = options.announced ?? options.host;
  const host = announced.includes(':') ? `[${announced}]` : announced;
  const url = new URL(`${identity === null ? 'ws' : 'wss'}://${host}:${address.port}/peer`);

  const machine = ways.unix ? machineName() : null;
  if (machine !== null) {
    // A name in the kernel, not in a directory: nothing is left of it when the process ends.
    const name = `lockstep-${randomBytes(16).toString('hex')}`;
    const unix = serve(createServer(), 'unix');
    unix.listen(`\0${name}`);
    await once(unix, 'listening');
    servers.push(unix);
    url.searchParams.set('machine', machine);
    url.searchParams.set('unix', name);
  }
  return {
    url: url.href,
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
      for (const link of unclaimed.values()) link.close('the worker ends');
      for (const channel of channels) channel.destroy();
      await Promise.all(
        servers.map(async (server) => {
          const end = once(server, 'close');
          server.close();
          server.closeAllConnections();
          await end;
        }),
      );
    },
  };
}

async function listenOn(server: Server, host: string, port: number): Promise<void> {
  try {
    server.listen(port, host);
    await once(server, 'listening');
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    const isTaken = why.includes('EADDRINUSE');
    throw new LockstepError(isTaken ? 'E_PORT_IN_USE' : 'E_LISTEN', `cannot listen for peers: ${why}`, {
      remedy: isTaken
        ? 'Give another port with --peer-listen, or port 0 for a free one: each worker needs one of its own.'
        : 'Give an address of this machine with --peer-listen.',
      cause,
    });
  }
}

interface Upgraded {
  readonly response: IncomingMessage;
  readonly socket: Duplex;
  readonly head: Buffer;
}

/** One WebSocket handshake. Throws E_UNAUTHORIZED, E_PEER_LOST, or the system's error when nobody is there. */
async function upgradeTo(
  url: URL,
  options: { token: string | null; self: PeerAddress; run: string; unix?: string; segment?: string; tls?: Tls | null },
): Promise<Upgraded> {
  const { self, run, token, unix, segment, tls } = options;
  const key = randomBytes(16).toString('base64');
  const query = new URLSearchParams({ run, generation: String(self.generation), rank: String(self.rank) });
  const common = {
    path: `${url.pathname}?${query.toString()}`,
    timeout: HANDSHAKE_TIMEOUT_MS,
    headers: {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': key,
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      ...(segment === undefined ? {} : { [SEGMENT_HEADER]: segment }),
    },
  };
  const place = { host: url.hostname.replace(/^\[|\]$/g, ''), port: url.port };
  const request =
    unix !== undefined
      ? httpRequest({ ...common, socketPath: `\0${unix}` })
      : url.protocol === 'wss:'
        ? httpsRequest({ ...common, ...place, ...callerOptions(tls ?? null) })
        : httpRequest({ ...common, ...place });
  return new Promise((resolve, reject) => {
    request.on('upgrade', (response, socket, head) => {
      if (response.headers['sec-websocket-accept'] !== acceptKey(key)) {
        socket.destroy();
        reject(new LockstepError('E_PEER_LOST', 'what answers there is no WebSocket'));
        return;
      }
      socket.setTimeout(0);
      resolve({ response, socket, head });
    });
    request.on('response', (response) => {
      response.destroy();
      const refused = `it answered ${response.statusCode} ${response.statusMessage}`;
      reject(new LockstepError(response.statusCode === 401 ? 'E_UNAUTHORIZED' : 'E_PEER_LOST', refused));
    });
    request.on('timeout', () => request.destroy(new Error(`no answer within ${HANDSHAKE_TIMEOUT_MS / 1000} s`)));
    request.on('error', reject);
    request.end();
  });
}

/** What an address is that only its own machine reaches. */
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/i;

/**
 * Connects to a peer's listener, saying who `self` is, by the best way there is; with `tls`, not over a network without it.
 * Throws E_PEER_LOST, E_UNAUTHORIZED or E_TLS.
 */
export async function connectToPeer(
  url: string,
  options: {
    token: string | null;
    run: string;
    self: PeerAddress;
    /** How the peer is called in errors. */
    who?: string;
    ways?: LocalWays;
    tls?: Tls | null;
  },
): Promise<Link> {
  const { ways = ALL_WAYS, who = 'the peer' } = options;
  const address = new URL(url);
  const unix = address.searchParams.get('unix');
  const isNear = ways.unix && unix !== null && address.searchParams.get('machine') === machineName();
  try {
    if (isNear) {
      const link = await connectNearby(address, unix, options, ways.shm);
      if (link !== null) return link;
    }
    if ((options.tls ?? null) !== null && address.protocol !== 'wss:') throw hasNoTls();
    const { socket, head } = await upgradeTo(address, options);
    return socketLink(
      new WebSocketChannel(socket, { isClient: true, head, maxMessageBytes: MAX_MESSAGE_BYTES }),
      'tcp',
    );
  } catch (cause) {
    const fault = await tlsError(who, address, cause);
    if (fault !== null) throw fault;
    const why = cause instanceof Error ? cause.message : String(cause);
    const { code, remedy } =
      cause instanceof LockstepError ? cause : { code: 'E_PEER_LOST' as const, remedy: undefined };
    const hint =
      remedy ?? (LOOPBACK.test(address.hostname) ? ANNOUNCE_ANOTHER : 'See whether a firewall is between them.');
    throw new LockstepError(code, `no link to ${who} at ${address.host}: ${why}`, { remedy: hint, cause });
  }
}

const ANNOUNCE_ANOTHER =
  'Only its own machine reaches a peer there: start it with the address that others have for its coordinator, or with --peer-listen.';

function hasNoTls(): LockstepError {
  return new LockstepError('E_TLS', 'it has no certificate, and this run does not go over a network without TLS', {
    remedy: 'Start that worker with --tls-cert and --tls-key.',
  });
}

/** A link on this machine; null when the unix socket can't be reached after all (another user's sandbox). */
async function connectNearby(
  address: URL,
  unix: string,
  options: { token: string | null; run: string; self: PeerAddress },
  wantsShm: boolean,
): Promise<Link | null> {
  const segment = wantsShm ? offer() : null;
  try {
    const offered = segment === null ? {} : { segment: segment.name };
    const { response, socket, head } = await upgradeTo(address, { ...options, unix, ...offered });
    const channel = new WebSocketChannel(socket, { isClient: true, head, maxMessageBytes: MAX_MESSAGE_BYTES });
    const isShared = segment !== null && response.headers[SEGMENT_HEADER] === segment.name;
    if (isShared) return shmLink(segment, channel, 0);
    segment?.close();
    return unixLink(socket, channel);
  } catch (error) {
    segment?.close();
    if (error instanceof LockstepError) throw error;
    return null;
  } finally {
    segment?.forget();
  }
}

/** A link over a unix socket: `socket` is what `channel` began with. */
function unixLink(socket: Duplex, channel: WebSocketChannel): Link {
  const fd = descriptorOf(socket);
  try {
    if (fd !== null) system().growSendBuffer(fd, UNIX_BUFFER_BYTES);
  } catch {
    // Without the system's calls there is the usual buffer: slower, the same link.
  }
  return socketLink(channel, 'unix');
}

function offer(): Segment | null {
  try {
    return createSegment(SEGMENT_BYTES);
  } catch {
    return null; // the link says that it is one over a socket
  }
}
