// The communication thread of a worker: links and sums run here, because the engine blocks its own thread. It listens for peers from
// the worker's beginning, links up when a generation opens, and then goes by the control block. A shell.
//
// While this rank waits for its peers the thread looks by turns at what has no events of its own (shared memory, the control
// block), for a moment; then it sleeps until somebody wakes it: the engine's thread by a message, a peer over its socket.

import { availableParallelism } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { LockstepError, type ErrorCode } from '../../../protocol/errors.ts';
import { originUs } from '../../timeline/machine-clock.ts';
import { BEGIN, ControlBlock, NO_SLOT } from './control-block.ts';
import { Exchange, PeerFault, type GenerationPlan } from './exchange.ts';
import { nameOf, openLinks, type Member } from './link-up.ts';
import { openMeeting, type LinkOptions } from './meeting.ts';
import { shareWithPeers, vectorMemory, type Pages } from './memory.ts';

export interface OpenRequest {
  readonly kind: 'open';
  readonly plan: GenerationPlan;
  readonly members: readonly Member[];
  readonly pages: Pages;
  readonly control: SharedArrayBuffer;
}

/** From the engine's thread. `wake` says that there are commands. */
export type ToThread = OpenRequest | { readonly kind: 'wake' | 'close' | 'end' };

/** An error as plain data: classes do not survive between threads. */
export interface PlainError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly remedy?: string | undefined;
  /** Of a PeerFault. */
  readonly peer?: number | undefined;
}

export type FromThread =
  | { readonly kind: 'listening'; readonly url: string }
  /** A peer was not taken. */
  | { readonly kind: 'refused'; readonly code: string }
  | { readonly kind: 'opened' | 'closed' | 'ended' | 'lost' }
  | { readonly kind: 'failed'; readonly error: PlainError };

/**
 * How long to look before sleeping, in milliseconds: longer than a message takes to a peer that is awake, shorter than it takes to be
 * missed by an engine that shares the core.
 */
const LOOK_MS = 0.2;

const port = parentPort;
if (port === null) throw new Error('this is a thread');
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- threaded.ts gives it
const data = workerData as LinkOptions;
const say = (message: FromThread): void => port.postMessage(message);
const sayFailed = (error: unknown): void => {
  const told = error instanceof LockstepError ? error : new LockstepError('E_TRAINING', String(error));
  const { code, message, remedy } = told;
  const peer = told instanceof PeerFault ? told.peer : undefined;
  say({ kind: 'failed', error: { code, message, remedy, peer } });
};

const meeting = await openMeeting(data, (code) => say({ kind: 'refused', code })).catch((error: unknown) => {
  sayFailed(error);
  throw error;
});

void meeting.lost.then(() => say({ kind: 'lost' }));

let exchange: Exchange | null = null;
let control: ControlBlock | null = null;
let endSharing = (): void => {};
/** While links come up. */
let opening: AbortController | null = null;
let lookMs = LOOK_MS;
let isScheduled = false;
let isAsleep = false;
let movedAt = 0;

function turn(): void {
  isScheduled = false;
  if (exchange === null || control === null) return;
  try {
    const now = performance.now();
    if (work(exchange, control)) movedAt = now;
    if (exchange.hasPolledLinks && exchange.isWaiting && now - movedAt < lookMs) schedule();
    else doze(exchange, control);
  } catch (error) {
    fail(error);
  }
}

/** Does what is to be done, without waiting; true when there was something. */
function work(present: Exchange, block: ControlBlock): boolean {
  const had = block.takeCommands((kind, index, bucket, slot) => {
    if (kind === BEGIN) present.begin();
    else present.offer(index, bucket, slot === NO_SLOT ? null : slot);
  });
  return present.poll() || had;
}

function schedule(): void {
  if (isScheduled) return;
  isScheduled = true;
  setImmediate(turn);
}

function doze(present: Exchange, block: ControlBlock): void {
  isAsleep = true;
  block.sleep(true);
  present.sleep(true);
  // Something may have come between the last look and the word that others must wake this thread.
  if (work(present, block)) wake();
}

function wake(): void {
  movedAt = performance.now();
  if (isAsleep) {
    isAsleep = false;
    control?.sleep(false);
    exchange?.sleep(false);
  }
  schedule();
}

function fail(error: unknown): void {
  sayFailed(error);
  control?.fail();
}

async function open(request: OpenRequest): Promise<void> {
  const { plan, members, pages } = request;
  opening = new AbortController();
  const links = await openLinks(plan, members, meeting, opening.signal).finally(() => {
    opening = null;
  });
  const here = members.filter((m) => m.host === members[plan.rank]?.host).length;
  // Where ranks outnumber cores, looking would take a core from a rank that computes.
  lookMs = here <= availableParallelism() ? LOOK_MS : 0;
  const block = new ControlBlock(request.control);
  control = block;
  // Before anything is written there: a peer that is ahead has sent its first part already, and receiving begins with the exchange.
  endSharing = shareWithPeers(pages, links.values());
  // Where others read the times, they are of a clock that both threads have.
  const originSeconds = plan.isTraced === true ? originUs() / 1e6 : 0;
  const made = new Exchange({
    plan,
    links,
    memory: vectorMemory(pages),
    now: () => originSeconds + performance.now() / 1000,
    finished: (figures) => block.finishStep(figures, made.marks?.times ?? null),
    freed: (slot) => block.free(slot),
    nameOf: (rank) => nameOf(members, rank),
    failed: fail,
    stirred: wake,
  });
  exchange = made;
  say({ kind: 'opened' });
  wake();
}

async function close(): Promise<void> {
  opening?.abort(new LockstepError('E_PEER_LOST', 'the generation is over before its links came up'));
  const closing = exchange;
  exchange = null;
  control = null;
  await closing?.close('the generation is over');
  endSharing();
  endSharing = (): void => {};
  say({ kind: 'closed' });
}

port.on('message', (message: ToThread) => {
  if (message.kind === 'wake') wake();
  else if (message.kind === 'open') open(message).catch(sayFailed);
  else if (message.kind === 'close') close().catch(sayFailed);
  else {
    void meeting.close().then(() => {
      say({ kind: 'ended' });
      port.close();
    });
  }
});
say({ kind: 'listening', url: meeting.url });
