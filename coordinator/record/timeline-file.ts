// The file of a timeline. It is readable whenever its coordinator dies: an event a line, the end of the array may be missing. Who goes on with
// a run goes on with its timeline: a torn line or the array's end goes from it, and the times that follow are of the same zero.
//
// Lines are written in batches; what a disk has no room for waits, up to a limit (retried-lines.ts).

import { open, type FileHandle } from 'node:fs/promises';
import { LockstepError } from '../../protocol/errors.ts';
import { headLine, headOf, TRACE_BEGIN, TRACE_BETWEEN, TRACE_END, type TraceHead } from '../core/chrome-trace.ts';
import { RetriedLines, type WriteObserver } from './retried-lines.ts';

/** Where it ends, however long the run is: what viewers still open. */
const MAX_TIMELINE_BYTES = 1024 * 1024 * 1024;
const FLUSH_MS = 1000;
/** Not so long, where so much waits. */
const FLUSH_BYTES = 1024 * 1024;
/** Of a file that is gone on with: its head is within the first bytes, the end of its last whole line within the last. */
const LOOK_BYTES = 64 * 1024;

export interface TimelineFile {
  /** What is 0 in it, of this machine's clock, in microseconds. */
  readonly zeroUs: number;
  /** False, and nothing is taken, once it is as long as it may be. */
  add(lines: readonly string[]): boolean;
  /** Its last line, and the array's end. Rejects when that can't be written. */
  close(last: string): Promise<void>;
  /** Ends it as it is: another coordinator has the run. */
  abandon(): Promise<void>;
}

export interface TimelineFileOptions {
  readonly path: string;
  /** Of a new one: now. */
  readonly head: TraceHead;
  /** What is there is gone on with; else it goes. */
  readonly isResumed: boolean;
  readonly observe: WriteObserver;
  /** Default: 1 GiB. */
  readonly maxBytes?: number;
}

/** Opens it. Throws E_USAGE when it is to go on with a file that is no timeline of this run; and what the disk says. */
export async function openTimelineFile(options: TimelineFileOptions): Promise<TimelineFile> {
  const { path, head: own, isResumed, observe, maxBytes = MAX_TIMELINE_BYTES } = options;
  if (!isResumed) await (await open(path, 'w')).close();
  const file = await open(path, 'a+');
  const { head, first } = await begun(file, path, own).catch(async (error: unknown) => {
    await file.close();
    throw error;
  });
  let bytes = (await file.stat()).size;
  let waitingBytes = 0;
  const lines = new RetriedLines(file, bytes, observe);
  let writing: Promise<void> = Promise.resolve();
  const flush = (): Promise<void> => {
    waitingBytes = 0;
    // The observer knows of a failure.
    writing = writing.then(() => lines.write(false)).catch(() => {});
    return writing;
  };
  const take = (text: string): void => {
    const length = Buffer.byteLength(text);
    bytes += length;
    waitingBytes += length;
    lines.add(text);
  };
  take(first);
  await flush();
  const timer = setInterval(() => {
    if (lines.hasWaiting) void flush();
  }, FLUSH_MS);
  timer.unref();
  return {
    zeroUs: zeroHere(head, own),
    add: (more) => {
      if (bytes > maxBytes) return false;
      if (more.length > 0) take(more.map((line) => line + TRACE_BETWEEN).join(''));
      if (waitingBytes > FLUSH_BYTES) void flush();
      return true;
    },
    close: async (last) => {
      clearInterval(timer);
      await writing;
      lines.add(last + TRACE_END);
      await lines.close();
    },
    abandon: async () => {
      clearInterval(timer);
      await writing;
      await lines.abandon();
    },
  };
}

/** The head of the file, and what is to be written before the first line: its own head, where it is a new one. */
async function begun(file: FileHandle, path: string, own: TraceHead): Promise<{ head: TraceHead; first: string }> {
  const { size } = await file.stat();
  if (size === 0) return { head: own, first: `${TRACE_BEGIN}${headLine(own)}${TRACE_BETWEEN}` };
  const [, line = ''] = (await bytesAt(file, 0)).toString('utf8').split('\n', 2);
  const head = headOf(line.replace(/,$/, ''));
  if (head?.run !== own.run) {
    const what = head === null ? 'it is no timeline' : `it is the timeline of another run, ${head.run}`;
    throw new LockstepError('E_USAGE', `--timeline ${path}: ${what}`, {
      remedy: 'Give the file that the run has been writing, or one that is not there.',
    });
  }
  const tail = await bytesAt(file, Math.max(0, size - LOOK_BYTES));
  const isEnded = tail.subarray(-TRACE_END.length).equals(Buffer.from(TRACE_END));
  const torn = tail.length - (tail.lastIndexOf(TRACE_BETWEEN) + TRACE_BETWEEN.length);
  await file.truncate(size - (isEnded ? TRACE_END.length : torn));
  return { head, first: isEnded ? TRACE_BETWEEN : '' };
}

async function bytesAt(file: FileHandle, position: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(LOOK_BYTES), 0, LOOK_BYTES, position);
  return buffer.subarray(0, bytesRead);
}

/** The zero of a timeline that was begun by another clock is found by the time of day. */
function zeroHere(head: TraceHead, own: TraceHead): number {
  const isSameClock = head.boot !== null && head.boot === own.boot;
  return isSameClock ? head.zeroUs : own.zeroUs - (own.begunAtUs - head.begunAtUs);
}
