// A coordinator's process as far as a worker's heart is concerned, for a test that stops it: prints where it listens, then what it hears of a
// worker, and how that one's link ended.

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { openControl } from '../../coordinator/http/control.ts';
import { judgeBy } from '../control/judge.ts';

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const server = createServer((_request, response) => response.end());
server.listen(0, '127.0.0.1');
await once(server, 'listening');
openControl({
  server,
  judge: judgeBy(null),
  onRefused: say,
  onWarning: say,
  onConnect: (connection) => {
    connection.onMessage((message) => {
      say(message.kind === 'linked' ? `linked ${message.generation}` : message.kind);
      connection.send({ kind: 'stop', because: 'go on' });
    });
    void connection.closed.then(({ because }) => say(because));
  },
});
say(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
