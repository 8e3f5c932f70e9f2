// A data thread: reads its piece of each microbatch that is asked for, and waits for the next. It opens the data set itself, by the
// module that it is named, because files and functions don't travel between threads. A shell.

import { parentPort, workerData } from 'node:worker_threads';
import { LockstepError, type ErrorCode } from '../../../protocol/errors.ts';
import { SampleReader } from '../batch-loader.ts';
import type { DataModule, ThreadData } from './data-threads.ts';
import { RequestBoard } from './request-board.ts';

/** To the engine's thread; `failed` is the last. */
export type FromDataThread =
  | { readonly kind: 'open' }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string };

const port = parentPort;
if (port === null) throw new Error('this is a thread');
const say = (message: FromDataThread): void => port.postMessage(message);
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- data-threads.ts gives it
const { source, plan, augment, thread, threads, memory } = workerData as ThreadData;
const board = new RequestBoard(memory);
try {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- whoever names the module answers for it
  const module = (await import(source.module)) as DataModule;
  const { data, augmentation } = await module.openTrainingData(source.argument);
  const reader = new SampleReader({
    plan,
    split: data.train,
    inputShape: data.inputShape,
    augment: augment ? augmentation : null,
  });
  say({ kind: 'open' });
  for (let request = 1; ; request++) {
    const place = board.next(request);
    if (place === null) break;
    reader.read(place, board.roomOf(request), thread, threads);
    board.done(thread, request);
  }
  data.train.close?.();
  data.test.close?.();
} catch (error) {
  const { code, message } = error instanceof LockstepError ? error : new LockstepError('E_TRAINING', String(error));
  say({ kind: 'failed', code, message: `reading the data: ${message}` });
  board.fail();
}
port.close();
