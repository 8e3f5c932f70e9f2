// Links between peers on the simulated network: frames that are cut into pieces anywhere and read when they arrive, not when they are sent
// (what is overwritten too early shows), pushed to the receiver or polled by it; and how peers meet.

import { LockstepError } from '../../protocol/errors.ts';
import {
  encodeFrameHeader,
  FrameReader,
  FRAME_HEADER_BYTES,
  type FrameHeader,
  type FrameSink,
} from '../../protocol/frame.ts';
import type { Link, LinkEnd, Transport } from '../../protocol/link.ts';
import type { PeerAddress } from '../../worker/collective/links/waiting-room.ts';
import type { Meeting } from '../../worker/collective/shell/meeting.ts';
import type { Chance } from './chance.ts';
import { urlOf } from './checks.ts';
import type { End, Network } from './network.ts';
import type { Process } from './world.ts';

const HANDSHAKE_MS = 10_000;
/** What a frame of an older generation carries: nothing that anybody should add. */
const GARBAGE = 0x40;

/** How links carry what they carry, and hand it over. */
export interface Manners {
  /** Share of frames that are cut. */
  readonly cuts: number;
  /** Share of sends whose bytes travel with those before them. */
  readonly joins: number;
  /** Share of pieces that are read straight to where the receiver wants them. */
  readonly landings: number;
  /** Share of frames before which one of an older generation comes. */
  readonly stale: number;
  /** Share of links that the receiver polls, as through shared memory. */
  readonly polled: number;
}

interface Batch {
  readonly pieces: Uint8Array[];
  hasArrived: boolean;
}

const linksOf = new WeakMap<End, FrameLink>();

class FrameLink implements Link {
  readonly transport: Transport;
  readonly closed: Promise<LinkEnd>;
  readonly poll?: () => boolean;
  readonly sleep?: (asleep: boolean) => void;
  bytesOut = 0;
  bytesIn = 0;
  private readonly network: Network;
  private readonly end: End;
  private readonly chance: Chance;
  private readonly manners: Manners;
  private readonly around: (sink: FrameSink) => FrameSink;
  private resolveClosed: (end: LinkEnd) => void = () => {};
  /** What has left and not arrived: more may travel with it. */
  private batch: Batch | null = null;
  private reader: FrameReader | null = null;
  /** What has come and is not taken: before anybody receives, and until the next poll. */
  private readonly come: Batch[] = [];
  private isReceiving = false;
  private isAwake = false;
  private lostBecause: string | null = null;

  constructor(network: Network, end: End, chance: Chance, manners: Manners, around: (sink: FrameSink) => FrameSink) {
    this.around = around;
    this.network = network;
    this.end = end;
    this.chance = chance;
    this.manners = manners;
    this.closed = new Promise((resolve) => {
      this.resolveClosed = resolve;
    });
    const isPolled = chance.happens(manners.polled);
    this.transport = isPolled ? 'shm' : 'tcp';
    if (isPolled) {
      this.poll = () => this.take();
      this.sleep = (asleep) => {
        this.isAwake = !asleep;
      };
    }
    linksOf.set(end, this);
    end.onClose = (because) => {
      this.lostBecause = because;
      if (this.isReceiving) this.take();
    };
  }

  send(header: FrameHeader, payload: Uint8Array): void {
    if (!this.end.isOpen) return;
    if (header.generation > 0 && this.chance.happens(this.manners.stale)) {
      const older = { ...header, generation: this.chance.below(header.generation) };
      this.sendFrame(older, new Uint8Array(payload.byteLength).fill(GARBAGE));
    }
    this.sendFrame(header, payload);
  }

  private sendFrame(header: FrameHeader, payload: Uint8Array): void {
    const { chance, manners, end } = this;
    this.bytesOut += FRAME_HEADER_BYTES + payload.byteLength;
    const whole = [encodeFrameHeader(header), ...(payload.byteLength > 0 ? [payload] : [])];
    for (const [i, piece] of cutUp(whole, chance, manners.cuts).entries()) {
      const joins = i === 0 ? chance.happens(manners.joins) : !chance.happens(manners.cuts);
      if (joins && this.batch?.hasArrived === false) {
        this.batch.pieces.push(piece);
        continue;
      }
      const batch = { pieces: [piece], hasArrived: false };
      this.batch = batch;
      const { generation, step, kind, bucket } = header;
      this.network.post(
        end,
        'frames',
        () => linksOf.get(end.other)?.arrive(batch),
        () => `from ${end.process.name}: generation ${generation} step ${step} ${kind} bucket ${bucket} ...`,
      );
    }
  }

  receive(sink: FrameSink): void {
    this.reader = new FrameReader(this.around(sink));
    this.network.world.after(this.end.process, 0, 'receives', () => {
      this.isReceiving = true;
      this.take();
    });
  }

  /** At the receiver. */
  private arrive(batch: Batch): void {
    batch.hasArrived = true;
    this.come.push(batch);
    if (this.isReceiving && !this.isAwake) this.take();
  }

  /** Hands over what has come; true when there was something. */
  private take(): boolean {
    const batches = this.come.splice(0);
    try {
      for (const piece of batches.flatMap((batch) => batch.pieces)) {
        this.bytesIn += piece.byteLength;
        this.push(piece);
      }
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      this.network.close(this.end, error.message);
      this.resolveClosed({ because: error.message, error });
    }
    if (this.lostBecause !== null) this.resolveClosed({ because: this.lostBecause, error: null });
    return batches.length > 0;
  }

  private push(piece: Uint8Array): void {
    const { reader } = this;
    if (reader === null) return;
    let at = 0;
    while (at < piece.byteLength) {
      const landing = this.chance.happens(this.manners.landings) ? reader.landing() : null;
      if (landing === null || landing.byteLength === 0) {
        reader.push(piece.subarray(at));
        return;
      }
      const bytes = piece.subarray(at, at + landing.byteLength);
      landing.set(bytes);
      reader.landed(bytes.byteLength);
      at += bytes.byteLength;
    }
  }

  drained(): Promise<void> {
    return Promise.resolve();
  }

  cut(): void {
    this.close('cut');
  }

  close(because: string): void {
    if (!this.end.isOpen) return;
    this.network.close(this.end, because);
    this.network.world.after(this.end.process, this.network.latencyUs(), 'has closed', () =>
      this.resolveClosed({ because, error: null }),
    );
  }
}

function cutUp(pieces: readonly Uint8Array[], chance: Chance, cuts: number): Uint8Array[] {
  return pieces.flatMap((piece) => {
    if (!chance.happens(cuts) || piece.byteLength < 2) return [piece];
    const at = 1 + chance.below(piece.byteLength - 1);
    return [piece.subarray(0, at), ...cutUp([piece.subarray(at)], chance, cuts / 2)];
  });
}

interface PeerGreeting {
  readonly self: PeerAddress;
  /** Set when the listener refuses. */
  refused: string | null;
}

/** As links/ws.ts meets: who calls says which generation and rank it is, who is called waits to be asked for it. */
export function simulatedMeeting(
  network: Network,
  process: Process,
  chance: Chance,
  manners: Manners,
  around: (sink: FrameSink) => FrameSink,
): Meeting {
  const url = urlOf(process.name);
  const unclaimed = new Map<string, { link: Link; end: End }>();
  const claims = new Map<string, (link: Link) => void>();
  const keyOf = (peer: PeerAddress): string => `${peer.generation}/${peer.rank}`;
  const stop = network.listen(process, url, (end, greeting) => {
    const { self } = greeting as PeerGreeting;
    const key = keyOf(self);
    if (unclaimed.has(key)) {
      (greeting as PeerGreeting).refused = 'it answered 409 Conflict';
      network.close(end, 'it answered 409 Conflict');
      return;
    }
    const link = new FrameLink(network, end, chance, manners, around);
    const claim = claims.get(key);
    if (claim === undefined) unclaimed.set(key, { link, end });
    else {
      claims.delete(key);
      claim(link);
    }
  });
  return {
    url,
    lost: new Promise(() => {}),
    accept: (peer) => {
      const key = keyOf(peer);
      const waiting = unclaimed.get(key);
      unclaimed.delete(key);
      if (waiting !== undefined) return Promise.resolve(waiting.link);
      return new Promise((resolve) => {
        claims.set(key, resolve);
      });
    },
    connect: async (address, self, who) => {
      const greeting: PeerGreeting = { self, refused: null };
      try {
        const end = await network.dial(process, address, greeting, HANDSHAKE_MS);
        if (greeting.refused !== null) throw new Error(greeting.refused);
        return new FrameLink(network, end, chance, manners, around);
      } catch (cause) {
        const why = cause instanceof Error ? cause.message : String(cause);
        throw new LockstepError('E_PEER_LOST', `no link to ${who} at ${address}: ${why}`, { cause });
      }
    },
    close: async () => {
      stop();
      for (const { link } of unclaimed.values()) link.close('the worker ends');
    },
  };
}
