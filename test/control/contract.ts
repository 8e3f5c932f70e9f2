// What the control channel between a worker and its coordinator must do, whatever carries it: one suite, run for each way.

import { setImmediate as nextTurn } from 'node:timers/promises';
import { Packr } from 'msgpackr';
import { expect, it } from 'vitest';
import type { ControlConnection } from '../../coordinator/control-connection.ts';
import {
  encodeMessage,
  PROTOCOL_VERSION,
  type CoordinatorMessage,
  type StatePart,
  type WorkerMessage,
} from '../../protocol/messages.ts';
import { makeToken, type Scope } from '../../protocol/token.ts';
import type { ControlLink } from '../../worker/control-link.ts';

export const TOKEN = 'the token of the run';

/** One end of a channel of another make than ours: whole messages as bytes. */
export interface RawEnd {
  send(message: Uint8Array): void;
  /** Stops reading, and goes on. */
  hold(): void;
  release(): void;
  /** Why the other side ended it. */
  readonly closed: Promise<string>;
  /** Dies as a process does: without a word. */
  kill(): void;
}

/** The coordinator's door, and what it told of. */
export interface Door {
  readonly refused: string[];
  readonly warnings: string[];
  /** The connections that were let in, in order, with what was heard on each. */
  arrival(): Promise<Arrival>;
  connect(token: string | null): Promise<ControlLink>;
  connectRaw(): Promise<RawEnd>;
  close(): Promise<void>;
}

export class Arrival {
  readonly connection: ControlConnection;
  readonly heard: WorkerMessage[] = [];
  private waiting: { readonly count: number; readonly resolve: () => void }[] = [];

  constructor(connection: ControlConnection) {
    this.connection = connection;
    connection.onMessage((message) => {
      this.heard.push(message);
      this.waiting = this.waiting.filter(({ count, resolve }) => {
        if (this.heard.length >= count) resolve();
        return this.heard.length < count;
      });
    });
  }

  async until(count: number): Promise<void> {
    if (this.heard.length >= count) return;
    await new Promise<void>((resolve) => {
      this.waiting.push({ count, resolve });
    });
  }
}

/** Hands arrivals to whoever waits for one, in order. */
export function arrivals(): { add(connection: ControlConnection): void; next(): Promise<Arrival> } {
  const arrived: Arrival[] = [];
  const waiting: ((arrival: Arrival) => void)[] = [];
  return {
    add: (connection) => {
      const arrival = new Arrival(connection);
      const wanted = waiting.shift();
      if (wanted === undefined) arrived.push(arrival);
      else wanted(arrival);
    },
    next: () => {
      const arrival = arrived.shift();
      if (arrival !== undefined) return Promise.resolve(arrival);
      return new Promise((resolve) => {
        waiting.push(resolve);
      });
    },
  };
}

export interface ControlWay {
  open(options?: { connectionsMax?: number; helloMs?: number }): Promise<Door>;
  /** A coordinator of another make, and a worker's link to it. */
  rawCoordinator(): Promise<{ link: ControlLink; raw: RawEnd }>;
}

export const HELLO: Extract<WorkerMessage, { kind: 'hello' }> = {
  kind: 'hello',
  protocol: PROTOCOL_VERSION,
  lockstep: '0.1.0',
  node: 'v20',
  host: 'h',
  pid: 7,
  localRank: null,
  rejoin: null,
};
const linked = (generation: number): WorkerMessage => ({ kind: 'linked', generation, step: 0, digest: 'a'.repeat(64) });
const stop = (because: string): CoordinatorMessage => ({ kind: 'stop', because });
const PART_FLOATS = 2 * 1024 * 1024;
const part = (index: number): StatePart => ({
  kind: 'state',
  step: 5,
  digest: 'a'.repeat(64),
  vector: 'weights',
  vectorIndex: 0,
  vectors: 1,
  offset: index * PART_FLOATS,
  length: 10 * PART_FLOATS,
  bytes: new Uint8Array(4 * PART_FLOATS).fill(index + 1),
});

export function controlContract(way: ControlWay): void {
  it('carries messages both ways in order, those that come before anybody listens included', async () => {
    const door = await way.open();
    const link = await door.connect(TOKEN);
    const arrival = await door.arrival();
    for (const because of ['1', '2', '3']) arrival.connection.send(stop(because));
    link.send(HELLO);
    for (const generation of [1, 2, 3]) link.send(linked(generation));
    await arrival.until(4);
    expect(arrival.heard).toEqual([HELLO, linked(1), linked(2), linked(3)]);
    expect(await link.next()).toEqual(stop('1'));
    const rest: CoordinatorMessage[] = [];
    await new Promise<void>((resolve) => {
      link.listen((message) => {
        rest.push(message);
        if (rest.length === 2) resolve();
      });
    });
    expect(rest).toEqual([stop('2'), stop('3')]);
    await link.close();
  });

  it('names workers in the order of arrival', async () => {
    const door = await way.open();
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) {
      await door.connect(TOKEN);
      ids.push((await door.arrival()).connection.id);
    }
    expect(ids).toEqual(['w0', 'w1', 'w2']);
  });

  it('carries a state in parts of 8 MiB, to the byte, and what follows it after it; both ways', async () => {
    const door = await way.open();
    const link = await door.connect(TOKEN);
    const arrival = await door.arrival();
    link.send(HELLO);
    for (let i = 0; i < 3; i++) {
      link.send(part(i));
      await link.drained();
    }
    link.send(linked(9));
    await arrival.until(5);
    expect(arrival.heard.map(({ kind }) => kind)).toEqual(['hello', 'state', 'state', 'state', 'linked']);
    for (let i = 0; i < 3; i++) {
      const message = arrival.heard[i + 1];
      expect(message?.kind === 'state' && Buffer.compare(message.bytes, part(i).bytes) === 0).toBe(true);
    }
    for (let i = 0; i < 3; i++) arrival.connection.send(part(i));
    for (let i = 0; i < 3; i++) {
      const message = await link.next();
      expect(message.kind === 'state' && Buffer.compare(message.bytes, part(i).bytes) === 0).toBe(true);
    }
  });

  it('holds a sender back whose coordinator does not read', async () => {
    const { link, raw } = await way.rawCoordinator();
    raw.hold();
    for (let i = 0; i < 5; i++) link.send(part(i));
    let hasLeft = false;
    const drained = link.drained().then(() => (hasLeft = true));
    for (let turn = 0; turn < 50; turn++) await nextTurn();
    expect(hasLeft).toBe(false);
    raw.release();
    await drained;
  });

  it('delivers what a worker said before it left', async () => {
    const door = await way.open();
    const link = await door.connect(TOKEN);
    const arrival = await door.arrival();
    link.send(HELLO);
    link.send({ kind: 'failed', code: 'E_TRACE', message: 'm', stack: 's' });
    await link.close();
    expect((await arrival.connection.closed).because).not.toBe('');
    expect(arrival.heard.map(({ kind }) => kind)).toEqual(['hello', 'failed']);
  });

  it('tells the coordinator of a worker’s death', async () => {
    const door = await way.open();
    const raw = await door.connectRaw();
    const arrival = await door.arrival();
    raw.send(encodeMessage(HELLO));
    await arrival.until(1);
    raw.kill();
    expect((await arrival.connection.closed).because).not.toBe('');
  });

  it('tells a worker of its coordinator’s death, one that waits for a message included', async () => {
    const { link, raw } = await way.rawCoordinator();
    const next = link.next();
    raw.kill();
    await expect(next).rejects.toMatchObject({ code: 'E_COORDINATOR_LOST' });
    expect((await link.closed).code).toBe('E_COORDINATOR_LOST');
    await expect(link.next()).rejects.toMatchObject({ code: 'E_COORDINATOR_LOST' });
    await link.close();
  });

  it.each([
    ['not MessagePack', Buffer.from([0xc1])],
    ['of no known kind', new Packr({ useRecords: false }).pack({ kind: 'gossip' })],
    ['with a field of the wrong type', new Packr({ useRecords: false }).pack({ ...HELLO, pid: 'seven' })],
  ])('refuses a worker’s message that is %s with E_MESSAGE, and hears no more of it; others go on', async (_, bad) => {
    const door = await way.open();
    const good = await door.connect(TOKEN);
    const atGood = await door.arrival();
    const raw = await door.connectRaw();
    const atBad = await door.arrival();
    raw.send(bad);
    raw.send(encodeMessage(HELLO));
    expect(await raw.closed).toMatch(/E_MESSAGE: /);
    await atBad.connection.closed;
    expect(atBad.heard).toEqual([]);
    expect(door.refused).toEqual(['E_MESSAGE']);
    expect(door.warnings).toEqual([expect.stringMatching(/^w1 sent a /)]);
    good.send(HELLO);
    await atGood.until(1);
  });

  it('answers a greeting of another version, whatever else is in it, and lets its sender go', async () => {
    const door = await way.open();
    const link = await door.connect(TOKEN);
    const { connection } = await door.arrival();
    link.send({ ...HELLO, protocol: HELLO.protocol + 1, tomorrow: true } as typeof HELLO);
    const because = `worker on ${HELLO.host} speaks protocol ${HELLO.protocol + 1}, this coordinator ${HELLO.protocol}: install the same Lockstep on both`;
    expect(await link.next()).toEqual({ kind: 'refused', code: 'E_PROTOCOL_VERSION', because });
    expect((await connection.closed).because).toBe(because);
    expect(door.refused).toEqual(['E_PROTOCOL_VERSION']);
    expect(door.warnings).toEqual([because]);
  });

  it('drops a coordinator that sends what is no message', async () => {
    const { link, raw } = await way.rawCoordinator();
    raw.send(Buffer.from([0xc1]));
    expect(await link.closed).toMatchObject({
      code: 'E_COORDINATOR_LOST',
      message: expect.stringMatching(/sent a (malformed )?message/) as string,
    });
  });

  it.each<[string, string | null]>([
    ['no token', null],
    ['a wrong token', 'another'],
    ['a longer token', `${TOKEN}2`],
    ['an empty token', ''],
  ])('lets nobody in with %s', async (_, token) => {
    const door = await way.open();
    await expect(door.connect(token)).rejects.toThrow(/401|refused this worker's token/);
    expect(door.refused).toEqual(['E_UNAUTHORIZED']);
  });

  it('lets in a worker with a token that was made for workers from the run’s, and no other', async () => {
    const door = await way.open();
    const made = (scope: Scope, expiresAtSeconds: number | null): string =>
      makeToken(TOKEN, { scope, expiresAtSeconds, id: 'x' });
    const link = await door.connect(made('work', null));
    const arrival = await door.arrival();
    link.send(HELLO);
    await arrival.until(1);
    await door.connect(made('control', null));
    await expect(door.connect(made('observe', null))).rejects.toMatchObject({ code: 'E_FORBIDDEN' });
    await expect(door.connect(made('work', 1))).rejects.toMatchObject({ code: 'E_TOKEN_EXPIRED' });
    const forged = makeToken('another', { scope: 'work', expiresAtSeconds: null, id: 'x' });
    await expect(door.connect(forged)).rejects.toMatchObject({ code: 'E_UNAUTHORIZED' });
    expect(door.refused).toEqual(['E_FORBIDDEN', 'E_TOKEN_EXPIRED', 'E_UNAUTHORIZED']);
  });

  it('refuses a first message that is longer than an introduction may be', async () => {
    const door = await way.open();
    const raw = await door.connectRaw();
    await door.arrival();
    raw.send(new Packr({ useRecords: false }).pack({ ...HELLO, host: 'h'.repeat(17_000) }));
    expect(await raw.closed).toMatch(/E_TOO_LARGE: /);
    expect(door.refused).toEqual(['E_TOO_LARGE']);
  });

  it('closes a worker that sends more messages than one may', async () => {
    const door = await way.open();
    const raw = await door.connectRaw();
    const arrival = await door.arrival();
    raw.send(encodeMessage(HELLO));
    for (let i = 0; i < 4000; i++) raw.send(encodeMessage(linked(1)));
    expect(await raw.closed).toMatch(/E_TOO_FAST: /);
    await arrival.connection.closed;
    expect(door.refused).toEqual(['E_TOO_FAST']);
  });

  it('lets in no more than the limit, and one that leaves makes room', async () => {
    const door = await way.open({ connectionsMax: 1 });
    const link = await door.connect(TOKEN);
    const { connection } = await door.arrival();
    await expect(door.connect(TOKEN)).rejects.toThrow(/503/);
    expect(door.refused).toEqual(['E_TOO_MANY']);
    await link.close();
    await connection.closed;
    await door.connect(TOKEN);
  });

  it('closes a peer that says nothing in time', async () => {
    const door = await way.open({ helloMs: 5 });
    const raw = await door.connectRaw();
    const { connection } = await door.arrival();
    expect(await raw.closed).toContain('E_HANDSHAKE: no "hello" within 0.005 s');
    expect((await connection.closed).because).toBe('no "hello" within 0.005 s');
    expect(door.refused).toEqual(['E_HANDSHAKE']);
  });

  it('tells a worker with which code and why it is closed', async () => {
    const door = await way.open();
    const link = await door.connect(TOKEN);
    const { connection } = await door.arrival();
    connection.send({ kind: 'refused', code: 'E_FINGERPRINT', because: 'other bits' });
    connection.close('E_FINGERPRINT', 'other bits');
    expect(await link.next()).toMatchObject({ kind: 'refused' });
    expect((await link.closed).message).toContain('E_FINGERPRINT: other bits');
    expect((await connection.closed).because).toBe('other bits');
  });

  it('ends with the run, and nobody is found any more', async () => {
    const door = await way.open();
    const link = await door.connect(TOKEN);
    const { connection } = await door.arrival();
    connection.send({ kind: 'dismissed', outcome: 'done', because: 'the run is done' });
    await door.close();
    expect(await link.next()).toMatchObject({ kind: 'dismissed' });
    expect((await link.closed).message).toContain('the run is over');
    await expect(door.connect(TOKEN)).rejects.toMatchObject({ code: 'E_COORDINATOR_LOST' });
  });
}
