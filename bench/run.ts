// `npm run bench -- NAME [--json FILE]`: measures Lockstep side by side with its peers in one run, and prints a table. `peers`
// installs the peers in a virtual environment outside the checkout. A bench never fails for being slow; a peer that is not
// installed is said to be missing.

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { LockstepError } from '../protocol/errors.ts';
import { installPeers } from './peers.ts';
import { throughput } from './throughput.ts';

export interface Row {
  readonly case: string;
  readonly ours: number;
  /** Null where the peer is not installed. */
  readonly peer: number | null;
  readonly peerName: string;
  /** Above 1: we are better. */
  readonly ratio: number | null;
  readonly unit: string;
  readonly repeats: number;
}

const BENCHES: Readonly<Record<string, (repeats: number) => Promise<Row[]>>> = { throughput };

function tableOf(rows: readonly Row[]): string {
  const cells = rows.map((r) => [
    r.case,
    `${r.ours.toFixed(0)} ${r.unit}`,
    r.peer === null ? 'not installed' : `${r.peer.toFixed(0)} ${r.unit}`,
    r.peerName,
    r.ratio === null ? '–' : r.ratio.toFixed(2),
    String(r.repeats),
  ]);
  const all = [['case', 'ours', 'peer', 'peer is', 'ratio', 'repeats'], ...cells];
  const widths = all[0]?.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0))) ?? [];
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Returns the exit code. Throws E_USAGE for a bench that is not there. */
export async function runBench(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { json: { type: 'string' }, repeats: { type: 'string', default: '3' } },
  });
  const [name = ''] = positionals;
  if (name === 'peers') return installPeers();
  const bench = BENCHES[name];
  if (bench === undefined) {
    throw new LockstepError('E_USAGE', `there is no bench "${name}"`, {
      remedy: `Benches: ${Object.keys(BENCHES).join(', ')}; \`npm run bench:peers\` installs what they compare with.`,
    });
  }
  const rows = await bench(Math.max(1, Number.parseInt(values.repeats, 10) || 1));
  process.stdout.write(`${tableOf(rows)}\n`);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`);
  return 0;
}
