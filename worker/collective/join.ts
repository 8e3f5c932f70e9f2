// Links one rank up with all others of its generation, and runs the all-reduce over them. The shell around all-reduce.ts and
// tree.ts: sockets and the clock are here, no decision about sums.

import { decodeFrame, encodeFrameHeader } from '../../protocol/frame.ts';
import { LockstepError } from '../../protocol/errors.ts';
import type { Link } from '../../protocol/link.ts';
import type { AllReduceTiming, Collective } from '../train.ts';
import { AllReduce, type Outgoing } from './all-reduce.ts';
import { connectToPeer, type PeerListener } from './links/ws.ts';
import { planCollective } from './plan.ts';
import { Fold } from './tree.ts';

/** Time for all links of a generation to come up. */
const LINK_UP_TIMEOUT_MS = 30_000;

export interface Member {
  readonly worker: string;
  readonly rank: number;
  readonly peerUrl: string;
  readonly host: string;
}

export interface OpenCollective extends Collective {
  close(): Promise<void>;
}

export async function openCollective(options: {
  listener: PeerListener;
  token: string | null;
  run: string;
  generation: number;
  rank: number;
  worldSize: number;
  members: readonly Member[];
  microbatches: number;
  /** Floats of a step's vector. */
  vectorLength: number;
  bucketFloats?: number;
}): Promise<OpenCollective> {
  const { generation, rank, worldSize } = options;
  const plan = planCollective({
    worldSize,
    microbatches: options.microbatches,
    length: options.vectorLength,
    ...(options.bucketFloats === undefined ? {} : { bucketFloats: options.bucketFloats }),
  });
  const core = new AllReduce(plan, rank, generation);
  const fold = new Fold(options.vectorLength);
  const links = await linkUp(options);

  let closing = false;
  let failure: Error | null = null;
  /** Wakes the step in flight when something has changed. */
  let wake: () => void = () => {};
  const fail = (error: Error): void => {
    failure ??= error;
    wake();
  };
  const send = (outgoing: readonly Outgoing[]): void => {
    for (const { to, header, payload } of outgoing) {
      const bytes = new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength);
      links.get(to)?.send(payload.length === 0 ? [encodeFrameHeader(header)] : [encodeFrameHeader(header), bytes]);
    }
  };
  for (const [peer, link] of links) {
    const name = nameOf(options.members, peer);
    link.onMessage((bytes) => {
      if (failure !== null) return;
      try {
        send(core.receive(peer, decodeFrame(bytes)));
        wake();
      } catch (error) {
        link.close('protocol error');
        fail(error instanceof Error ? error : new Error(String(error)));
      }
    });
    void link.closed.then(({ because }) => {
      if (!closing) fail(new LockstepError('E_PEER_LOST', `the link to ${name} is lost: ${because}`));
    });
  }

  const bytes = (direction: 'bytesOut' | 'bytesIn'): number => {
    let sum = 0;
    for (const link of links.values()) sum += link[direction];
    return sum;
  };

  const until = async (holds: () => boolean): Promise<void> => {
    while (!holds()) {
      if (failure !== null) throw failure;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };

  return {
    rank,
    worldSize,
    push: (index, vector) => fold.push(index, vector),
    allReduce: async (step, out): Promise<AllReduceTiming> => {
      const startedAt = performance.now();
      const [outBefore, inBefore] = [bytes('bytesOut'), bytes('bytesIn')];
      send(core.begin(step, fold.partials(), out));
      // Once a step at least the process listens to others than its peers: a lone worker has nobody else to wait for.
      await nextTurn();
      await until(() => core.everyoneHeard || core.done);
      const heardAt = performance.now();
      await until(() => core.done);
      // `out` is sent from in place: it must have left before the caller may change it.
      await Promise.all([...links.values()].map((link) => link.drained()));
      core.end();
      fold.clear();
      return {
        waitSeconds: (heardAt - startedAt) / 1000,
        reduceSeconds: (performance.now() - heardAt) / 1000,
        bytesOut: bytes('bytesOut') - outBefore,
        bytesIn: bytes('bytesIn') - inBefore,
      };
    },
    close: async () => {
      closing = true;
      for (const link of links.values()) link.close('the generation is over');
      await Promise.all([...links.values()].map((link) => link.closed));
    },
  };
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

function nameOf(members: readonly Member[], rank: number): string {
  const member = members.find((m) => m.rank === rank);
  return `rank ${rank}${member === undefined ? '' : ` (${member.worker} on ${member.host})`}`;
}

/** One link a peer: the higher rank connects to the lower one. Throws E_PEER_LOST naming the ranks that are missing. */
async function linkUp(options: Parameters<typeof openCollective>[0]): Promise<Map<number, Link>> {
  const { generation, rank, members, listener, token, run } = options;
  const links = new Map<number, Link>();
  const peers = members.filter((m) => m.rank !== rank);
  const joining = Promise.all(
    peers.map(async (peer) => {
      const link =
        peer.rank < rank
          ? await connectToPeer(peer.peerUrl, { token, run, self: { generation, rank } })
          : await listener.accept({ generation, rank: peer.rank });
      links.set(peer.rank, link);
    }),
  );
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      const missing = peers.filter((p) => !links.has(p.rank)).map((p) => nameOf(members, p.rank));
      reject(
        new LockstepError('E_PEER_LOST', `no link within ${LINK_UP_TIMEOUT_MS / 1000} s to ${missing.join(', ')}`),
      );
    }, LINK_UP_TIMEOUT_MS);
  });
  try {
    await Promise.race([joining, late]);
  } finally {
    clearTimeout(timer);
  }
  return links;
}
