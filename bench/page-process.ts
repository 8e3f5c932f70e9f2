// The observers of page.ts, in a process of their own: `page-process.ts URL`. Says `ready` when all are served, and ends when its standard
// input does.

import { connect } from 'node:net';

const PAGES = 50;
const [url = ''] = process.argv.slice(2);
const { hostname, port } = new URL(url);

const over = new AbortController();
let served = 0;
const sockets = Array.from({ length: PAGES + 1 }, (_, i) => {
  const socket = connect(Number(port), hostname);
  socket.write('GET /api/events HTTP/1.1\r\nhost: x\r\n\r\n');
  socket.once('data', () => {
    served += 1;
    // The last one reads nothing more.
    if (i === PAGES) socket.pause();
    else socket.resume();
    if (served === PAGES + 1) process.stdout.write('ready\n');
  });
  socket.on('error', (error) => {
    if (!over.signal.aborted) throw error;
  });
  return socket;
});

process.stdin.resume();
process.stdin.once('end', () => {
  over.abort();
  for (const socket of sockets) socket.destroy();
});

while (!over.signal.aborted) {
  const answer = await fetch(`${url}/metrics`);
  await answer.text();
}
