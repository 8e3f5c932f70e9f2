// The worker's end of the control link, against a coordinator's endpoint made of stock `ws`.

import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { WebSocketServer, type WebSocket } from 'ws';
import { encodeMessage } from '../../protocol/messages.ts';
import { connectControl } from '../../worker/control-link.ts';

let server: WebSocketServer | undefined;

async function closeServer(): Promise<void> {
  if (server === undefined) return;
  const end = once(server, 'close');
  server.close();
  await end;
  server = undefined;
}

afterEach(async () => {
  for (const client of server?.clients ?? []) client.terminate();
  await closeServer();
});

async function listen(onConnection: (socket: WebSocket, authorization: string | undefined) => void): Promise<string> {
  server = new WebSocketServer({ host: '127.0.0.1', port: 0, path: '/control' });
  server.on('connection', (socket, request) => onConnection(socket, request.headers.authorization));
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const stop = (because: string): Uint8Array => encodeMessage({ kind: 'stop', because });

describe('connectControl', () => {
  it('shows the token in the handshake and delivers messages in order, those that come early included', async () => {
    let shown: string | undefined;
    const url = await listen((socket, authorization) => {
      shown = authorization;
      for (const because of ['1', '2', '3']) socket.send(stop(because));
    });
    const link = await connectControl(url, 'secret');
    expect(await link.next()).toEqual({ kind: 'stop', because: '1' });
    const rest: unknown[] = [];
    await new Promise<void>((resolve) => {
      link.listen((message) => {
        rest.push(message);
        if (rest.length === 2) resolve();
      });
    });
    expect(rest).toEqual([
      { kind: 'stop', because: '2' },
      { kind: 'stop', because: '3' },
    ]);
    expect(shown).toBe('Bearer secret');
    await link.close();
  });

  it('names the address when no coordinator can be joined there', async () => {
    const url = await listen(() => {});
    await closeServer();
    await expect(connectControl(url, null)).rejects.toMatchObject({
      code: 'E_COORDINATOR_LOST',
      message: expect.stringContaining(url) as string,
    });
  });

  it('tells a waiting reader and everybody else when the link is lost', async () => {
    const url = await listen((socket) => {
      socket.close(1001, 'going away');
    });
    const link = await connectControl(url, null);
    await expect(link.next()).rejects.toMatchObject({
      code: 'E_COORDINATOR_LOST',
      message: expect.stringContaining('going away') as string,
    });
    expect((await link.closed).code).toBe('E_COORDINATOR_LOST');
  });

  it('drops a coordinator that sends what is no message', async () => {
    const url = await listen((socket) => {
      socket.send(Buffer.from([0xc1]));
    });
    const link = await connectControl(url, null);
    await expect(link.next()).rejects.toMatchObject({
      code: 'E_COORDINATOR_LOST',
      message: expect.stringMatching(/sent a (malformed )?message/) as string,
    });
  });
});
