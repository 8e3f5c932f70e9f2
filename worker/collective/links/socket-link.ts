// A link over one upgraded socket: each frame is a binary WebSocket message.

import { LockstepError } from '../../../protocol/errors.ts';
import { encodeFrameHeader, FRAME_HEADER_BYTES, FrameReader, MAX_FRAME_BYTES } from '../../../protocol/frame.ts';
import type { Link, Transport } from '../../../protocol/link.ts';
import type { WebSocketChannel } from './websocket.ts';

export const MAX_MESSAGE_BYTES = MAX_FRAME_BYTES;

export function socketLink(channel: WebSocketChannel, transport: Transport): Link {
  return {
    transport,
    send: (header, payload) => {
      channel.send(payload.byteLength === 0 ? [encodeFrameHeader(header)] : [encodeFrameHeader(header), payload]);
    },
    receive: (sink) => {
      const reader = new FrameReader(sink);
      let messageBytes = 0;
      channel.open({
        data: (bytes) => {
          messageBytes += bytes.byteLength;
          reader.push(bytes);
        },
        atHeader: () => reader.atHeader,
        landing: () => reader.landing(),
        landed: (count) => {
          messageBytes += count;
          reader.landed(count);
        },
        messageEnd: () => {
          if (messageBytes < FRAME_HEADER_BYTES || !reader.atBoundary) {
            throw new LockstepError('E_FRAME', `a malformed frame: it ends after ${messageBytes} bytes`);
          }
          messageBytes = 0;
        },
        ping: () => {},
      });
    },
    closed: channel.closed,
    drained: () => channel.drained(),
    close: (because) => channel.close(because),
    cut: () => channel.destroy(),
    get bytesOut() {
      return channel.bytesOut;
    },
    get bytesIn() {
      return channel.bytesIn;
    },
  };
}
