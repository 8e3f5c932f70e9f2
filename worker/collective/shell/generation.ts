// What a worker's communication opens and closes: the collective of a generation, in whichever thread it runs.

import type { AllReduceTiming, Collective } from '../../train.ts';
import type { MemoryPlan } from '../all-reduce.ts';
import type { CollectivePlan } from '../plan.ts';
import type { GenerationPlan } from './exchange.ts';
import type { Member } from './link-up.ts';
import type { LinkOptions } from './meeting.ts';

export interface OpenCollective extends Collective {
  /**
   * For who has the vector elsewhere, and wants the sum there: microbatch `index`, this rank's last of the step, is `vector`, and
   * the sum is laid into `out`, which may be the same array. The same as `slot`, `ready` and `allReduce`, but no more is copied than must be:
   * over sockets this rank's own slices (all-reduce.ts, `Outside`), else bucket by bucket, while they are in the cache. Neither array may be
   * touched until then.
   */
  allReduceCopied(index: number, vector: Float32Array, out: Float32Array): Promise<AllReduceTiming>;
  /** Ends it for this rank: whoever waits in it, or calls it from now on, gets `error`. The links stay up until it is closed. */
  abandon(error: Error): void;
  /** What ended it before its time: a lost link, a peer that was dropped, or `abandon`; null while it goes on. */
  readonly failure: Error | null;
  close(): Promise<void>;
}

export interface Communication {
  /** Where peers reach this worker. */
  readonly url: string;
  /** No peer can be reached by it any more: its NATS server has been lost. Another one must be started. */
  readonly isLost: boolean;
  /** Resolves when it is; never where it can't be. */
  readonly lost: Promise<void>;
  /**
   * Links up with the members of a generation; the one before must be closed. Throws E_PEER_LOST, or what `signal` is aborted
   * with.
   */
  open(
    plan: Omit<GenerationPlan, 'worldSize' | 'hosts'>,
    members: readonly Member[],
    signal?: AbortSignal,
  ): Promise<OpenCollective>;
  close(): Promise<void>;
}

export function inRankOrder(members: readonly Member[]): Member[] {
  return members.toSorted((a, b) => a.rank - b.rank);
}

/** Two levels between hosts; one over a NATS server, which every frame passes however near its ranks are. */
export function planFor(
  partial: Omit<GenerationPlan, 'worldSize' | 'hosts'>,
  inOrder: readonly Member[],
  options: Pick<LinkOptions, 'nats'> = {},
): GenerationPlan {
  const worldSize = inOrder.length;
  return options.nats === undefined
    ? { ...partial, worldSize, hosts: inOrder.map((member) => member.host) }
    : { ...partial, worldSize };
}

/** The residuals of a rank's microbatches where they lie, by index. */
export function residualsOf(
  plan: CollectivePlan,
  rank: number,
  places: MemoryPlan,
  floats: (at: number, count: number) => Float32Array,
): Map<number, Float32Array> {
  const share = plan.shares[rank] ?? [];
  const length = plan.compression?.floats ?? 0;
  return new Map(
    places.residuals.flatMap((at, i) => {
      const m = share[i];
      return m === undefined ? [] : [[m, floats(at, length)]];
    }),
  );
}
