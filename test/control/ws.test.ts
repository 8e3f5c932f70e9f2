// The control channel over WebSocket; what only a WebSocket has is in test/coordinator/http/control.test.ts.

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, onTestFinished } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { openControl } from '../../coordinator/http/control.ts';
import { connectControl } from '../../worker/control-link.ts';
import { arrivals, controlContract, TOKEN, type ControlWay, type RawEnd } from './contract.ts';
import { judgeBy } from './judge.ts';

function rawEnd(socket: WebSocket): RawEnd {
  socket.on('error', () => {});
  onTestFinished(() => socket.terminate());
  return {
    send: (message) => socket.send(message),
    hold: () => socket.pause(),
    release: () => socket.resume(),
    closed: once(socket, 'close').then(([, reason]) => String(reason)),
    kill: () => socket.terminate(),
  };
}

const way: ControlWay = {
  open: async ({ connectionsMax, helloMs } = {}) => {
    const server = createServer((_request, response) => response.end());
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const [refused, warnings, come]: [string[], string[], ReturnType<typeof arrivals>] = [[], [], arrivals()];
    const control = openControl({
      server,
      judge: judgeBy(TOKEN),
      onConnect: (connection) => come.add(connection),
      onRefused: (code) => refused.push(code),
      onWarning: (message) => warnings.push(message),
      ...(connectionsMax !== undefined && { connectionsMax }),
      ...(helloMs !== undefined && { timing: { helloMs } }),
    });
    const close = async (): Promise<void> => {
      await control.close();
      server.closeAllConnections();
      server.close();
    };
    onTestFinished(close);
    return {
      refused,
      warnings,
      arrival: come.next,
      connect: (token) => connectControl(url, token),
      connectRaw: async () => {
        const socket = new WebSocket(`${url}/control`, { headers: { authorization: `Bearer ${TOKEN}` } });
        const raw = rawEnd(socket);
        await once(socket, 'open');
        return raw;
      },
      close,
    };
  },
  rawCoordinator: async () => {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0, path: '/control' });
    onTestFinished(() => {
      server.close();
    });
    await once(server, 'listening');
    const connection = once(server, 'connection');
    const link = await connectControl(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, TOKEN);
    const [socket] = (await connection) as [WebSocket];
    return { link, raw: rawEnd(socket) };
  },
};

describe('the control channel over WebSocket', () => {
  controlContract(way);
});
