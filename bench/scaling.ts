// How the whole job grows with its workers: efficiency is the rate of W workers over W times that of one worker pinned to one core
// (over the cores, where workers outnumber them). Beside it PyTorch's DDP measured the same way, and what the machine itself
// allows: as many jobs of one worker as there are cores, at the same time, with nothing between them.

import { availableParallelism } from 'node:os';
import { interleaved, median, pinning } from './measure.ts';
import { NOT_INSTALLED, peersPython } from './peers.ts';
import type { BenchOptions } from './run.ts';
import { comparison, type Row } from './table.ts';
import { ours, torchDdp } from './throughput.ts';

const LAYOUT = 'channels_last';

export async function scaling(options: BenchOptions): Promise<Row[]> {
  const { repeats = 3, microbatches } = options;
  const cores = availableParallelism();
  const python = peersPython('torch');
  const pin = pinning() ?? [];
  const job = async (workers: number, prefix: readonly string[] = []): Promise<number> =>
    ours(workers, 'off', microbatches, prefix);
  const sizes = [cores, 2 * cores];
  const runs: Record<string, () => number | Promise<number>> = {
    one: async () => job(1, pin),
    apart: async () =>
      (await Promise.all(Array.from({ length: cores }, async () => job(1)))).reduce((a, b) => a + b, 0),
  };
  for (const size of sizes) runs[`ours ${size}`] = async () => job(size);
  if (python !== null) for (const size of [1, ...sizes]) runs[`ddp ${size}`] = () => torchDdp(python, size, LAYOUT);

  const rates = new Map<string, number[]>();
  for (const name of interleaved(Object.keys(runs), repeats)) {
    const rate = (await runs[name]?.()) ?? Number.NaN;
    process.stderr.write(`${name}: ${rate.toFixed(0)} images/s\n`);
    rates.set(name, [...(rates.get(name) ?? []), rate]);
  }
  const rateOf = (name: string): number | null => {
    const found = rates.get(name);
    return found === undefined ? null : median(found);
  };
  const efficiency = (name: string, one: string, used: number): number | null => {
    const [all, single] = [rateOf(name), rateOf(one)];
    return all === null || single === null ? null : all / (used * single);
  };
  const unit = 'of ideal';
  const peerName = `PyTorch DDP over Gloo, ${LAYOUT}`;
  const rows = sizes.map((size) => {
    const crowded = size > cores ? `, ${cores} cores` : '';
    const about = { case: `cifar10-cnn, W=${size}${crowded}, against one pinned worker`, unit, repeats };
    const mine = efficiency(`ours ${size}`, 'one', cores) ?? Number.NaN;
    return comparison(about, mine, efficiency(`ddp ${size}`, 'ddp 1', cores), peerName, NOT_INSTALLED);
  });
  const apart = {
    case: `cifar10-cnn, W=${cores}, against ${cores} jobs apart at the same time`,
    unit: 'images/s',
    repeats,
  };
  const together = rateOf(`ours ${cores}`) ?? Number.NaN;
  return [...rows, comparison(apart, together, rateOf('apart'), `${cores} jobs of one worker, unconnected`, '')];
}
