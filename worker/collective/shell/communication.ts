// How a worker talks to its peers: listens from the beginning, and opens the collective of a generation. The collective runs on a
// thread of its own where the machine has cores for that, so that it goes on while the engine blocks the worker's own; else in place
// (on two cores with two workers the thread costs more than it hides: bench/RESULTS.md).

import { availableParallelism } from 'node:os';
import { inRankOrder, planFor, type Communication } from './generation.ts';
import { inPlace } from './in-place.ts';
import { openLinks } from './link-up.ts';
import { openMeeting, type LinkOptions, type Meeting } from './meeting.ts';
import { startThread } from './threaded.ts';

/** True where `workers` workers of this machine leave each a core for its communication besides the engine's. */
export function hasCoresToSpare(workers: number): boolean {
  return 2 * workers <= availableParallelism();
}

/**
 * @param options.threaded on a thread of its own, or in place
 * @param options.onRefused told by which code a peer is not taken
 */
export async function startCommunication(
  options: LinkOptions & { readonly threaded: boolean; readonly onRefused?: (code: string) => void },
): Promise<Communication> {
  const { threaded, onRefused = () => {}, ...links } = options;
  return threaded ? startThread(links, onRefused) : communicateOver(await openMeeting(links, onRefused), links);
}

/** In place, with the peers that `meeting` meets. */
export function communicateOver(meeting: Meeting, links: Pick<LinkOptions, 'nats'>): Communication {
  let isLost = false;
  void meeting.lost.then(() => {
    isLost = true;
  });
  return {
    url: meeting.url,
    get isLost() {
      return isLost;
    },
    lost: meeting.lost,
    open: async (partial, members, signal) => {
      const inOrder = inRankOrder(members);
      const plan = planFor(partial, inOrder, links);
      return inPlace(plan, inOrder, await openLinks(plan, inOrder, meeting, signal));
    },
    close: () => meeting.close(),
  };
}
