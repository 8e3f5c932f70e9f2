// Who may keep a connection to the coordinator's port: so many in all, so many from one network, and few that have shown nothing yet. A
// connection is proven once a request on it was let in; until then it has so long, and where there are too many of them the oldest makes
// room. So a flood of connections, or of ones that send a byte a second, costs the worker that comes among them nothing: it needs
// milliseconds, and the flood's own oldest are those that go. Pure; http/doors.ts has the sockets.

/** All connections at a time: the control links (control-connection.ts) with their hearts, pages, and others. */
export const CONNECTIONS_MAX = 4608;
/** Of one network: a host of the most workers that a run may have, with their hearts, and others. */
export const CONNECTIONS_PER_NETWORK_MAX = 2304;
export const UNPROVEN_MAX = 1024;
export const UNPROVEN_PER_NETWORK_MAX = 256;
/** From the connection to the end of its first request's head, TLS included. */
export const HANDSHAKE_MS = 10_000;

export interface DoorLimits {
  readonly connectionsMax: number;
  readonly connectionsPerNetworkMax: number;
  readonly unprovenMax: number;
  readonly unprovenPerNetworkMax: number;
  readonly handshakeMs: number;
}

const LIMITS: DoorLimits = {
  connectionsMax: CONNECTIONS_MAX,
  connectionsPerNetworkMax: CONNECTIONS_PER_NETWORK_MAX,
  unprovenMax: UNPROVEN_MAX,
  unprovenPerNetworkMax: UNPROVEN_PER_NETWORK_MAX,
  handshakeMs: HANDSHAKE_MS,
};

export type Arrival =
  /** `evicted`: another one that is closed for it; null: none. */
  { readonly kind: 'in'; readonly evicted: string | null } | { readonly kind: 'refused'; readonly because: string };

/** What counts as one caller: an IPv4 address; of IPv6, where one has 2^64 of them, the first 64 bits. */
export function networkOf(address: string): string {
  const plain = address.replace(/^::ffff:(?=\d)/i, '').replace(/%.*$/, '');
  if (!plain.includes(':')) return plain;
  const [head = '', tail] = plain.split('::', 2);
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : 8 - before.length - after.length;
  const groups = [...before, ...Array.from({ length: Math.max(0, zeros) }, () => '0'), ...after];
  const first = groups.slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16));
  return `${first.join(':')}::/64`;
}

interface Caller {
  count: number;
  /** Connections that have shown nothing, the oldest first. */
  readonly unproven: Set<string>;
}

export class Doorkeeper {
  private readonly limits: DoorLimits;
  private readonly networks = new Map<string, Caller>();
  private readonly connections = new Map<string, string>();
  /** When each came that has shown nothing, the oldest first. */
  private readonly unproven = new Map<string, number>();

  constructor(limits: Partial<DoorLimits> = {}) {
    this.limits = { ...LIMITS, ...limits };
  }

  /** @param id of the connection, which no other has at the time */
  arrive(id: string, address: string, nowMs: number): Arrival {
    const { limits } = this;
    const network = networkOf(address);
    const caller = this.networks.get(network) ?? { count: 0, unproven: new Set<string>() };
    const isFullOfOwn = caller.unproven.size >= limits.unprovenPerNetworkMax;
    const isFull = this.unproven.size >= limits.unprovenMax;
    const [ownOldest] = caller.unproven;
    const [oldest] = this.unproven.keys();
    const evicted =
      (isFullOfOwn || caller.count >= limits.connectionsPerNetworkMax ? ownOldest : undefined) ??
      (isFull || this.connections.size >= limits.connectionsMax ? oldest : undefined) ??
      null;
    if (evicted !== null) this.leave(evicted);
    if (caller.count >= limits.connectionsPerNetworkMax) {
      return { kind: 'refused', because: `${caller.count} connections from ${network}` };
    }
    if (this.connections.size >= limits.connectionsMax) {
      return { kind: 'refused', because: `${this.connections.size} connections` };
    }
    caller.count++;
    caller.unproven.add(id);
    this.networks.set(network, caller);
    this.connections.set(id, network);
    this.unproven.set(id, nowMs);
    return { kind: 'in', evicted };
  }

  /** A request on it was let in. */
  prove(id: string): void {
    this.unproven.delete(id);
    this.networks.get(this.connections.get(id) ?? '')?.unproven.delete(id);
  }

  leave(id: string): void {
    const network = this.connections.get(id);
    if (network === undefined) return;
    this.prove(id);
    this.connections.delete(id);
    const caller = this.networks.get(network);
    if (caller !== undefined && --caller.count === 0) this.networks.delete(network);
  }

  /** Those whose time is over; they have left. */
  late(nowMs: number): string[] {
    const found: string[] = [];
    for (const [id, sinceMs] of this.unproven) {
      if (nowMs - sinceMs < this.limits.handshakeMs) break;
      found.push(id);
    }
    for (const id of found) this.leave(id);
    return found;
  }

  get count(): number {
    return this.connections.size;
  }
}
