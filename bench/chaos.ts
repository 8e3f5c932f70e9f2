// Training under fire: a worker chosen by chance is killed every so many seconds, and started anew by the launcher. Measured are the
// share of steps that are committed, the rate against that of a run that nobody disturbs (in turn with it: this machine's own rate drifts by more
// than a schedule costs), how long from a kill to the next commit, and whether the weights at the ends of epochs are those of the undisturbed run.
//
// The peer's figures are published ones of another system on other machines (torchft: replicas killed every 60 and every 15
// seconds); ours are of this machine. `--minutes N` each schedule, 10 by default; `--every SECONDS` one schedule alone.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { median } from './measure.ts';
import type { BenchOptions } from './run.ts';
import { viewIn } from './run-under-way.ts';
import { tableOf, type Row } from './table.ts';

const ENTRY = fileURLToPath(new URL('../deploy/lockstep.mjs', import.meta.url));
const WORKERS = 2;
/**
 * As they were published, with nobody in reserve and with one spare; and one scaled to steps that take milliseconds, not a second: no
 * worker lives for long.
 */
const SCHEDULES = [
  { everySeconds: 15, spares: 0, published: 0.3 },
  { everySeconds: 15, spares: 1, published: 0.3 },
  { everySeconds: 60, spares: 0, published: 0.82 },
  { everySeconds: 5, spares: 0, published: null },
  { everySeconds: 5, spares: 1, published: null },
];
/**
 * A round: first nobody is disturbed, then kills begin, the first of them half of the time between two after the first step. Both take as
 * long: this machine is a fifth faster for its first 40 s.
 */
const ROUND_MINUTES = 2;

interface Figures {
  readonly stepsPerSecond: number;
  readonly committed: number;
  readonly lost: number;
  readonly kills: number;
  readonly recoverySeconds: readonly number[];
  /** Digests at the ends of epochs. */
  readonly digests: ReadonlyMap<number, string>;
}

const lines = (file: string): Record<string, unknown>[] =>
  readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

const sleep = async (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/** Trains for `seconds` from the first step on, with `spares` workers in reserve; null: nobody is killed. */
async function trained(seconds: number, everySeconds: number | null, spares = 0): Promise<Figures> {
  const scratch = mkdtempSync(join(tmpdir(), 'lockstep-chaos-'));
  const directory = join(scratch, 'run');
  const workers = ['--workers', String(WORKERS + spares), '--max-workers', String(WORKERS)];
  const flags = [...workers, '--epochs', '1000', '--seed', '7', '--test-samples', '0'];
  const place = ['--listen', '127.0.0.1:0', '--run-dir', directory, '--log-level', 'error'];
  const child = spawn(process.execPath, [ENTRY, 'train', 'cifar10-cnn', ...flags, ...place], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const ended = once(child, 'exit');
  for (let now = await viewIn(directory); (now?.step ?? 0) < 1; now = await viewIn(directory)) await sleep(50);
  const beganAt = Date.now();
  const until = beganAt + 1000 * seconds;
  const killedAt: number[] = [];
  const everyMs = 1000 * (everySeconds ?? Infinity);
  for (let at = beganAt + everyMs / 2; at < until; at += everyMs) {
    await sleep(at - Date.now());
    const members = (await viewIn(directory))?.workers.filter((w) => w.rank !== null && w.state === 'training') ?? [];
    // The last one alive has the only copy of the newest steps: it is the schedule's to kill a replica, not the job.
    const victim = members.length < 2 ? undefined : members[Math.floor(Math.random() * members.length)];
    if (victim === undefined) continue;
    killedAt.push(Date.now());
    process.kill(victim.pid, 'SIGKILL');
  }
  await sleep(until - Date.now());
  child.kill('SIGINT');
  await ended;
  const steps = lines(join(directory, 'metrics.jsonl')).map((line) => ({
    at: Date.parse(String(line['t'])),
    step: Number(line['step']),
  }));
  const inTime = steps.filter(({ at }) => at >= beganAt && at <= until);
  const report = JSON.parse(readFileSync(join(directory, 'report.json'), 'utf8')) as {
    steps: number;
    stepsLost: number;
  };
  const digests = new Map(
    lines(join(directory, 'journal.jsonl')).flatMap((record): [number, string][] =>
      record['kind'] === 'epoch' ? [[Number(record['epoch']), String(record['digest'])]] : [],
    ),
  );
  rmSync(scratch, { recursive: true, force: true });
  return {
    stepsPerSecond: inTime.length / seconds,
    committed: report.steps,
    lost: report.stepsLost,
    kills: killedAt.length,
    recoverySeconds: killedAt.map((at) => {
      const next = steps.find((step) => step.at > at);
      return ((next?.at ?? until) - at) / 1000;
    }),
    digests,
  };
}

export async function chaos({ minutes = 10, every }: BenchOptions): Promise<Row[]> {
  const rows: Row[] = [];
  const chosen = SCHEDULES.filter(({ everySeconds }) => every === undefined || everySeconds === every);
  if (chosen.length === 0 && every !== undefined) {
    chosen.push(...[0, 1].map((spares) => ({ everySeconds: every, spares, published: null })));
  }
  const rounds = Math.max(1, Math.round(minutes / ROUND_MINUTES));
  for (const { everySeconds, spares, published } of chosen) {
    const calm: Figures[] = [];
    const under: Figures[] = [];
    for (let round = 0; round < rounds; round++) {
      calm.push(await trained((60 * minutes) / rounds, null));
      under.push(await trained((60 * minutes) / rounds, everySeconds, spares));
    }
    const measured = rowsOf({ everySeconds, spares, published, minutes }, calm, under);
    rows.push(...measured);
    // All of them take an hour: what is known is told.
    process.stderr.write(`${tableOf(measured)}\n`);
  }
  return rows;
}

function rowsOf(
  { everySeconds, spares, published, minutes }: (typeof SCHEDULES)[number] & { readonly minutes: number },
  calm: readonly Figures[],
  under: readonly Figures[],
): Row[] {
  const sum = (of: (figures: Figures) => number): number => under.reduce((total, figures) => total + of(figures), 0);
  const right = new Map(calm.flatMap(({ digests }) => [...digests]));
  const compared = under.flatMap(({ digests }) => [...digests]).filter(([epoch]) => right.has(epoch));
  const same = compared.filter(([epoch, digest]) => right.get(epoch) === digest).length;
  const recovery = under.flatMap(({ recoverySeconds }) => recoverySeconds).toSorted((a, b) => a - b);
  const committed = sum((figures) => figures.committed);
  const share = committed / (committed + sum(({ lost }) => lost));
  const ratios = under.map((figures, round) => figures.stepsPerSecond / (calm[round]?.stepsPerSecond ?? Number.NaN));
  const reserve = spares === 0 ? '' : `, ${spares} spare`;
  const kills = sum((figures) => figures.kills);
  const about = `a kill every ${everySeconds} s for ${minutes} min${reserve} (${kills} kills, ${committed} steps)`;
  const row = (what: string, ours: number, unit: string, peer: Partial<Row> = {}): Row => ({
    case: `${about}: ${what}`,
    ours,
    peer: null,
    peerName: '',
    ratio: null,
    unit,
    repeats: under.length,
    ...peer,
  });
  const torchft = published === null ? {} : { peer: published, peerName: 'torchft, as published' };
  return [
    row('share of steps committed', share, 'of 1', {
      ...torchft,
      ratio: published === null ? null : share / published,
    }),
    row('steps a second against undisturbed', median(under.map((figures) => figures.stepsPerSecond)), 'steps/s', {
      peer: median(calm.map((figures) => figures.stepsPerSecond)),
      peerName: 'undisturbed, in turn; the ratio is the median of rounds',
      ratio: median(ratios),
    }),
    row('from a kill to the next commit, median', median(recovery), 's'),
    row('from a kill to the next commit, worst', recovery.at(-1) ?? 0, 's'),
    row('ends of epochs with the undisturbed run’s digest', same, `of ${compared.length}`),
  ];
}
