// The control channel over a real NATS server on loopback, and what only NATS has: runs that share a server, strangers on it, its
// limits, its death.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { openNatsControl } from '../../coordinator/nats/control.ts';
import { claimRun } from '../../coordinator/nats/rivals.ts';
import { connectNats, type Nats } from '../../nats/connect.ts';
import { callOn, listenOn } from '../../nats/meet.ts';
import type { NatsServer } from '../../nats/server.ts';
import type { NatsStream } from '../../nats/stream.ts';
import { SMALL_WINDOW_BYTES } from '../../protocol/byte-stream.ts';
import { messageHead } from '../../protocol/message-stream.ts';
import type { WorkerMessage } from '../../protocol/messages.ts';
import { fixedSilence } from '../../protocol/silence.ts';
import type { ControlLink } from '../../worker/control-link.ts';
import { connectControlOverNats } from '../../worker/nats-control-link.ts';
import { makeAuthority, makeCertificate } from '../certificates.ts';
import { arrivals, controlContract, TOKEN, type ControlWay, type RawEnd } from '../control/contract.ts';
import { writeAccounts } from './nats-accounts.ts';
import { serverAt, startNatsServer, type RunningServer } from './nats-server.ts';

const RUN = 'run-1';
const SUBJECT = `lockstep.${RUN}.control`;
const timing = { beatMs: 100, silence: fixedSilence(5000) };

let running: RunningServer;
let server: NatsServer;
const opened: { close(): Promise<void> }[] = [];
const keep = <T extends { close(): Promise<void> }>(one: T): T => {
  opened.push(one);
  return one;
};
/** A server of the test's own, which ends with it, also when it fails. */
const ownServer = async (...flags: readonly string[]): Promise<RunningServer> => {
  const own = await startNatsServer(...flags);
  keep({ close: () => own.kill() });
  return own;
};
const connection = async (): Promise<Nats> => keep(await connectNats(server, 'test'));

beforeAll(async () => {
  running = await startNatsServer();
  server = serverAt(running.url);
});
afterEach(async () => {
  for (const one of opened.splice(0).toReversed()) await one.close();
});
afterAll(async () => {
  await running.kill();
});

const joined = async (run: string, token: string | null): Promise<ControlLink> =>
  keep(await connectControlOverNats(server, run, token, null, timing));

function rawEnd(nats: Nats, stream: NatsStream): RawEnd {
  let isHeld = false;
  // Reading begins a little later, so that there is something to hold.
  setImmediate(() => {
    if (!isHeld) stream.receive(() => {});
  });
  return {
    send: (message) => stream.send(messageHead(message), message),
    hold: () => {
      isHeld = true;
    },
    release: () => stream.receive(() => {}),
    closed: stream.closed.then(({ because }) => because),
    kill: () => void nats.connection.close(),
  };
}

async function openDoor(
  run: string,
  { connectionsMax, helloMs }: { connectionsMax?: number; helloMs?: number } = {},
): ReturnType<ControlWay['open']> {
  const nats = await connection();
  const [refused, warnings, come]: [string[], string[], ReturnType<typeof arrivals>] = [[], [], arrivals()];
  const control = await openNatsControl(nats, {
    run,
    token: TOKEN,
    timing,
    onConnect: (made) => come.add(made),
    onRefused: (code) => refused.push(code),
    onWarning: (message) => warnings.push(message),
    ...(connectionsMax !== undefined && { connectionsMax }),
    ...(helloMs !== undefined && { helloMs }),
  });
  return {
    refused,
    warnings,
    arrival: come.next,
    connect: (token) => joined(run, token),
    connectRaw: async () => {
      const own = await connection();
      const whom = 'the coordinator';
      const stream = await callOn(own, SUBJECT, {
        token: TOKEN,
        about: {},
        whom,
        lostCode: 'E_COORDINATOR_LOST',
        windows: { windowIn: SMALL_WINDOW_BYTES },
        timing,
      });
      return rawEnd(own, stream);
    },
    close: () => control.close(),
  };
}

const way: ControlWay = {
  open: (options) => openDoor(RUN, options),
  rawCoordinator: async () => {
    const nats = await connection();
    let take: (stream: NatsStream) => void = () => {};
    const called = new Promise<NatsStream>((resolve) => {
      take = resolve;
    });
    const listening = await listenOn(nats, SUBJECT, {
      token: TOKEN,
      timing,
      windows: { windowOut: SMALL_WINDOW_BYTES },
      onRefused: () => {},
      onCall: (_about, open) => {
        take(open());
        return null;
      },
    });
    const link = await joined(RUN, TOKEN);
    keep({ close: async () => (nats.connection.isClosed() ? undefined : listening.close()) });
    return { link, raw: rawEnd(nats, await called) };
  },
};

describe('the control channel over NATS', () => {
  controlContract(way);
});

const linked = (generation: number): WorkerMessage => ({
  kind: 'linked',
  generation,
  step: 0,
  digest: 'a'.repeat(64),
});

describe('on a NATS server', () => {
  it('two runs do not hear each other, and a run without a coordinator is named', async () => {
    const [first, second] = [await openDoor('run-1'), await openDoor('run-2')];
    const link = await first.connect(TOKEN);
    const atFirst = await first.arrival();
    const other = await second.connect(TOKEN);
    const atSecond = await second.arrival();
    link.send(linked(1));
    other.send(linked(2));
    await Promise.all([atFirst.until(1), atSecond.until(1)]);
    expect([atFirst.heard, atSecond.heard]).toEqual([[linked(1)], [linked(2)]]);
    expect(first.refused.concat(second.refused)).toEqual([]);
    await expect(joined('run 3', TOKEN)).rejects.toMatchObject({
      code: 'E_COORDINATOR_LOST',
      message: `no link to the coordinator at ${running.url}/run%203: nobody listens there`,
    });
  });

  it('a stream whose connection is being closed says nothing more, and throws nothing', async () => {
    const door = await openDoor(RUN);
    const own = await connection();
    const options = { token: TOKEN, about: {}, whom: 'x', lostCode: 'E_COORDINATOR_LOST', timing } as const;
    const stream = await callOn(own, SUBJECT, options);
    await door.arrival();
    const closed = own.close().then(() => true);
    // At every turn until it is closed: it takes nothing more from some moment in between.
    while (!(await Promise.race([closed, nextTurn(false)]))) {
      expect(() => stream.send(new Uint8Array(8))).not.toThrow();
    }
    expect((await stream.closed).because).toContain('closed');
  });

  it('the token crosses the server for nobody to read', async () => {
    const ear = await connection();
    const said: string[] = [];
    ear.connection.subscribe('>', {
      callback: (_error, message) => {
        said.push(`${message.subject} ${message.string()}`);
        return undefined;
      },
    });
    await ear.connection.flush();
    const door = await openDoor(RUN);
    const link = await door.connect(TOKEN);
    const arrival = await door.arrival();
    link.send(linked(1));
    await arrival.until(1);
    await expect(door.connect('a guess')).rejects.toMatchObject({ code: 'E_UNAUTHORIZED' });
    await ear.connection.flush();
    expect(said.length).toBeGreaterThan(3);
    for (const text of said) expect(text).not.toMatch(/the token of the run|a guess/);
  });

  it('a stranger who publishes on the subject of the run is refused and disturbs nobody', async () => {
    const door = await openDoor(RUN);
    const link = await door.connect(TOKEN);
    const arrival = await door.arrival();
    const stranger = await connection();
    const ask = async (text: string): Promise<unknown> =>
      (await stranger.connection.request(SUBJECT, text, { timeout: 5000 })).json<{ answer: string }>().answer;
    expect(await ask('')).toBe('400 E_MESSAGE');
    expect(await ask('{"call":"x"}')).toBe('400 E_MESSAGE');
    const call = { call: 'a'.repeat(32), about: '{}', claim: '', proof: 'b'.repeat(64) };
    expect(await ask(JSON.stringify(call))).toBe('401 E_UNAUTHORIZED');
    expect(await ask(JSON.stringify({ ...call, claim: 'lockstep1.control.never.x' }))).toBe('401 E_UNAUTHORIZED');
    expect(door.refused).toEqual(['E_MESSAGE', 'E_MESSAGE', 'E_UNAUTHORIZED', 'E_UNAUTHORIZED']);
    link.send(linked(1));
    await arrival.until(1);
  });

  it('a call that was recorded is refused when it comes again, and the link that it made goes on', async () => {
    const door = await openDoor(RUN);
    const ear = await connection();
    const calls: string[] = [];
    ear.connection.subscribe(SUBJECT, { callback: (_error, message) => void calls.push(message.string()) });
    await ear.connection.flush();
    const link = await door.connect(TOKEN);
    const arrival = await door.arrival();
    await expect.poll(() => calls.length).toBe(1);
    const answer = await ear.connection.request(SUBJECT, calls[0] ?? '', { timeout: 5000 });
    expect(answer.json<{ answer: string }>().answer).toBe('409 E_REPLAYED');
    expect(door.refused).toEqual(['E_REPLAYED']);
    link.send(linked(1));
    await arrival.until(1);
  });

  it('over TLS is trusted by the authority that is given, and by no other', async () => {
    const place = mkdtempSync(join(tmpdir(), 'lockstep-nats-tls-'));
    onTestFinished(() => rmSync(place, { recursive: true, force: true }));
    const authority = makeAuthority();
    const { cert, key } = makeCertificate(['127.0.0.1'], authority);
    for (const [name, text] of Object.entries({ cert, key })) writeFileSync(join(place, name), text);
    const own = await ownServer('--tls', '--tlscert', join(place, 'cert'), '--tlskey', join(place, 'key'));
    const at = serverAt(own.url.replace('nats:', 'tls:'));
    const nats = keep(await connectNats({ ...at, ca: authority.cert }, 'test'));
    await nats.connection.flush();
    for (const ca of [null, makeAuthority('another').cert]) {
      await expect(connectNats({ ...at, ca }, 'test')).rejects.toMatchObject({ code: 'E_NATS_UNREACHABLE' });
    }
  });

  it('who answers in the coordinator’s place without its token is not believed', async () => {
    const impostor = await connection();
    await listenOn(impostor, SUBJECT, { token: null, onRefused: () => {}, onCall: (_about, open) => (open(), null) });
    await expect(joined(RUN, TOKEN)).rejects.toMatchObject({
      code: 'E_UNAUTHORIZED',
      message: expect.stringContaining("does not know the run's token") as string,
    });
  });

  it('a second coordinator of the run is refused with who has it; of another run it is not', async () => {
    const [first, second] = [await connection(), await connection()];
    await claimRun(first, RUN, { host: 'red', pid: 11 });
    await expect(claimRun(second, RUN, { host: 'blue', pid: 12 })).rejects.toMatchObject({
      code: 'E_RUN_IN_USE',
      message: `the run run-1 has a coordinator on the NATS server at ${running.url} already: process 11 on red`,
    });
    await claimRun(second, 'run-2', { host: 'blue', pid: 12 });
    await first.close();
    await claimRun(second, RUN, { host: 'blue', pid: 12 });
  });

  it('of two coordinators that begin at once, not both have the run', async () => {
    const [first, second] = [await connection(), await connection()];
    const claims = await Promise.allSettled([
      claimRun(first, RUN, { host: 'red', pid: 11 }),
      claimRun(second, RUN, { host: 'blue', pid: 12 }),
    ]);
    expect(claims.filter(({ status }) => status === 'fulfilled').length).toBeLessThan(2);
  });

  it('the end of the server is E_NATS_LOST at the worker, by the server’s name', async () => {
    const own = await ownServer();
    const nats = await connectNats(serverAt(own.url), 'test');
    await openNatsControl(nats, {
      run: RUN,
      token: TOKEN,
      onConnect: () => {},
      onRefused: () => {},
      onWarning: () => {},
    });
    const link = await connectControlOverNats(serverAt(own.url), RUN, TOKEN);
    await own.kill();
    expect(await link.closed).toMatchObject({
      code: 'E_NATS_LOST',
      message: expect.stringContaining(own.url) as string,
    });
    expect((await nats.lost)?.code).toBe('E_NATS_LOST');
    await link.close();
  });

  it('a server that is not there is named, with what to do', async () => {
    const gone = await ownServer();
    await gone.kill();
    await expect(connectNats(serverAt(gone.url), 'test')).rejects.toMatchObject({
      code: 'E_NATS_UNREACHABLE',
      message: expect.stringContaining(gone.url) as string,
      remedy: expect.stringContaining('--nats-url') as string,
    });
  });
});

describe('a NATS server that asks who comes', () => {
  it.each([
    ['a user and password', ['--user', 'ann', '--pass', 's3cret'], 'ann:s3cret'],
    ['a token', ['--auth', 's3cret'], 's3cret'],
  ])('by %s lets in who has it; a refusal does not repeat it', async (_, flags, secret) => {
    const own = await ownServer(...flags);
    const withSecret = (text: string): NatsServer => serverAt(own.url.replace('//', `//${text}@`));
    await (await connectNats(withSecret(secret), 'test')).close();
    for (const wrong of [serverAt(own.url), withSecret(secret.replace('s3cret', 'guessed'))]) {
      const refusal: unknown = await connectNats(wrong, 'test').catch((error: unknown) => error);
      expect(refusal).toMatchObject({
        code: 'E_NATS_REFUSED',
        remedy: expect.stringContaining('--nats-creds') as string,
      });
      expect(String(refusal)).not.toContain('guessed');
    }
  });
});

describe('a NATS server that waits for nobody', () => {
  it('does not lose a worker whose engine holds its thread while a state is on its way', async () => {
    const own = await ownServer('--config', new URL('nats-impatient.conf', import.meta.url).pathname);
    const nats = await connectNats(serverAt(own.url), 'test');
    const come = arrivals();
    const events = { onConnect: come.add, onRefused: () => {}, onWarning: () => {} };
    const control = await openNatsControl(nats, { run: 'held', token: null, ...events });
    const file = fileURLToPath(new URL('held-process.ts', import.meta.url));
    // Thirty times as long as the server waits for a subscriber to read.
    const worker = spawn(process.execPath, ['--import', 'tsx', file, own.url, '3000']);
    onTestFinished(() => {
      worker.kill('SIGKILL');
    });
    const said = once(worker.stdout, 'data');
    const arrival = await come.next();
    await arrival.until(1);
    arrival.connection.send({ kind: 'stop', because: 'now' });
    const bytes = new Uint8Array(8 * 1024 * 1024);
    const whole = {
      kind: 'state',
      step: 1,
      digest: 'a'.repeat(64),
      vector: 'weights',
      vectorIndex: 0,
      vectors: 1,
    } as const;
    for (let i = 0; i < 3; i++) arrival.connection.send({ ...whole, offset: 0, length: bytes.length / 4, bytes });
    arrival.connection.send({ kind: 'stop', because: 'that is all' });
    expect(String((await said)[0])).toBe(`${3 * bytes.length}\n`);
    await control.close();
    await nats.close();
  });
});

describe('a NATS server with accounts', () => {
  it('lets in who shows a credentials file', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'lockstep-test-'));
    const { config, credentials } = writeAccounts(directory);
    const own = await ownServer('--config', config);
    await expect(connectNats(serverAt(own.url), 'test')).rejects.toMatchObject({ code: 'E_NATS_REFUSED' });
    const shown = { ...serverAt(own.url), credentials: readFileSync(credentials, 'utf8') };
    const nats = await connectNats(shown, 'test');
    await claimRun(nats, RUN, { host: 'red', pid: 11 });
    await nats.close();
    rmSync(directory, { recursive: true });
  });

  it('that does not allow the subjects of a run is named, with what to allow', async () => {
    const own = await ownServer('--config', new URL('nats-closed.conf', import.meta.url).pathname);
    const nats = await connectNats(serverAt(own.url.replace('//', '//ann:s3cret@')), 'test');
    await expect(claimRun(nats, RUN, { host: 'red', pid: 11 })).rejects.toMatchObject({
      code: 'E_NATS_REFUSED',
      message: expect.stringContaining('lockstep.run-1.coordinator') as string,
      remedy: expect.stringContaining('lockstep.>') as string,
    });
    expect(await nats.lost).toMatchObject({
      code: 'E_NATS_LOST',
      message: expect.stringContaining('lockstep.run-1.coordinator') as string,
    });
  });
});

describe('a NATS server with small messages', () => {
  it('carries the control channel all the same', async () => {
    const own = await ownServer('--config', new URL('nats-small.conf', import.meta.url).pathname);
    const nats = await connectNats(serverAt(own.url), 'test');
    expect(nats.payloadBytes).toBe(1024);
    const come = arrivals();
    const events = { onConnect: come.add, onRefused: () => {}, onWarning: () => {} };
    const control = await openNatsControl(nats, { run: RUN, token: TOKEN, ...events });
    const link = await connectControlOverNats(serverAt(own.url), RUN, TOKEN);
    const arrival = await come.next();
    const long = { kind: 'failed', code: 'E_TRACE', message: 'm'.repeat(8000), stack: 's'.repeat(8000) } as const;
    link.send(long);
    await arrival.until(1);
    expect(arrival.heard).toEqual([long]);
    await link.close();
    await control.close();
    await nats.close();
  });

  it('too small for the handshake is refused with what to change', async () => {
    const own = await ownServer('--config', new URL('nats-tiny.conf', import.meta.url).pathname);
    await expect(connectNats(serverAt(own.url), 'test')).rejects.toMatchObject({
      code: 'E_NATS_REFUSED',
      message: expect.stringContaining('512 bytes a message') as string,
      remedy: expect.stringContaining('max_payload') as string,
    });
  });
});
