// What a worker's communication opens and closes: the collective of a generation, in whichever thread it runs.

import type { Collective } from '../../train.ts';
import type { GenerationPlan } from './exchange.ts';
import type { Member } from './link-up.ts';

export interface OpenCollective extends Collective {
  close(): Promise<void>;
}

export interface Communication {
  /** Where peers reach this worker. */
  readonly url: string;
  /** Links up with the members of a generation. Throws E_PEER_LOST or E_UNAUTHORIZED. */
  open(plan: Omit<GenerationPlan, 'worldSize' | 'hosts'>, members: readonly Member[]): Promise<OpenCollective>;
  close(): Promise<void>;
}

export function inRankOrder(members: readonly Member[]): Member[] {
  return members.toSorted((a, b) => a.rank - b.rank);
}

export function planFor(
  partial: Omit<GenerationPlan, 'worldSize' | 'hosts'>,
  inOrder: readonly Member[],
): GenerationPlan {
  return { ...partial, worldSize: inOrder.length, hosts: inOrder.map((member) => member.host) };
}
