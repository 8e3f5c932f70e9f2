// A worker's process with a control link and its heart, for the test of both: it joins the coordinator at argv[2] (http://...) or the run
// `held` on the server at argv[2] (nats://...), then its engine holds its thread for argv[3] milliseconds. Lines on stdout tell what it does.

import { serverAt } from './nats-server.ts';
import { connectControl } from '../../worker/control-link.ts';
import { startHeart } from '../../worker/heart/heart.ts';
import { connectControlOverNats } from '../../worker/nats-control-link.ts';

const url = process.argv[2] ?? '';
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const link = url.startsWith('nats:')
  ? await connectControlOverNats(serverAt(url), 'held', null, startHeart)
  : await connectControl(url, null, null, startHeart);
const linked = (generation: number): void => link.send({ kind: 'linked', generation, step: 0, digest: 'a'.repeat(64) });
linked(1);
void link.closed.then((error) => say(`lost: ${error.message}`));
// The coordinator has heard it.
await link.next();
say('holding');
Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(process.argv[3]));
linked(2);
