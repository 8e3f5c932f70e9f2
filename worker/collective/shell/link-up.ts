// One link to each peer of a generation: the higher rank calls, the lower one waits for it.

import { LockstepError } from '../../../protocol/errors.ts';
import type { Link } from '../../../protocol/link.ts';
import { PeerFault } from './exchange.ts';
import type { Meeting } from './meeting.ts';

/**
 * Time for all links of a generation to come up: longer than an engine may hold its thread before it hears of the generation. A member
 * that has died is known earlier, by the coordinator, which then opens another generation.
 */
const LINK_UP_TIMEOUT_MS = 120_000;

export interface Member {
  readonly worker: string;
  readonly rank: number;
  readonly peerUrl: string;
  readonly host: string;
  /** By which it and this rank know each other in this generation; none: by nothing. */
  readonly key?: string | undefined;
}

/** The links of a generation's rank, by peer. Throws E_PEER_LOST or E_TLS. */
export async function openLinks(
  self: { readonly generation: number; readonly rank: number },
  members: readonly Member[],
  meeting: Meeting,
  signal?: AbortSignal,
): Promise<Map<number, Link>> {
  const { generation, rank } = self;
  return linkUp({
    rank,
    members,
    connect: async (member) => {
      const who = nameOf(members, member.rank);
      try {
        return await meeting.connect(member.peerUrl, { generation, rank }, who, member.key);
      } catch (error) {
        // All have joined the run and know its keys: who does not is not the worker that it says, and the run can go on without it.
        if (!(error instanceof LockstepError && error.code === 'E_UNAUTHORIZED')) throw error;
        throw new PeerFault(member.rank, 'E_PEER_LOST', error.message, error);
      }
    },
    accept: (member) => meeting.accept({ generation, rank: member.rank }, member.key),
    ...(signal !== undefined && { signal }),
  });
}

/** How a peer is called in errors. */
export function nameOf(members: readonly Member[], rank: number): string {
  const member = members.find((m) => m.rank === rank);
  return `rank ${rank}${member === undefined ? '' : ` (${member.worker} on ${member.host})`}`;
}

/** What a signal was aborted with. */
export function reasonOf({ reason }: AbortSignal): Error {
  return reason instanceof Error ? reason : new Error(String(reason));
}

/** Throws E_PEER_LOST naming the ranks that are missing, what `connect` and `accept` throw, or what `signal` is aborted with. */
export async function linkUp(options: {
  rank: number;
  members: readonly Member[];
  connect: (member: Member) => Promise<Link>;
  accept: (member: Member) => Promise<Link>;
  timeoutMs?: number;
  signal?: AbortSignal;
}): Promise<Map<number, Link>> {
  const { rank, members, timeoutMs = LINK_UP_TIMEOUT_MS, signal } = options;
  const links = new Map<number, Link>();
  const peers = members.filter((m) => m.rank !== rank);
  let isLate = false;
  const joining = Promise.all(
    peers.map(async (peer) => {
      const link = await (peer.rank < rank ? options.connect(peer) : options.accept(peer));
      if (isLate) link.close('too late');
      links.set(peer.rank, link);
    }),
  );
  // Whatever ends the waiting first, what the others say later is no error of anybody.
  joining.catch(() => undefined);
  let timer: NodeJS.Timeout | undefined;
  let stopListening = (): void => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    const onAbort = (): void => {
      if (signal !== undefined) reject(reasonOf(signal));
    };
    if (signal?.aborted === true) onAbort();
    signal?.addEventListener('abort', onAbort);
    stopListening = () => signal?.removeEventListener('abort', onAbort);
  });
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      isLate = true;
      const missing = peers.filter((p) => !links.has(p.rank)).map((p) => nameOf(members, p.rank));
      reject(new LockstepError('E_PEER_LOST', `no link within ${timeoutMs / 1000} s to ${missing.join(', ')}`));
    }, timeoutMs);
  });
  try {
    await Promise.race([joining, late, aborted]);
    return links;
  } catch (error) {
    isLate = true;
    for (const link of links.values()) link.close('not every rank is here');
    throw error;
  } finally {
    clearTimeout(timer);
    stopListening();
  }
}
