// One coordinator a run on a NATS server. Workers find theirs by the run's name, so two of one name would take each other's; whoever
// comes second is told who has the name, and ends before it has touched anything. A shell.

import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { Nats } from '../../nats/connect.ts';
import { subjectOf } from '../../nats/server.ts';
import { LockstepError } from '../../protocol/errors.ts';

/** How long the answer of another coordinator is waited for: one that lives answers within a round trip. */
const ANSWER_MS = 300;

const questionSchema = z.object({ claim: z.string().max(100) });
const answerSchema = z.object({ host: z.string().max(300), pid: z.int() });

/** Claims the run's name for the life of the connection. Throws E_RUN_IN_USE naming who has it, or E_NATS_REFUSED. */
export async function claimRun(
  nats: Nats,
  run: string,
  self: { readonly host: string; readonly pid: number },
): Promise<void> {
  const { connection } = nats;
  const subject = `lockstep.${subjectOf(run)}.coordinator`;
  const claim = randomUUID();
  // Whoever else claims the name from now on hears of this one, while it still waits itself, too: then both end, rather than none.
  const subscription = connection.subscribe(subject, {
    callback: (error, message) => {
      const asked = error === null ? questionSchema.safeParse(jsonOf(message.data)) : null;
      if (asked?.success === true && asked.data.claim !== claim) message.respond(JSON.stringify(self));
      return undefined;
    },
  });
  const rival = await firstAnswer(nats, subject, claim).catch((cause: unknown) => {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new LockstepError('E_NATS_REFUSED', `the NATS server at ${nats.server.url} lets no run begin: ${why}`, {
      remedy: 'Allow this user to publish and subscribe on lockstep.> and _INBOX.>.',
      cause,
    });
  });
  if (rival === null) return;
  subscription.unsubscribe();
  throw new LockstepError(
    'E_RUN_IN_USE',
    `the run ${run} has a coordinator on the NATS server at ${nats.server.url} already: process ${rival.pid} on ${rival.host}`,
    { remedy: 'Wait for that run or stop it, or give this one another name: the last part of --run-dir.' },
  );
}

async function firstAnswer(nats: Nats, subject: string, claim: string): Promise<z.infer<typeof answerSchema> | null> {
  const answers = await nats.connection.requestMany(subject, JSON.stringify({ claim }), {
    strategy: 'timer',
    maxWait: ANSWER_MS,
  });
  for await (const answer of answers) {
    const rival = answerSchema.safeParse(jsonOf(answer.data));
    if (rival.success) return rival.data;
  }
  return null;
}

function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}
