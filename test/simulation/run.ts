// `npm run simulate -- --seeds N`: runs N seeds of the simulation and says what they went through. A failure prints the property that
// broke, the last that happened, and the command that shows it again.

import { parseArgs } from 'node:util';
import { simulate, SimulationFailure, type Simulated } from './simulate.ts';
import { summaryOf } from './summary.ts';

const DEFAULT_SEEDS = 2000;

async function main(argv: string[]): Promise<number> {
  const { values } = parseArgs({
    args: argv,
    options: {
      seeds: { type: 'string' },
      seed: { type: 'string' },
      from: { type: 'string', default: '1' },
      verbose: { type: 'boolean', default: false },
    },
  });
  const one = values.seed === undefined ? null : Number(values.seed);
  const from = one ?? Number(values.from);
  const count = Number(values.seeds ?? (one === null ? DEFAULT_SEEDS : 1));
  if (!Number.isSafeInteger(from) || !Number.isSafeInteger(count) || from < 0 || count < 1) {
    console.error('usage: npm run simulate -- [--seeds N] [--from SEED] [--seed SEED] [--verbose]');
    return 2;
  }
  const startedMs = performance.now();
  const runs: Simulated[] = [];
  let failures = 0;
  for (let seed = from; seed < from + count; seed++) {
    try {
      const run = await simulate(seed, values.verbose ? { onEvent: (line) => console.log(line) } : {});
      if (one !== null) console.log(`seed ${seed}: ${run.outcome} (${run.because}), trace ${run.traceHash}`);
      runs.push(run);
    } catch (error) {
      if (!(error instanceof SimulationFailure)) throw error;
      failures++;
      if (!values.verbose) console.log(error.tail.join('\n'));
      console.log(`\n${error.violation.message}\n`);
      const { cause } = error.violation;
      if (cause instanceof Error) console.log(cause.stack);
      console.log(`Seed ${seed} failed. To see it again: npm run simulate -- --seed ${seed} --verbose`);
      if (failures >= 3) break;
    }
  }
  console.log(summaryOf(runs, (performance.now() - startedMs) / 1000).join('\n'));
  return failures === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));
