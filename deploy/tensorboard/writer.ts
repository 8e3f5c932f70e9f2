// `--tensorboard DIR`: the run's numbers as TensorBoard shows them, in two runs, `train` and `test`, so that curves of one name lie over
// each other. Files are appended to in batches. A disk that fails is told of once, until it works again; training goes on.
//
// Cost: some 150 bytes a step.

import { mkdir, open, type FileHandle } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { LockstepError } from '../../protocol/errors.ts';
import type { RunEvent } from '../../protocol/run-event.ts';
import { recordOf, type Event } from './event-file.ts';

const FLUSH_MS = 1000;
/** What may wait for a disk that has no room; what is beyond it is not in the curves. */
const MAX_WAITING_BYTES = 4 * 1024 * 1024;

export interface TensorBoardOptions {
  readonly directory: string;
  readonly learningRate: number;
  /** Steps that the run goes on from: what another process wrote beyond them is void. Null: it is a new one. */
  readonly resumedFromStep: number | null;
  /** Unix time in seconds. */
  readonly now: () => number;
  readonly warn: (message: string) => void;
}

export interface TensorBoard {
  event(event: RunEvent): void;
  close(): Promise<void>;
}

/** Opens new files in `directory`. Throws E_USAGE when that can't be done. */
export async function openTensorBoard(options: TensorBoardOptions): Promise<TensorBoard> {
  const { now, learningRate } = options;
  const files = { train: await openFile(options, 'train'), test: await openFile(options, 'test') };
  let lastStep = options.resumedFromStep ?? 0;
  let isTold = false;
  let writing: Promise<void> = Promise.resolve();

  const flush = async (): Promise<void> => {
    try {
      for (const file of [files.train, files.test]) await file.write();
      isTold = false;
    } catch (error) {
      if (isTold) return;
      isTold = true;
      options.warn(`--tensorboard: ${String(error)}; what can not be written waits for room, training goes on`);
    }
  };
  const flushInTurn = (): Promise<void> => {
    writing = writing.then(flush);
    return writing;
  };
  const timer = setInterval(() => void flushInTurn(), FLUSH_MS);
  timer.unref();
  const scalars = (file: EventFile, step: number, values: Readonly<Record<string, number | null>>): void => {
    const known = Object.entries(values).flatMap(([tag, value]) => (value === null ? [] : [{ tag, value }]));
    if (known.length > 0) file.add({ wallTime: now(), step, content: { kind: 'scalars', values: known } });
  };

  return {
    event: (event) => {
      if (event.kind === 'step') {
        lastStep = event.step;
        scalars(files.train, event.step, {
          loss: event.loss,
          accuracy: event.accuracy,
          gradient_norm: event.gradientNorm,
          learning_rate: learningRate,
          samples_per_second: event.seconds > 0 ? event.samples / event.seconds : null,
        });
      }
      if (event.kind === 'epoch') {
        const { report } = event;
        scalars(files.train, report.epoch, {
          epoch_loss: report.loss,
          epoch_samples_per_second: report.imagesPerSecond,
        });
        scalars(files.test, report.epoch, { epoch_loss: report.testLoss, epoch_accuracy: report.testAccuracy });
        scalars(files.test, lastStep, { loss: report.testLoss, accuracy: report.testAccuracy });
      }
    },
    close: async () => {
      clearInterval(timer);
      await flushInTurn();
      for (const file of [files.train, files.test]) await file.close();
    },
  };
}

interface EventFile {
  add(event: Event): void;
  write(): Promise<void>;
  close(): Promise<void>;
}

async function openFile(
  { directory, resumedFromStep, now }: TensorBoardOptions,
  run: 'train' | 'test',
): Promise<EventFile> {
  const seconds = Math.floor(now());
  // TensorBoard reads the files of a directory in the order of their names.
  const name = `events.out.tfevents.${String(seconds).padStart(10, '0')}.${hostname()}.${process.pid}.0`;
  let file: FileHandle;
  try {
    await mkdir(join(directory, run), { recursive: true });
    file = await open(join(directory, run, name), 'a');
  } catch (cause) {
    throw new LockstepError(
      'E_USAGE',
      `--tensorboard ${directory}: ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        remedy: 'Give a directory that can be written to.',
        cause,
      },
    );
  }
  let waiting: Buffer[] = [];
  let waitingBytes = 0;
  let durableBytes = (await file.stat()).size;
  const add = (event: Event): void => {
    const record = recordOf(event);
    if (waitingBytes + record.length > MAX_WAITING_BYTES) return;
    waiting.push(record);
    waitingBytes += record.length;
  };
  add({ wallTime: now(), step: 0, content: { kind: 'version' } });
  if (resumedFromStep !== null) add({ wallTime: now(), step: resumedFromStep + 1, content: { kind: 'start' } });
  return {
    add,
    write: async () => {
      if (waiting.length === 0) return;
      const bytes = Buffer.concat(waiting);
      waiting = [];
      waitingBytes = 0;
      try {
        await file.appendFile(bytes);
      } catch (error) {
        // Half a record would end the file for who reads it.
        await file.truncate(durableBytes).catch(() => {});
        waiting = [bytes, ...waiting];
        waitingBytes += bytes.length;
        throw error;
      }
      durableBytes += bytes.length;
    },
    close: () => file.close(),
  };
}
