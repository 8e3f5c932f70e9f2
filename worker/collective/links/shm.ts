// A link through shared memory: a ring each way, and beside them the socket over which the two met. The socket carries no
// frames: it wakes a side that sleeps (a ping), takes the goodbye, and tells at once when the other process has died. Nobody holds a
// lock, so nobody can die holding one.
//
// Where a side shares its vectors (shared-vectors.ts) and the other could map them, a payload that lies in them does not go through the
// ring: the other side reads it where it lies, when it comes to its frame. It must stay as it is until then, as it must over a
// socket until it has left; all-reduce.ts says why it does. After the end of the link nobody writes there any more, so what was sent
// before a goodbye, or a death, can still be read.

import { LockstepError } from '../../../protocol/errors.ts';
import { encodeFrameHeader, FrameReader, type FrameSink } from '../../../protocol/frame.ts';
import type { Link, SharedVectors } from '../../../protocol/link.ts';
import { frameRecord, mappedRecord, RecordReader, referenceRecord, vectorsRecord } from './records.ts';
import { RING_HEAD_BYTES, RingReader, RingWriter } from './ring.ts';
import type { Segment } from './segment.ts';
import { openPeerVectors, type PeerVectors } from './shared-vectors.ts';
import type { WebSocketChannel } from './websocket.ts';

/** Of each ring: it stays in the second-level cache, and several buckets' slices of the tutorial's CNN fit. */
export const RING_BYTES = 1024 * 1024;
export const SEGMENT_BYTES = 2 * (RING_HEAD_BYTES + RING_BYTES);

/** `side` 0 made the segment and writes the first ring; 1 opened it and writes the second. */
export function shmLink(segment: Segment, channel: WebSocketChannel, side: 0 | 1): Link {
  const ringAt = (ring: number): number => ring * (RING_HEAD_BYTES + RING_BYTES);
  const writer = new RingWriter(segment.buffer, ringAt(side), RING_BYTES);
  const reader = new RingReader(segment.buffer, ringAt(1 - side), RING_BYTES);
  /** What did not fit yet, and how much of its first piece has been written. */
  const queue: Uint8Array[] = [];
  let written = 0;
  const drains: (() => void)[] = [];
  /** Why it is to be closed when the queue is empty. */
  let goodbye: string | null = null;
  let records: RecordReader | null = null;
  let isOpen = true;
  /** This side's vectors, once the other side reads them; and the other's. */
  let offered: SharedVectors | null = null;
  let shared: SharedVectors | null = null;
  let theirs: PeerVectors | null = null;
  /** Nobody polls: whatever comes must wake this process, each time anew. */
  let isAsleep = true;
  let bytesOut = 0;
  let bytesIn = 0;

  /** In the middle of reading: what is read stays mapped. */
  let isReading = false;

  const unmap = (): void => {
    segment.close();
    theirs?.close();
    theirs = null;
  };
  const stop = (): void => {
    if (!isOpen) return;
    isOpen = false;
    queue.length = 0;
    for (const resolve of drains.splice(0)) resolve();
    if (!isReading) unmap();
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
    if (queue.length === 0 && goodbye !== null) channel.close(goodbye);
    if (drains.length > 0 && hasLeft()) for (const resolve of drains.splice(0)) resolve();
    return moved;
  };
  /** True when all that was sent is in the ring; where that may refer to payloads, when it has been read. Else it will be told. */
  const hasLeft = (): boolean => {
    if (queue.length > 0) return false;
    if (shared === null) return true;
    writer.wait();
    return writer.isRead;
  };
  const post = (pieces: readonly Uint8Array[]): void => {
    if (!isOpen) return;
    queue.push(...pieces);
    try {
      pushOut();
    } catch (error) {
      channel.break(error);
      stop();
    }
  };
  const readerOf = (sink: FrameSink): RecordReader => {
    const frames = new FrameReader(sink);
    return new RecordReader({
      bytes: (bytes) => frames.push(bytes),
      reference: (place, bytes) => {
        if (theirs === null) throw new LockstepError('E_FRAME', 'a reference to vectors that are not shared');
        bytesIn += bytes;
        frames.push(theirs.at(place, bytes));
      },
      frameEnd: () => {
        if (!frames.atBoundary) throw new LockstepError('E_FRAME', 'a malformed frame: cut short, or too long');
      },
      vectors: (address) => {
        if (theirs !== null) throw new LockstepError('E_FRAME', 'vectors that are shared twice');
        try {
          theirs = openPeerVectors(address);
        } catch (error) {
          if (!(error instanceof LockstepError && error.code === 'E_NOT_SUPPORTED')) throw error;
          // The sender is told nothing, and so goes on by the ring.
          process.emitWarning(
            `a peer's vectors can't be read where they lie, they come through a ring: ${error.message}`,
          );
          return;
        }
        post(mappedRecord());
      },
      mapped: () => {
        if (offered === null) throw new LockstepError('E_FRAME', 'vectors mapped that were not shared');
        shared = offered;
      },
    });
  };
  const takeIn = (): boolean => {
    const into = records;
    if (into === null) return false;
    isReading = true;
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
    } finally {
      isReading = false;
      if (!isOpen) unmap();
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
      const encoded = encodeFrameHeader(header);
      const place = payload.byteLength === 0 ? null : (shared?.placeOf(payload) ?? null);
      if (place === null) post(frameRecord(encoded, payload));
      else {
        if (isOpen) bytesOut += payload.byteLength;
        post(referenceRecord(encoded, place, payload.byteLength));
      }
    },
    share: (vectors) => {
      offered = vectors;
      post(vectorsRecord(vectors.address));
    },
    receive: (sink: FrameSink) => {
      records = readerOf(sink);
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
    drained: () => {
      if (!isOpen || hasLeft()) return Promise.resolve();
      return new Promise((resolve) => {
        drains.push(resolve);
      });
    },
    close: (because) => {
      // What was sent before goes out before the goodbye, as over a socket.
      if (queue.length > 0 && isOpen) goodbye = because;
      else channel.close(because);
    },
    cut: () => channel.destroy(),
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
