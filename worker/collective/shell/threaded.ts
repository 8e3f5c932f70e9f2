// The engine's side of the communication thread: starts it, and is the training loop's `Collective` over shared memory: vectors are
// written where the thread sums and sends them.

import { Worker } from 'node:worker_threads';
import { LockstepError } from '../../../protocol/errors.ts';
import { nextTurn } from '../../next-turn.ts';
import { originUs } from '../../timeline/machine-clock.ts';
import type { AllReduced } from '../../train.ts';
import { AllReduce, planMemory } from '../all-reduce.ts';
import { inRankOrder, planFor, residualsOf, type Communication, type OpenCollective } from './generation.ts';
import { BEGIN, ControlBlock, NO_SLOT, OFFER } from './control-block.ts';
import { PeerFault, type GenerationPlan } from './exchange.ts';
import { inPlace } from './in-place.ts';
import { reasonOf } from './link-up.ts';
import type { LinkOptions } from './meeting.ts';
import { floatsOf, reservePages, type Pages } from './memory.ts';
import { backward, planCollective } from '../plan.ts';
import type { FromThread, PlainError, ToThread } from './thread.ts';
import { TrafficMeter } from './traffic.ts';

/** How long the engine's thread waits at a time before it looks after its other business: messages of the coordinator. */
const WAIT_SLICE_MS = 5;

/** Starts the thread; resolves when it listens. `onRefused` is told by which code a peer is not taken. */
export async function startThread(options: LinkOptions, onRefused: (code: string) => void): Promise<Communication> {
  const thread = new Worker(new URL('thread.mjs', import.meta.url), { workerData: options, execArgv: [] });
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  const post = (message: ToThread): void => thread.postMessage(message);
  const mail = mailOf(thread, onRefused);
  const { url } = await mail.next('listening');
  thread.unref();
  return {
    url,
    get isLost() {
      return mail.isLost;
    },
    lost: mail.lost,
    open: async (partial, members, signal) => {
      const inOrder = inRankOrder(members);
      const plan = planFor(partial, inOrder, options);
      // Alone there is nobody to talk to.
      if (inOrder.length === 1) return inPlace(plan, inOrder, new Map());
      signal?.throwIfAborted();
      const pages = reservePages(planMemory(planCollective(plan), plan.rank).floats, true);
      const control = new ControlBlock();
      mail.onEnd(() => control.fail());
      post({ kind: 'open', plan, members: inOrder, pages, control: control.buffer });
      const onAbort = (): void => post({ kind: 'close' });
      signal?.addEventListener('abort', onAbort);
      try {
        await mail.next('opened');
      } catch (error) {
        if (signal?.aborted !== true) throw error;
      } finally {
        signal?.removeEventListener('abort', onAbort);
      }
      if (signal?.aborted === true) {
        await mail.closed();
        throw reasonOf(signal);
      }
      return withThread(
        { plan, pages, control, wake: () => post({ kind: 'wake' }), failure: () => mail.failure() },
        () => {
          post({ kind: 'close' });
          return mail.closed();
        },
      );
    },
    close: async () => {
      // Its end is waited for, even when nothing else keeps the process.
      thread.ref();
      post({ kind: 'end' });
      await mail.next('ended').catch(() => undefined);
      await thread.terminate();
    },
  };
}

interface Mail {
  /** The next message of `kind`; rejects with a failure that comes before it, or with the thread's end. */
  next<K extends FromThread['kind']>(kind: K): Promise<Extract<FromThread, { kind: K }>>;
  /** The failure that is there or comes. */
  failure(): Promise<Error>;
  /** The word that a generation is closed; what failed in it until then is forgotten. Resolves at the thread's end, too. */
  closed(): Promise<void>;
  /** Its NATS server is gone. */
  readonly isLost: boolean;
  readonly lost: Promise<void>;
  /** Called when the thread dies. */
  onEnd(handler: () => void): void;
}

function mailOf(thread: Worker, onRefused: (code: string) => void): Mail {
  const messages: FromThread[] = [];
  let broken: Error | null = null;
  let stir: () => void = () => {};
  let ended: () => void = () => {};
  const breakOff = (error: Error): void => {
    broken ??= error;
    ended();
    stir();
  };
  let isLost = false;
  let lose = (): void => {};
  const lost = new Promise<void>((resolve) => {
    lose = resolve;
  });
  thread.on('message', (message: FromThread) => {
    if (message.kind === 'lost') {
      isLost = true;
      lose();
    } else if (message.kind === 'refused') onRefused(message.code);
    else messages.push(message);
    stir();
  });
  thread.on('error', (error) => breakOff(error instanceof Error ? error : new Error(String(error))));
  thread.on('exit', () => breakOff(new LockstepError('E_TRAINING', 'the communication thread has ended')));
  const any = async (): Promise<FromThread> => {
    for (;;) {
      const message = messages.shift();
      if (message !== undefined) return message;
      if (broken !== null) throw broken;
      await new Promise<void>((resolve) => {
        stir = resolve;
      });
    }
  };
  return {
    get isLost() {
      return isLost;
    },
    lost,
    next: async <K extends FromThread['kind']>(kind: K): Promise<Extract<FromThread, { kind: K }>> => {
      for (;;) {
        const message = await any();
        if (isKind(message, kind)) return message;
        if (message.kind === 'failed') throw errorOf(message.error);
      }
    },
    failure: async () => {
      for (;;) {
        const message = await any();
        if (message.kind === 'failed') return errorOf(message.error);
      }
    },
    closed: async () => {
      try {
        while ((await any()).kind !== 'closed');
      } catch {
        // There is no thread any more: nothing is open.
      }
    },
    onEnd: (handler) => {
      ended = handler;
      if (broken !== null) handler();
    },
  };
}

function errorOf({ code, message, remedy, peer }: PlainError): LockstepError {
  if (peer !== undefined) return new PeerFault(peer, code, message);
  return new LockstepError(code, message, remedy === undefined ? {} : { remedy });
}

function isKind<K extends FromThread['kind']>(
  message: FromThread,
  kind: K,
): message is Extract<FromThread, { kind: K }> {
  return message.kind === kind;
}

function withThread(
  options: {
    plan: GenerationPlan;
    pages: Pages;
    control: ControlBlock;
    wake: () => void;
    failure: () => Promise<Error>;
  },
  close: () => Promise<void>,
): OpenCollective {
  const { plan, pages, control, wake } = options;
  const collective = planCollective(plan);
  const places = planMemory(collective, plan.rank);
  const { length, buckets } = collective;
  const vectors = places.slots.map((at) => floatsOf(pages, at, length));
  const meter = new TrafficMeter();
  /** The thread's times are of the machine's clock. */
  const originSeconds = plan.isTraced === true ? originUs() / 1e6 : 0;
  const marksOf = (): Float64Array | null =>
    plan.isTraced === true ? control.marks(buckets.length).map((seconds) => seconds - originSeconds) : null;
  let free: number[] = [];
  let isBegun = false;
  let microbatch = 0;
  let slot = 0;
  let stepsDone = 0;

  const command = (kind: number, a = 0, b = 0, c = 0): void => {
    // There is room for all of a step; if not, the thread reads as fast as they come.
    while (!control.command(kind, a, b, c) && !control.hasFailed) wake();
    if (control.mustWake()) wake();
  };
  const begin = (): void => {
    if (isBegun) return;
    isBegun = true;
    // Whatever the last step's slots held has been used.
    control.takeFreed();
    free = AllReduce.slotsOf(places, plan.firstStep + stepsDone).toReversed();
    command(BEGIN);
  };
  let failure: Error | null = null;
  const checkFailure = async (): Promise<void> => {
    if (failure === null && control.hasFailed) failure = await options.failure();
    if (failure !== null) throw failure;
  };

  const slotOf = async (index: number): Promise<Float32Array> => {
    await checkFailure();
    begin();
    while (free.length === 0) {
      free = control.takeFreed();
      if (free.length > 0) break;
      control.waitForSlot(WAIT_SLICE_MS);
      await nextTurn();
      await checkFailure();
    }
    [microbatch, slot] = [index, free.pop() ?? 0];
    return vectors[slot] ?? new Float32Array(0);
  };
  const ready = (bucket: number): void => command(OFFER, microbatch, buckets.length - 1 - bucket, slot);
  const allReduce = async (meanwhile?: () => boolean): Promise<AllReduced> => {
    const startedAt = performance.now();
    // Once a step at least the process listens to others than its peers.
    await nextTurn();
    let isMore = meanwhile !== undefined;
    while (control.stepsDone === stepsDone) {
      await checkFailure();
      const sliceEnd = performance.now() + WAIT_SLICE_MS;
      while (isMore && control.stepsDone === stepsDone && performance.now() < sliceEnd) isMore = meanwhile?.() ?? false;
      if (!isMore) control.waitForStep(stepsDone, WAIT_SLICE_MS);
      if (control.stepsDone === stepsDone) await nextTurn();
    }
    const sum = vectors[(plan.firstStep + stepsDone) & 1] ?? new Float32Array(0);
    stepsDone++;
    isBegun = false;
    const timing = meter.timing(control.stepFigures(), (performance.now() - startedAt) / 1000);
    return { ...timing, marks: marksOf(), sum };
  };

  return {
    rank: plan.rank,
    worldSize: plan.worldSize,
    buckets: backward(buckets),
    residuals: residualsOf(collective, plan.rank, places, (at, count) => floatsOf(pages, at, count)),
    slot: slotOf,
    ready,
    absent: async (index) => {
      begin();
      for (const bucket of buckets.keys()) command(OFFER, index, bucket, NO_SLOT);
    },
    allReduce,
    allReduceCopied: async (index, vector, out) => {
      const into = await slotOf(index);
      for (const [bucket, { offset, length: count }] of backward(buckets).entries()) {
        into.set(vector.subarray(offset, offset + count), offset);
        ready(bucket);
      }
      const { sum, ...timing } = await allReduce();
      out.set(sum);
      return timing;
    },
    abandon: (error) => {
      failure ??= error;
      control.fail();
    },
    get failure() {
      // Its words are with the thread; who calls next gets them.
      return failure ?? (control.hasFailed ? new LockstepError('E_PEER_LOST', 'the communication has failed') : null);
    },
    close,
  };
}
