// What workers are given of what follows from the run's key (protocol/keys.ts), with the messages that the core makes, and whether what they say of
// other coordinators and generations is true. The core knows no secrets. Pure.
//
// So a worker with a token of its own, which is not the key, can't pass itself off as another rank to its peers, as a member of a generation that it was not
// in, or as one that has joined a later coordinator: that would make this one end.

import { memberProofOf, pairKeyOf, peerKeyOf, isSameSecret, termProofOf } from '../protocol/keys.ts';
import type { CoordinatorMessage, WorkerMessage } from '../protocol/messages.ts';
import { scopeKeyOf } from '../protocol/token.ts';

export interface Credentials {
  /** The message with what its receiver is given. */
  grant(message: CoordinatorMessage): CoordinatorMessage;
  /** What is untrue of it; null: nothing that can be known here. */
  complaintOf(message: WorkerMessage): string | null;
}

/** @param runKey null: a run without a token, in which nothing is proven */
export function createCredentials(runKey: string | null, run: string, term: number): Credentials {
  if (runKey === null) return { grant: (message) => message, complaintOf: () => null };
  const secrets = {
    observe: scopeKeyOf(runKey, 'observe'),
    peers: peerKeyOf(runKey, run),
    term: termProofOf(runKey, run, term),
  };
  return {
    grant: (message) => {
      if (message.kind === 'welcome') return { ...message, secrets };
      if (message.kind !== 'generation') return message;
      const { generation, rank, worldSize } = message;
      const members = message.members.map((member) =>
        member.rank === rank ? member : { ...member, key: pairKeyOf(runKey, run, generation, rank, member.rank) },
      );
      return { ...message, members, proof: memberProofOf(runKey, run, generation, worldSize) };
    },
    complaintOf: (message) => {
      const rejoin = message.kind === 'hello' ? message.rejoin : null;
      if (rejoin === null) return null;
      const { generation, worldSize, termProof = '', memberProof = '' } = rejoin;
      if (!isSameSecret(termProof, termProofOf(runKey, run, rejoin.term))) {
        return `it says that it has joined a coordinator of term ${rejoin.term}, and does not show that`;
      }
      if (generation > 0 && !isSameSecret(memberProof, memberProofOf(runKey, run, generation, worldSize))) {
        return `it says that it was a member of generation ${generation}, of ${worldSize}, and does not show that`;
      }
      return null;
    },
  };
}
