// The all-reduce bench over a NATS server: the same collective over links/nats.ts.

import { connectNats, connectOverNats, listenOverNats } from '../worker/collective/links/nats.ts';
import { inRankOrder, planFor, type Communication } from '../worker/collective/shell/generation.ts';
import { inPlace } from '../worker/collective/shell/in-place.ts';
import { linkUp } from '../worker/collective/shell/link-up.ts';

const COMMON = { token: 'bench', run: 'bench' };

/** @param server a NATS server's url */
export async function openNats(server: string): Promise<Communication> {
  const connection = await connectNats(server);
  const listener = listenOverNats(connection, COMMON);
  await connection.flush();
  return {
    url: listener.url,
    open: async (partial, members) => {
      const inOrder = inRankOrder(members);
      const plan = planFor(partial, inOrder);
      const { generation, rank } = plan;
      const links = await linkUp({
        rank,
        members: inOrder,
        connect: async (member) =>
          connectOverNats(connection, member.peerUrl, { ...COMMON, self: { generation, rank } }),
        accept: async (member) => listener.accept({ generation, rank: member.rank }),
      });
      return inPlace(plan, inOrder, links);
    },
    close: async () => {
      await listener.close();
      await connection.close();
    },
  };
}
