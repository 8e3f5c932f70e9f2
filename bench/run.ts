// `npm run bench -- NAME [--repeats N] [--json FILE]`: measures Lockstep side by side with its peers in one run, and prints a
// table. `peers` installs the peers in a virtual environment outside the checkout. A bench never fails for being slow; a peer
// that is not installed is said to be missing.

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { LockstepError } from '../protocol/errors.ts';
import { allreduce, overlap } from './allreduce.ts';
import { chaos } from './chaos.ts';
import { compression } from './compression.ts';
import { digest } from './digest.ts';
import { engine } from './engine.ts';
import { gpu } from './gpu.ts';
import { heart } from './heart.ts';
import { metrics } from './metrics.ts';
import { model } from './model.ts';
import { page } from './page.ts';
import { installPeers } from './peers.ts';
import { pipeline } from './pipeline.ts';
import { scaling } from './scaling.ts';
import { overSlowLinks } from './slow-link.ts';
import { tableOf, type Row } from './table.ts';
import { throughput } from './throughput.ts';
import { timeline } from './timeline.ts';

/** What a bench may be told; undefined: its own default. */
export interface BenchOptions {
  readonly repeats: number | undefined;
  /** Microbatches a step, where whole jobs are measured. */
  readonly microbatches: number | undefined;
  /** How long each schedule of kills lasts. */
  readonly minutes: number | undefined;
  /** Seconds between kills: this schedule alone. */
  readonly every: number | undefined;
}

const BENCHES: Readonly<Record<string, (options: BenchOptions) => Promise<Row[]>>> = {
  allreduce,
  chaos,
  compression,
  digest,
  engine,
  gpu,
  heart,
  metrics,
  model,
  overlap,
  page,
  pipeline,
  scaling,
  'slow-link': overSlowLinks,
  throughput,
  timeline,
};

/** Throws E_USAGE. */
function count(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1) return value;
  throw new LockstepError('E_USAGE', `${flag} ${text} is not a whole number from 1`, {
    remedy: `Give e.g. ${flag} 4.`,
  });
}

/** Returns the exit code. Throws E_USAGE for a bench that is not there. */
export async function runBench(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      json: { type: 'string' },
      repeats: { type: 'string' },
      microbatches: { type: 'string' },
      minutes: { type: 'string' },
      every: { type: 'string' },
    },
  });
  const [name = ''] = positionals;
  if (name === 'peers') return installPeers();
  const bench = BENCHES[name];
  if (bench === undefined) {
    throw new LockstepError('E_USAGE', `there is no bench "${name}"`, {
      remedy: `Benches: ${Object.keys(BENCHES).join(', ')}; \`npm run bench:peers\` installs what they compare with.`,
    });
  }
  const rows = await bench({
    repeats: count('--repeats', values.repeats),
    microbatches: count('--microbatches', values.microbatches),
    minutes: count('--minutes', values.minutes),
    every: count('--every', values.every),
  });
  process.stdout.write(`${tableOf(rows)}\n`);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`);
  return 0;
}
