// A worker that joins the run at argv[2] (nats://HOST:PORT), whose engine then holds its thread for argv[3] milliseconds, and that takes
// a state afterwards: it prints how many bytes came, or how its link ended.

import { serverAt } from './nats-server.ts';
import { connectControlOverNats } from '../../worker/nats-control-link.ts';

const link = await connectControlOverNats(serverAt(process.argv[2] ?? ''), 'held', null);
link.send({ kind: 'linked', generation: 1, step: 0, digest: 'a'.repeat(64) });
// The coordinator has heard it.
await link.next();
Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(process.argv[3]));
try {
  let bytes = 0;
  for (let message = await link.next(); message.kind === 'state'; message = await link.next())
    bytes += message.bytes.length;
  process.stdout.write(`${bytes}\n`);
} catch (error) {
  process.stdout.write(`${String(error)}\n`);
}
process.exit(0);
