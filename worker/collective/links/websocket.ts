// WebSocket frames (RFC 6455, section 5) on a socket that has been upgraded: what the links over sockets are made of. Pure, but
// for the socket that `WebSocketChannel` holds.
//
// Why not a library: gradients are megabytes, and a library puts each message together before it hands it over. Here bytes are
// handed on as they are read, at half the cost. It is WebSocket all the same, so that proxies pass it: a peer with a stock
// implementation is understood and understands (a test shows it). Clients mask with zeros, a valid mask that leaves bytes as
// they are; it guards against caches in between that nobody has here.

import { Socket, type SocketConstructorOpts } from 'node:net';
import type { Duplex } from 'node:stream';
import { LockstepError } from '../../../protocol/errors.ts';
import { FRAME_HEADER_BYTES } from '../../../protocol/frame.ts';

const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;
const FIN = 0x80;
const MASKED = 0x80;
const MAX_CONTROL_BYTES = 125;
const NORMAL_CLOSURE = 1000;
const PROTOCOL_ERROR = 1002;
const READ_BUFFER_BYTES = 256 * 1024;
/** The longest head, and what the messages of a link begin with. */
const HEAD_READ_BYTES = 14 + FRAME_HEADER_BYTES;

/** The head of an unfragmented frame of `length` bytes; masked with zeros for a client. */
export function encodeHead(opcode: number, length: number, masked: boolean): Uint8Array {
  const lengthBytes = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const head = new Uint8Array(2 + lengthBytes + (masked ? 4 : 0));
  const view = new DataView(head.buffer);
  head[0] = FIN | opcode;
  head[1] = (masked ? MASKED : 0) | (lengthBytes === 0 ? length : lengthBytes === 2 ? 126 : 127);
  if (lengthBytes === 2) view.setUint16(2, length);
  if (lengthBytes === 8) view.setBigUint64(2, BigInt(length));
  return head;
}

export interface WebSocketEvents {
  /** The next bytes of a binary message; valid only during the call. */
  data(bytes: Uint8Array): void;
  /** Where the next bytes of the message may be read to instead; what was read there is told by `landed`. Null: anywhere. */
  landing?(): Uint8Array | null;
  landed?(count: number): void;
  /** The message is whole. */
  messageEnd(): void;
  ping(payload: Uint8Array): void;
  /** The other side has said goodbye. */
  goodbye(code: number, reason: string): void;
}

function refuse(what: string): never {
  throw new LockstepError('E_FRAME', `a malformed WebSocket frame: ${what}`);
}

/** Reads frames from a stream of bytes, cut anywhere. Keeps a head and a control frame at most. */
export class WebSocketReader {
  private readonly events: WebSocketEvents;
  private readonly expectMasked: boolean;
  private readonly maxMessageBytes: number;
  /** Head bytes so far: at most 2 + 8 + 4. */
  private readonly head = new Uint8Array(14);
  private headBytes = 0;
  private headLength = 2;
  private opcode = 0;
  private fin = false;
  private inMessage = false;
  private messageBytes = 0;
  private missing = 0;
  private readonly mask = new Uint8Array(4);
  private maskAt = 0;
  private isMasked = false;
  private control: number[] = [];
  private inPayload = false;

  /** @param expectMasked true on the server's side: clients mask, servers don't, and anything else is refused */
  constructor(options: { events: WebSocketEvents; expectMasked: boolean; maxMessageBytes: number }) {
    this.events = options.events;
    this.expectMasked = options.expectMasked;
    this.maxMessageBytes = options.maxMessageBytes;
  }

  /** Takes the stream's next bytes, which it may unmask in place. Throws LockstepError E_FRAME that names what is wrong. */
  push(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.byteLength) at = this.inPayload ? this.takePayload(bytes, at) : this.takeHead(bytes, at);
  }

  /** True where a frame's head comes next, or the rest of one. */
  get atHead(): boolean {
    return !this.inPayload;
  }

  /** Where the stream's next bytes may be read to, instead of being pushed; never beyond the present frame. Null: anywhere. */
  landing(): Uint8Array | null {
    if (!this.inPayload || this.isMasked || this.opcode >= OPCODE.close) return null;
    return this.events.landing?.()?.subarray(0, this.missing) ?? null;
  }

  /** The stream's next `count` bytes have been read to the landing. Throws as `push` does. */
  landed(count: number): void {
    this.missing -= count;
    this.events.landed?.(count);
    if (this.missing === 0) this.finishFrame();
  }

  private takeHead(bytes: Uint8Array, at: number): number {
    const taken = Math.min(this.headLength - this.headBytes, bytes.byteLength - at);
    this.head.set(bytes.subarray(at, at + taken), this.headBytes);
    this.headBytes += taken;
    if (this.headBytes === 2) {
      const short = (this.head[1] ?? 0) & 0x7f;
      this.headLength =
        2 + (short === 126 ? 2 : short === 127 ? 8 : 0) + (((this.head[1] ?? 0) & MASKED) === 0 ? 0 : 4);
    }
    if (this.headBytes === this.headLength) this.takeWholeHead();
    return at + taken;
  }

  private takeWholeHead(): void {
    const view = new DataView(this.head.buffer);
    const [first, second] = [view.getUint8(0), view.getUint8(1)];
    this.fin = (first & FIN) !== 0;
    this.opcode = first & 0x0f;
    const masked = (second & MASKED) !== 0;
    const short = second & 0x7f;
    if ((first & 0x70) !== 0) refuse('reserved bits');
    if (masked !== this.expectMasked) refuse(masked ? 'masked by a server' : 'not masked by a client');
    const length = short === 126 ? view.getUint16(2) : short === 127 ? Number(view.getBigUint64(2)) : short;
    const isControl = this.opcode >= OPCODE.close;
    if (isControl) {
      if (this.opcode > OPCODE.pong) refuse(`opcode ${this.opcode}`);
      if (!this.fin || length > MAX_CONTROL_BYTES) refuse('a control frame that is cut up or too long');
    } else {
      if (this.opcode !== OPCODE.continuation && this.opcode !== OPCODE.binary) refuse(`opcode ${this.opcode}`);
      if ((this.opcode === OPCODE.continuation) !== this.inMessage) refuse('a fragment out of place');
      this.inMessage = true;
      this.messageBytes += length;
      if (this.messageBytes > this.maxMessageBytes) {
        refuse(`a message of ${this.messageBytes} bytes; the limit is ${this.maxMessageBytes}`);
      }
    }
    if (masked) this.mask.set(this.head.subarray(this.headLength - 4, this.headLength));
    this.isMasked = masked && this.mask.some((byte) => byte !== 0);
    this.maskAt = 0;
    this.control = [];
    this.missing = length;
    this.inPayload = true;
    if (length === 0) this.finishFrame();
  }

  private takePayload(bytes: Uint8Array, at: number): number {
    const end = Math.min(bytes.byteLength, at + this.missing);
    const piece = bytes.subarray(at, end);
    if (this.isMasked) {
      for (let i = 0; i < piece.length; i++) piece[i] = (piece[i] ?? 0) ^ (this.mask[(this.maskAt + i) & 3] ?? 0);
      this.maskAt = (this.maskAt + piece.length) & 3;
    }
    this.missing -= piece.length;
    if (this.opcode >= OPCODE.close) this.control.push(...piece);
    else this.events.data(piece);
    if (this.missing === 0) this.finishFrame();
    return end;
  }

  private finishFrame(): void {
    this.headBytes = 0;
    this.headLength = 2;
    this.inPayload = false;
    const payload = Uint8Array.from(this.control);
    if (this.opcode === OPCODE.ping) this.events.ping(payload);
    else if (this.opcode === OPCODE.close) {
      const code = payload.length >= 2 ? ((payload[0] ?? 0) << 8) | (payload[1] ?? 0) : 1005;
      this.events.goodbye(code, new TextDecoder().decode(payload.subarray(2)));
    } else if (this.opcode < OPCODE.close && this.fin) {
      this.inMessage = false;
      this.messageBytes = 0;
      this.events.messageEnd();
    }
  }
}

export interface ChannelEnd {
  readonly because: string;
  readonly error: LockstepError | null;
}

/** What comes in over a channel. Each may throw LockstepError: the channel is closed with it. */
export interface ChannelEvents {
  data(bytes: Uint8Array): void;
  /** See WebSocketEvents. */
  landing?(): Uint8Array | null;
  landed?(count: number): void;
  /** True where the message goes on with what is read little by little, so that what follows is left for `landing`. */
  atHeader?(): boolean;
  messageEnd(): void;
  /** The other side's ping; it is not answered by itself. */
  ping(): void;
}

/** The frames of one upgraded socket, both ways. Nothing is read before `open`. */
export class WebSocketChannel {
  private readonly socket: Duplex;
  private readonly isClient: boolean;
  private readonly maxMessageBytes: number;
  private readonly pingFrame: Uint8Array;
  private head: Uint8Array;
  private reading: Duplex | null = null;
  private reason: ChannelEnd | null = null;
  private saidGoodbye = false;
  private ended = false;
  private pending = 0;
  private readonly drains: (() => void)[] = [];
  private resolveClosed: (end: ChannelEnd) => void = () => {};
  readonly closed: Promise<ChannelEnd>;
  bytesOut = 0;
  bytesIn = 0;

  /** @param head bytes that came with the upgrade */
  constructor(socket: Duplex, options: { isClient: boolean; head: Uint8Array; maxMessageBytes: number }) {
    this.socket = socket;
    this.isClient = options.isClient;
    this.maxMessageBytes = options.maxMessageBytes;
    this.head = options.head;
    this.pingFrame = encodeHead(OPCODE.ping, 0, options.isClient);
    this.closed = new Promise((resolve) => {
      this.resolveClosed = resolve;
    });
    this.watch(socket);
  }

  /** Reads from now on; what has come so far comes first. */
  open(events: ChannelEvents): void {
    const reader = new WebSocketReader({
      events: {
        data: (bytes) => events.data(bytes),
        landing: () => events.landing?.() ?? null,
        landed: (count) => events.landed?.(count),
        messageEnd: () => events.messageEnd(),
        ping: () => events.ping(),
        goodbye: (code, reason) => this.hear(code, reason),
      },
      expectMasked: !this.isClient,
      maxMessageBytes: this.maxMessageBytes,
    });
    const isOver = (): boolean => this.ended || (this.reason !== null && this.reason.error !== null);
    const guarded = (count: number, work: () => void): void => {
      if (isOver()) return;
      this.bytesIn += count;
      try {
        work();
      } catch (error) {
        this.break(error);
      }
    };
    const take = (bytes: Uint8Array): void => guarded(bytes.byteLength, () => reader.push(bytes));
    const intake: Intake = {
      take,
      landing: () => (isOver() ? null : reader.landing()),
      landed: (count) => guarded(count, () => reader.landed(count)),
      atHead: () => reader.atHead || events.atHeader?.() === true,
    };
    const early = [this.head];
    this.head = new Uint8Array(0);
    for (let chunk: unknown = this.socket.read(); chunk !== null; chunk = this.socket.read()) {
      if (chunk instanceof Uint8Array) early.push(chunk);
    }
    this.reading = readFast(this.socket, intake);
    if (this.reading !== this.socket) this.watch(this.reading);
    for (const bytes of early) take(bytes);
  }

  /** Sends one binary message made of `chunks`, which must stay as they are until `drained`. */
  send(chunks: readonly Uint8Array[]): void {
    if (this.reason !== null || this.ended) return;
    const length = chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
    this.write([encodeHead(OPCODE.binary, length, this.isClient), ...chunks]);
  }

  ping(): void {
    if (this.reason === null && !this.ended) this.write([this.pingFrame]);
  }

  drained(): Promise<void> {
    if (this.pending === 0 || this.ended) return Promise.resolve();
    return new Promise((resolve) => {
      this.drains.push(resolve);
    });
  }

  close(because: string): void {
    this.finish({ because, error: null }, NORMAL_CLOSURE);
  }

  /** Closes it because of what the other side sent. */
  break(error: unknown): void {
    const refused =
      error instanceof LockstepError ? error : new LockstepError('E_FRAME', String(error), { cause: error });
    this.finish({ because: refused.message, error: refused }, PROTOCOL_ERROR);
  }

  /** Ends it at once, without a goodbye. */
  destroy(): void {
    this.writer.destroy();
  }

  private get writer(): Duplex {
    return this.reading ?? this.socket;
  }

  private write(chunks: readonly Uint8Array[]): void {
    const { writer } = this;
    writer.cork();
    for (const [i, chunk] of chunks.entries()) {
      this.bytesOut += chunk.byteLength;
      if (i < chunks.length - 1) writer.write(chunk);
      else {
        this.pending++;
        writer.write(chunk, () => {
          this.pending--;
          if (this.pending === 0) this.wakeDrains();
        });
      }
    }
    writer.uncork();
  }

  private finish(end: ChannelEnd, code: number): void {
    if (this.reason !== null || this.ended) return;
    this.reason = end;
    this.sayGoodbye(code, end.because);
    // What it still sends is of no interest; the socket closes when both have said goodbye, or breaks.
    if (end.error !== null) this.writer.once('finish', () => this.destroy());
  }

  private sayGoodbye(code: number, because: string): void {
    if (this.saidGoodbye) return;
    this.saidGoodbye = true;
    const text = new TextEncoder().encode(because).subarray(0, MAX_CONTROL_BYTES - 2);
    this.write([
      encodeHead(OPCODE.close, 2 + text.length, this.isClient),
      Uint8Array.of(code >> 8, code & 255, ...text),
    ]);
    this.writer.end();
  }

  private hear(code: number, reason: string): void {
    this.reason ??= { because: reason === '' ? `closed with code ${code}` : reason, error: null };
    this.sayGoodbye(NORMAL_CLOSURE, '');
  }

  private watch(socket: Duplex): void {
    socket.on('error', (error: Error) => {
      this.reason ??= { because: error.message, error: null };
    });
    socket.on('close', () => {
      if (this.ended || (this.reading !== null && socket !== this.reading)) return;
      this.ended = true;
      this.wakeDrains();
      this.resolveClosed(this.reason ?? { because: 'the connection broke off', error: null });
    });
    socket.on('end', () => {
      // A peer that ends without a goodbye has died.
      if (socket === this.writer) socket.end();
    });
  }

  private wakeDrains(): void {
    for (const resolve of this.drains.splice(0)) resolve();
  }
}

/** What takes a socket's bytes: where they lie, or where it asked for them. */
interface Intake {
  take(bytes: Uint8Array): void;
  landing(): Uint8Array | null;
  landed(count: number): void;
  atHead(): boolean;
}

/**
 * Reads `socket` through one buffer that is used again and again, where Node can: that is twice as fast as a new one for each
 * read. Payloads go past it, straight to where they are to lie: Node asks for a buffer before each read, and where a frame's head
 * is next the buffer is no longer than that, so that no payload comes with it. Node gives buffers to sockets when they are made,
 * and those of a server are made without; so the handle moves to a new socket. Returns the socket that is to be used from now on.
 */
function readFast(socket: Duplex, intake: Intake): Duplex {
  const handle = socket instanceof Socket && socket.constructor === Socket ? handleOf(socket) : null;
  if (handle === null) {
    socket.on('data', (bytes: Uint8Array) => intake.take(bytes));
    return socket;
  }
  const buffer = new Uint8Array(READ_BUFFER_BYTES);
  const head = buffer.subarray(0, HEAD_READ_BYTES);
  let landing: Uint8Array | null = null;
  const options = {
    handle,
    onread: {
      buffer: (): Uint8Array => {
        landing = intake.landing();
        return landing ?? (intake.atHead() ? head : buffer);
      },
      callback: (read: number) => {
        if (landing === null) intake.take(buffer.subarray(0, read));
        else intake.landed(read);
        return true;
      },
    },
  };
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- `handle` is not in Node's types
  const fast = new Socket(options as SocketConstructorOpts);
  fast.setNoDelay(true);
  // Its server counts it until it is closed.
  socket.destroy();
  return fast;
}

/** Node's name for what a socket reads and writes through. */
const HANDLE = '_handle';

/** Takes the handle away from a socket that has nothing left to write; null when there is none to take. */
function handleOf(socket: Socket): object | null {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- not in Node's types; where it is another, the check below says so
  const owner = socket as unknown as Record<typeof HANDLE, { reading?: boolean; readStop?(): void } | null | undefined>;
  const handle = owner[HANDLE];
  if (handle === undefined || handle === null || typeof handle.readStop !== 'function' || socket.writableLength > 0) {
    return null;
  }
  handle.readStop();
  handle.reading = false;
  owner[HANDLE] = null;
  return handle;
}

/** The system's number of an open socket; null where Node does not tell. */
export function descriptorOf(socket: Duplex): number | null {
  const handle: unknown = HANDLE in socket ? socket[HANDLE] : null;
  if (typeof handle !== 'object' || handle === null || !('fd' in handle)) return null;
  return typeof handle.fd === 'number' && handle.fd >= 0 ? handle.fd : null;
}
