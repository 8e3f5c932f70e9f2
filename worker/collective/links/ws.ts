// How two workers meet: a WebSocket handshake between the one that listens and the one that calls, over TCP or, on one machine,
// over a unix socket; there they go on through shared memory when both can. A shell: what they say afterwards is the links' own.
//
// The handshake says which run, generation and rank calls, and offers a shared-memory segment (`x-lockstep-segment`), which the other side
// accepts by repeating it. No secret travels: the caller proves by the run's peer key that it is a worker of the run, and by the key of the two
// ranks that it is the one that it says; the listener proves in its answer that it knows the peer key, too. A proof is of this call (a number drawn for
// it) at this door, so a recorded handshake is taken nowhere and by nobody again. What follows on a network without TLS can be read and changed.

import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readlinkSync } from 'node:fs';
import { createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http';
import { createServer as createSecureServer, request as httpsRequest } from 'node:https';
import type { Duplex } from 'node:stream';
import { connectionFault } from '../../../protocol/access.ts';
import { LockstepError } from '../../../protocol/errors.ts';
import { isSameSecret, proofBy } from '../../../protocol/keys.ts';
import type { Link, Transport } from '../../../protocol/link.ts';
import type { Tls } from '../../../protocol/tls.ts';
import { bootOf } from '../../timeline/machine-clock.ts';
import { callerOptions, tlsError } from '../../tls.ts';
import { system } from './mapping.ts';
import { createSegment, openSegment, type Segment } from './segment.ts';
import { SEGMENT_BYTES, shmLink } from './shm.ts';
import { MAX_MESSAGE_BYTES, socketLink } from './socket-link.ts';
import { WaitingRoom, type PairCheck, type PeerAddress } from './waiting-room.ts';
import { descriptorOf, WebSocketChannel } from './websocket.ts';

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Connections of peers, those included that have not said yet who they are. */
const MAX_CONNECTIONS = 1024;
/** Of a handshake's head. */
const MAX_HEAD_BYTES = 8 * 1024;
/** How often a listener looks whether a head takes too long. */
const LATE_LOOK_MS = 1000;
/** Calls that are remembered, so that no recorded one is taken again. */
const MAX_CALLS_REMEMBERED = 16_384;
/** RFC 6455, section 1.3. */
const WEBSOCKET_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
/**
 * What a unix socket may hold that has not been read: by default 208 KiB, so that a peer is woken for each. Larger, gradients of 4 and 25 MB
 * take 0.5 and 0.75 of the time. A TCP socket's grows by itself.
 */
const UNIX_BUFFER_BYTES = 2 * 1024 * 1024;
const SEGMENT_HEADER = 'x-lockstep-segment';
/** A number drawn for each call; proofs are over it. */
const CALL_HEADER = 'x-lockstep-call';
const CALL = /^[0-9a-f]{32}$/;
/** Of the caller by the two ranks' key, and of the listener by the peer key. */
const PAIR_HEADER = 'x-lockstep-pair';
const ANSWER_HEADER = 'x-lockstep-proof';
const SCHEME = 'Lockstep';

export interface PeerListener {
  /** Where peers reach this worker. */
  readonly url: string;
  /** The link of rank `rank` in `generation`, now or when it comes; it has shown that it knows `pairKey`, where there is one. */
  accept(peer: PeerAddress, pairKey?: string): Promise<Link>;
  close(): Promise<void>;
}

/** What a call proves that a key is known for: who calls whom, this once. */
interface Call extends PeerAddress {
  /** The listener's own: a number in its address. */
  readonly door: string;
  readonly call: string;
}

const callProof = (key: string, { generation, rank, door, call }: Call): string =>
  proofBy(key, 'call', generation, rank, door, call);
const answerProof = (key: string, { door, call }: Call): string => proofBy(key, 'answer', door, call);

/** What a caller shows: the headers of its handshake. */
export function callHeaders(keys: { peers: string; pair?: string | undefined }, call: Call): Record<string, string> {
  return {
    [CALL_HEADER]: call.call,
    authorization: `${SCHEME} ${callProof(keys.peers, call)}`,
    ...(keys.pair !== undefined && { [PAIR_HEADER]: callProof(keys.pair, call) }),
  };
}

const textOf = (header: string | string[] | undefined): string => (typeof header === 'string' ? header : '');

/** Which ways a worker may take to a peer of its own machine; over the network there is TCP alone. */
export interface LocalWays {
  readonly unix: boolean;
  readonly shm: boolean;
}

export const ALL_WAYS: LocalWays = { unix: true, shm: true };

/** The same text on processes that can reach each other's unix sockets by name: one boot of one machine, one network namespace. */
function machineName(): string | null {
  const boot = bootOf();
  if (boot === null) return null;
  try {
    return createHash('sha256')
      .update(`${boot} ${readlinkSync('/proc/self/ns/net')}`)
      .digest('hex')
      .slice(0, 16);
  } catch {
    return null;
  }
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
  /** The run's peer key; null: nothing is asked of who calls. */
  token: string | null;
  run: string;
  ways?: LocalWays;
  tls?: Tls | null;
  /** Told by which code a caller is refused. */
  onRefused?: (code: string) => void;
}): Promise<PeerListener> {
  const { ways = ALL_WAYS, token, onRefused = () => {} } = options;
  const identity = options.tls?.identity ?? null;
  const clientCa = options.tls?.clientCa ?? null;
  const door = randomBytes(8).toString('hex');
  const room = new WaitingRoom(onRefused);
  const channels = new Set<WebSocketChannel>();
  const calls = new Set<string>();
  const refuse = (socket: Duplex, status: string, code: string): void => {
    onRefused(code);
    refuseUpgrade(socket, status);
  };
  const remember = (call: string): void => {
    calls.add(call);
    const [oldest] = calls;
    if (calls.size > MAX_CALLS_REMEMBERED && oldest !== undefined) calls.delete(oldest);
  };

  const upgrade = (transport: Transport, request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    const url = new URL(request.url ?? '/', 'ws://peer');
    const generation = Number(url.searchParams.get('generation') ?? Number.NaN);
    const rank = Number(url.searchParams.get('rank') ?? Number.NaN);
    socket.on('error', () => {});
    const { headers } = request;
    const isOverNetwork = transport === 'tcp';
    if (headers.origin !== undefined) return refuse(socket, '403 Forbidden', 'E_ORIGIN');
    const hasCertificate = 'authorized' in request.socket && request.socket.authorized === true;
    if (isOverNetwork && clientCa !== null && !hasCertificate) return refuse(socket, '403 Forbidden', 'E_TLS');
    const call = { generation, rank, door, call: textOf(headers[CALL_HEADER]) };
    if (token !== null) {
      const isProven = isSameSecret(headers.authorization ?? '', `${SCHEME} ${callProof(token, call)}`);
      if (!isProven || !CALL.test(call.call)) return refuse(socket, '401 Unauthorized', 'E_UNAUTHORIZED');
    }
    const isWanted = url.pathname === '/peer' && url.searchParams.get('run') === options.run;
    if (!isWanted || !Number.isSafeInteger(generation) || !Number.isSafeInteger(rank)) {
      return refuse(socket, '404 Not Found', 'E_PROTOCOL');
    }
    const webSocketKey = headers['sec-websocket-key'];
    if (typeof webSocketKey !== 'string' || headers['sec-websocket-version'] !== '13') {
      return refuse(socket, '400 Bad Request', 'E_REQUEST');
    }
    if (token !== null && calls.has(call.call)) return refuse(socket, '409 Conflict', 'E_REPLAYED');
    const shown = textOf(headers[PAIR_HEADER]);
    const check: PairCheck | null = shown === '' ? null : (pairKey) => isSameSecret(shown, callProof(pairKey, call));
    const place = room.placeOf({ generation, rank }, check);
    if (place.kind === 'refused') return refuse(socket, place.status, place.code);
    if (token !== null) remember(call.call);
    const segment = transport === 'unix' && ways.shm ? offeredSegment(request) : null;
    socket.write(
      [
        'HTTP/1.1 101 Switching Protocols',
        'Upgrade: websocket',
        'Connection: Upgrade',
        `Sec-WebSocket-Accept: ${acceptKey(webSocketKey)}`,
        ...(token === null ? [] : [`${ANSWER_HEADER}: ${answerProof(token, call)}`]),
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
    place.take(link);
    return undefined;
  };
  const limits = {
    maxHeaderSize: MAX_HEAD_BYTES,
    headersTimeout: HANDSHAKE_TIMEOUT_MS,
    connectionsCheckingInterval: LATE_LOOK_MS,
  };
  const serve = (server: Server, transport: Transport): Server => {
    server.maxConnections = MAX_CONNECTIONS;
    return server
      .on('upgrade', (request, socket, head) => upgrade(transport, request, socket, head))
      .on('drop', () => onRefused('E_TOO_MANY'))
      .on('clientError', (error, socket) => {
        const fault = connectionFault(error);
        if (fault !== null) onRefused(fault);
        // Who calls a plain one over TLS knows it by the answer.
        if (socket.writable && fault !== 'E_TLS') socket.write('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
        socket.destroy();
      })
      .on('request', (_request, response) => response.writeHead(404).end());
  };
  const secure = {
    ...limits,
    ...identity,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    ...(clientCa !== null && { requestCert: true, rejectUnauthorized: false, ca: clientCa }),
  };

  const tcp = serve(identity === null ? createServer(limits) : createSecureServer(secure), 'tcp');
  await listenOn(tcp, options.host, options.port ?? 0);
  const servers = [tcp];
  const address = tcp.address();
  if (address === null || typeof address === 'string') throw new Error('a TCP server listens on a port');
  const announced = options.announced ?? options.host;
  const host = announced.includes(':') ? `[${announced}]` : announced;
  const url = new URL(`${identity === null ? 'ws' : 'wss'}://${host}:${address.port}/peer`);

  url.searchParams.set('door', door);
  const machine = ways.unix ? machineName() : null;
  if (machine !== null) {
    // A name in the kernel, not in a directory: nothing is left of it when the process ends.
    const name = `lockstep-${randomBytes(16).toString('hex')}`;
    const unix = serve(createServer(limits), 'unix');
    unix.listen(`\0${name}`);
    await once(unix, 'listening');
    servers.push(unix);
    url.searchParams.set('machine', machine);
    url.searchParams.set('unix', name);
  }
  return {
    url: url.href,
    accept: (peer, pairKey) => room.accept(peer, pairKey ?? null),
    close: async () => {
      room.close('the worker ends');
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

/** Who calls, and what it proves that by. */
interface Calling {
  /** The run's peer key; null: nothing is shown, and nothing asked of who answers. */
  readonly token: string | null;
  readonly run: string;
  readonly self: PeerAddress;
  /** Of this rank and the one that is called; none: nothing is shown of that. */
  readonly pairKey?: string | undefined;
}

/** One WebSocket handshake. Throws E_UNAUTHORIZED, E_PEER_LOST, or the system's error when nobody is there. */
async function upgradeTo(
  url: URL,
  options: Calling & { unix?: string; segment?: string; tls?: Tls | null },
): Promise<Upgraded> {
  const { self, run, token, pairKey, unix, segment, tls } = options;
  const key = randomBytes(16).toString('base64');
  const call = { ...self, door: url.searchParams.get('door') ?? '', call: randomBytes(16).toString('hex') };
  const query = new URLSearchParams({ run, generation: String(self.generation), rank: String(self.rank) });
  const common = {
    path: `${url.pathname}?${query.toString()}`,
    timeout: HANDSHAKE_TIMEOUT_MS,
    headers: {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': key,
      ...(token !== null && callHeaders({ peers: token, pair: pairKey }, call)),
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
      if (token !== null && !isSameSecret(textOf(response.headers[ANSWER_HEADER]), answerProof(token, call))) {
        socket.destroy();
        reject(new LockstepError('E_UNAUTHORIZED', "who answered does not know the run's token"));
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
  options: Calling & {
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
async function connectNearby(address: URL, unix: string, options: Calling, wantsShm: boolean): Promise<Link | null> {
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
