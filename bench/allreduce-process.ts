// Measuring process (measure.ts): milliseconds of our all-reduce, each rank a process: rank 0 is this one, the others its children.
//
//     allreduce-process.ts --processes 2 --way shm|unix|tcp|stock-ws|nats://HOST:PORT [--threaded] [--compute MS]
//
// Each line on stdin, {"floats": n, "seconds": s, "copied": true} (and "bucketFloats"), asks for one window; the answer's `rate` is the median
// of a call's milliseconds on rank 0, calls following one another, `cpu` that rank's processor time a call in milliseconds. `copied`: a
// vector is copied in, summed over all ranks, and copied out; else it is written and read where it lies, and a call is the exchange alone. With
// `--compute` a call is a step: its buckets are copied in one by one while the thread is blocked for so long, as an engine on a GPU would.

import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import type { OpenCollective } from '../worker/collective/shell/generation.ts';
import { startCommunication } from '../worker/collective/shell/communication.ts';
import { ALL_WAYS, type LocalWays } from '../worker/collective/links/ws.ts';
import { parseNatsUrl } from '../nats/server.ts';
import { median, type Greeting, type VectorRequest } from './measure.ts';
import { openStockWs } from './stock-ws.ts';

const CALIBRATION_CALLS = 3;
const MIN_CALLS = 5;

const WAYS: Readonly<Record<string, LocalWays>> = {
  shm: { unix: true, shm: true },
  unix: { unix: true, shm: false },
  tcp: { unix: false, shm: false },
};

/** What the ranks are told: where they are, and windows to run, all at once. */
type Order =
  | {
      readonly kind: 'open';
      readonly generation: number;
      readonly floats: number;
      readonly bucketFloats?: number;
      readonly urls: readonly string[];
    }
  | { readonly kind: 'run'; readonly calls: number; readonly copied: boolean };

const { values } = parseArgs({
  options: {
    processes: { type: 'string', default: '2' },
    way: { type: 'string', default: 'shm' },
    threaded: { type: 'boolean', default: false },
    compute: { type: 'string', default: '0' },
    rank: { type: 'string', default: '0' },
  },
});
const processes = Number(values.processes);
const rank = Number(values.rank);
const computeMs = Number(values.compute);

/** A rank: opens collectives as it is told, and runs calls. */
interface Rank {
  readonly url: string;
  obey(order: Order): Promise<number[]>;
  close(): Promise<void>;
}

const sleeper = new Int32Array(new SharedArrayBuffer(4));
const block = (ms: number): void => {
  if (ms > 0) Atomics.wait(sleeper, 0, 0, ms);
};

async function openRank(): Promise<Rank> {
  const ways = WAYS[values.way] ?? ALL_WAYS;
  const nats = values.way.startsWith('nats:') ? parseNatsUrl(values.way)?.server : undefined;
  const common = { host: '127.0.0.1', token: 'bench', run: 'bench', ways, threaded: values.threaded };
  const communication =
    values.way === 'stock-ws'
      ? await openStockWs()
      : await startCommunication({ ...common, ...(nats !== undefined && { nats }) });
  let collective: OpenCollective | null = null;
  let vector = new Float32Array(0);
  let out = new Float32Array(0);
  return {
    url: communication.url,
    obey: async (order) => {
      if (order.kind === 'open') {
        await collective?.close();
        const members = order.urls.map((peerUrl, i) => ({ worker: `w${i}`, rank: i, peerUrl, host: 'here' }));
        const plan = {
          generation: order.generation,
          rank,
          microbatches: powerOfTwo(processes),
          length: order.floats,
          firstStep: 0,
          ...(order.bucketFloats !== undefined && { bucketFloats: order.bucketFloats }),
        };
        collective = await communication.open(plan, members);
        vector = new Float32Array(order.floats).fill(rank + 1);
        out = new Float32Array(order.floats);
        return [];
      }
      const times: number[] = [];
      const open = collective;
      if (open === null) throw new Error('no collective is open');
      for (let call = 0; call < order.calls; call++) {
        const began = performance.now();
        const sum = order.copied ? await copied(open, vector, out) : await whereItLies(open, vector);
        times.push(performance.now() - began);
        for (const at of [0, sum.length - 1]) {
          if (sum[at] !== (processes * (processes + 1)) / 2) throw new Error(`the sum is ${sum[at]}`);
        }
      }
      return times;
    },
    close: async () => {
      await collective?.close();
      await communication.close();
    },
  };
}

async function copied(collective: OpenCollective, vector: Float32Array, out: Float32Array): Promise<Float32Array> {
  await collective.allReduceCopied(rank, vector, out);
  return out;
}

async function whereItLies(collective: OpenCollective, vector: Float32Array): Promise<Float32Array> {
  const slot = await collective.slot(rank);
  const part = computeMs / collective.buckets.length;
  for (const [bucket, { offset, length }] of collective.buckets.entries()) {
    if (computeMs > 0) {
      block(part);
      slot.set(vector.subarray(offset, offset + length), offset);
    } else {
      // Of what an engine would write here, enough to know the sum by.
      slot[offset] = slot[offset + length - 1] = rank + 1;
    }
    collective.ready(bucket);
  }
  return (await collective.allReduce()).sum;
}

function powerOfTwo(n: number): number {
  let power = 1;
  while (power < n) power *= 2;
  return power;
}

async function answer(child: ChildProcess, order: Order): Promise<void> {
  child.send(order);
  await once(child, 'message');
}

async function lead(): Promise<void> {
  const self = await openRank();
  const args = process.argv.slice(2);
  const children = Array.from({ length: processes - 1 }, (_, i) =>
    fork(process.argv[1] ?? '', [...args, '--rank', String(i + 1)], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] }),
  );
  const urls = [self.url];
  for (const child of children) urls.push(((await once(child, 'message')) as [string])[0]);
  const all = async (order: Order): Promise<number[]> => {
    const others = children.map(async (child) => answer(child, order));
    const mine = await self.obey(order);
    await Promise.all(others);
    return mine;
  };
  const where = values.threaded ? 'in a thread of their own' : 'in place';
  const greeting: Greeting = { about: `Lockstep over ${values.way}, ${processes} processes, links ${where}` };
  process.stdout.write(`${JSON.stringify(greeting)}\n`);
  let generation = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    const { seconds, copied: isCopied, ...vectors } = JSON.parse(line) as VectorRequest;
    const run = async (calls: number): Promise<number[]> => all({ kind: 'run', calls, copied: isCopied });
    generation++;
    await all({ kind: 'open', generation, ...vectors, urls });
    const trial = median(await run(CALIBRATION_CALLS));
    const calls = Math.max(MIN_CALLS, Math.round((1000 * seconds) / trial));
    const before = process.cpuUsage();
    const rate = median(await run(calls));
    const { user, system } = process.cpuUsage(before);
    process.stdout.write(`${JSON.stringify({ rate, cpu: (user + system) / 1000 / calls })}\n`);
  }
  for (const child of children) child.disconnect();
  await self.close();
}

async function follow(): Promise<void> {
  const self = await openRank();
  process.on('message', (order: Order) => {
    self.obey(order).then(
      () => process.send?.('done'),
      (error: unknown) => {
        process.stderr.write(`${String(error)}\n`);
        process.exit(1);
      },
    );
  });
  process.on('disconnect', () => void self.close().then(() => process.exit(0)));
  process.send?.(self.url);
}

await (rank === 0 ? lead() : follow());
