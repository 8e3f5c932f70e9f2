// A link through shared memory: a ring each way, and beside them the socket over which the two met. The socket carries no
// frames: it wakes a side that sleeps (a ping), takes the goodbye, and tells at once when the other process has died. Nobody holds a
// lock, so nobody can die holding one.

import { LockstepError } from '../../../protocol/errors.ts';
import { encodeFrameHeader, FrameReader, type FrameSink } from '../../../protocol/frame.ts';
import type { Link } from '../../../protocol/link.ts';
import { RING_HEAD_BYTES, RingReader, RingWriter } from './ring.ts';
import type { Segment } from './segment.ts';
import type { WebSocketChannel } from './websocket.ts';

/** Of each ring: it stays in the second-level cache, and several buckets' slices of the tutorial's CNN fit. */
export const RING_BYTES = 1024 * 1024;
export const SEGMENT_BYTES = 2 * (RING_HEAD_BYTES + RING_BYTES);

/** `side` 0 made the segment and writes the first ring; 1 opened it and writes the second. */
export function shmLink(segment: Segment, channel: WebSocketChannel, side: 0 | 1): Link {
  const place = (ring: number): number => ring * (RING_HEAD_BYTES + RING_BYTES);
  const writer = new RingWriter(segment.buffer, place(side), RING_BYTES);
  const reader = new RingReader(segment.buffer, place(1 - side), RING_BYTES);
  /** What did not fit yet, and how much of its first piece has been written. */
  const queue: Uint8Array[] = [];
  let written = 0;
  const drains: (() => void)[] = [];
  let frames: FrameReader | null = null;
  let isOpen = true;
  /** Nobody polls: whatever comes must wake this process, each time anew. */
  let isAsleep = true;
  let bytesOut = 0;
  let bytesIn = 0;

  const stop = (): void => {
    if (!isOpen) return;
    isOpen = false;
    queue.length = 0;
    for (const resolve of drains.splice(0)) resolve();
    segment.close();
  };
  /** What the other side wrote before it went is still there: it is read first. */
  const closed = channel.closed.then((end) => {
    if (isOpen && end.error === null) takeIn();
    stop();
    return end;
  });

  const pushOut = (): boolean => {
    let moved = false;
    while (queue.length > 0) {
      const piece = queue[0] ?? new Uint8Array(0);
      const count = writer.write(piece, written);
      written += count;
      bytesOut += count;
      moved ||= count > 0;
      if (written < piece.byteLength) {
        if (writer.wait()) break;
        continue;
      }
      queue.shift();
      written = 0;
    }
    if (moved && writer.mustWake()) channel.ping();
    if (queue.length === 0) for (const resolve of drains.splice(0)) resolve();
    return moved;
  };
  const takeIn = (): boolean => {
    const into = frames;
    if (into === null) return false;
    try {
      return reader.take((bytes) => {
        // The sink may have closed the link in the middle.
        if (!isOpen) return;
        bytesIn += bytes.byteLength;
        into.push(bytes);
      });
    } catch (error) {
      channel.break(error);
      stop();
      return true;
    }
  };
  const poll = (): boolean => {
    if (!isOpen) return false;
    const came = takeIn();
    if (!isOpen) return came;
    try {
      if (came && reader.mustWake()) channel.ping();
      return pushOut() || came;
    } catch (error) {
      channel.break(error);
      stop();
      return true;
    }
  };

  /** Takes and gives all there is; then, when nobody polls, asks to be woken again. */
  const workOff = (): void => {
    do {
      if (isAsleep && isOpen) reader.sleep(true);
    } while (poll());
  };

  return {
    transport: 'shm',
    send: (header, payload) => {
      if (!isOpen) return;
      queue.push(encodeFrameHeader(header));
      if (payload.byteLength > 0) queue.push(payload);
      try {
        pushOut();
      } catch (error) {
        channel.break(error);
        stop();
      }
    },
    receive: (sink: FrameSink) => {
      frames = new FrameReader(sink);
      channel.open({
        data: () => {
          throw new LockstepError('E_FRAME', 'bytes on the socket of a link through shared memory');
        },
        messageEnd: () => {},
        ping: workOff,
      });
      workOff();
    },
    closed,
    drained: () =>
      queue.length === 0 || !isOpen
        ? Promise.resolve()
        : new Promise((resolve) => {
            drains.push(resolve);
          }),
    close: (because) => {
      // What was sent before goes out before the goodbye, as over a socket.
      if (queue.length > 0 && isOpen) drains.push(() => channel.close(because));
      else channel.close(because);
    },
    poll,
    sleep: (asleep) => {
      isAsleep = asleep;
      if (isOpen) reader.sleep(asleep);
    },
    get bytesOut() {
      return bytesOut;
    },
    get bytesIn() {
      return bytesIn;
    },
  };
}
