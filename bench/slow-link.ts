// The all-reduce of the tutorial's CNN over a slow link: gradients in float32, bf16 and fp16. The link is a proxy in this process, between
// two ranks over TCP, which lets so many bytes a second through each way and delivers them late. Beside each time stands what the
// link's rate and delay tell of its bytes: by that, forms that are not built can be judged, too.

import { proxyTo, slowLink } from '../test/worker/collective/links/proxy.ts';
import { startCommunication } from '../worker/collective/shell/communication.ts';
import type { OpenCollective } from '../worker/collective/shell/generation.ts';
import { interleaved, median } from './measure.ts';
import type { BenchOptions } from './run.ts';
import type { Row } from './table.ts';

/** The tutorial's CNN: its gradient, and loss, correct and the wish to stop. */
const GRADIENT = 122_570;
const LENGTH = GRADIENT + 3;
const FORMS = ['none', 'bf16', 'fp16'] as const;
const CALLS = 15;

interface SlowLink {
  readonly title: string;
  readonly bytesPerSecond: number;
  /** One way. */
  readonly seconds: number;
}

export const LINKS: readonly SlowLink[] = [
  { title: '100 Mbit/s, 0.5 ms', bytesPerSecond: 100e6 / 8, seconds: 0.0005 },
  { title: '1 Gbit/s, 0.5 ms', bytesPerSecond: 1e9 / 8, seconds: 0.0005 },
];

/**
 * Milliseconds that a link takes for what each of two ranks sends: half of the bytes to the owners of slices, half back.
 * @param rounds exchanges that wait for one another
 */
export function told(bytes: number, rounds: number, link: SlowLink): number {
  return 1000 * (bytes / link.bytesPerSecond + 2 * rounds * link.seconds);
}

/** Bytes that one of two ranks sends to sum the gradient, in numbers of so many bytes. */
const bytesOf = (form: string): number => GRADIENT * (form === 'none' ? 4 : 2);

interface Pair {
  /** One all-reduce; its milliseconds. */
  call(): Promise<number>;
  close(): Promise<void>;
}

async function pairOver(link: SlowLink, form: (typeof FORMS)[number]): Promise<Pair> {
  const ways = { unix: false, shm: false };
  const common = { host: '127.0.0.1', token: 'bench', run: 'bench', ways, threaded: false };
  const workers = [await startCommunication(common), await startCommunication(common)] as const;
  const proxy = await proxyTo(workers[0].url, slowLink(link.bytesPerSecond, link.seconds));
  const urls = [proxy.url, workers[1].url];
  const members = urls.map((peerUrl, rank) => ({ worker: `w${rank}`, rank, peerUrl, host: 'here' }));
  const compression = form === 'none' ? null : { elements: form, floats: GRADIENT };
  const plan = { generation: 1, microbatches: 2, length: LENGTH, firstStep: 0, compression };
  const ranks = await Promise.all(workers.map(async (worker, rank) => worker.open({ ...plan, rank }, members)));
  let step = 0;
  const sumOf = async (collective: OpenCollective, rank: number): Promise<Float32Array> => {
    (await collective.slot(rank)).fill(rank + 1);
    for (const bucket of collective.buckets.keys()) collective.ready(bucket);
    return (await collective.allReduce()).sum;
  };
  return {
    call: async () => {
      const began = performance.now();
      const sums = await Promise.all(ranks.map(sumOf));
      const ms = performance.now() - began;
      step++;
      if (sums.some((one) => one.some((x) => x !== 3))) throw new Error(`a wrong sum in step ${step}`);
      return ms;
    },
    close: async () => {
      for (const one of [...ranks, ...workers, proxy]) await one.close();
    },
  };
}

export async function overSlowLinks(options: BenchOptions): Promise<Row[]> {
  const { repeats = 3 } = options;
  const rows: Row[] = [];
  for (const link of LINKS) {
    const pairs = new Map<string, Pair>();
    for (const form of FORMS) pairs.set(form, await pairOver(link, form));
    const times = new Map<string, number[]>();
    for (const form of interleaved(FORMS, repeats)) {
      for (let i = 0; i < CALLS; i++) {
        times.set(form, [...(times.get(form) ?? []), (await pairs.get(form)?.call()) ?? Number.NaN]);
      }
    }
    for (const pair of pairs.values()) await pair.close();
    const msOf = (form: string): number => median(times.get(form) ?? []);
    for (const form of FORMS) {
      const about = { case: `gradients in ${form === 'none' ? 'float32' : form}, ${link.title}`, unit: 'ms', repeats };
      const ours = msOf(form);
      const model = told(bytesOf(form), 1, link);
      rows.push({ ...about, ours, peer: model, peerName: 'as its bytes tell', ratio: model / ours });
      if (form === 'none') continue;
      rows.push({ ...about, ours, peer: msOf('none'), peerName: 'in float32', ratio: msOf('none') / ours });
    }
  }
  return rows;
}
