// Workers of a host that are kept alive: by real processes, whose part is played by a script.

import { mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { watchWorkers, type WatchedWorkers } from '../../deploy/watched-workers.ts';

/** What a worker does, by its local rank: PLAN is a code or `wait` for each. */
const SCRIPT = `
const { LOCAL_RANK, LOCAL_WORLD_SIZE, PLAN } = process.env;
console.log(\`worker \${LOCAL_RANK} of \${LOCAL_WORLD_SIZE}\`);
const what = PLAN.split(',')[Number(LOCAL_RANK)];
if (what === 'wait') setInterval(() => {}, 1000);
else {
  if (what === '130') console.log('dismissed: Ctrl-C');
  else if (what !== '0') console.error('lockstep: E_TRAINING: no luck');
  process.exitCode = Number(what);
}
`;

let place = '';
beforeAll(() => {
  place = mkdtempSync(join(realpathSync(tmpdir()), 'lockstep-watched-'));
  writeFileSync(join(place, 'worker.mjs'), SCRIPT);
});
afterAll(() => rmSync(place, { recursive: true, force: true }));

interface Told {
  readonly lines: string[];
  readonly said: string[];
  readonly fewer: number[];
}

function watch(plan: string, restartLimit: number): Told & { readonly workers: WatchedWorkers } {
  const told: Told = { lines: [], said: [], fewer: [] };
  const count = plan.split(',').length;
  const workers = watchWorkers({
    launch: {
      entry: join(place, 'worker.mjs'),
      coordinatorUrl: 'http://127.0.0.1:1',
      tokenFile: null,
      flags: [],
      job: null,
      logDirectory: null,
      onLine: (localRank, line) => told.lines.push(`${localRank}: ${line}`),
      localWorldSize: count,
      environment: () => ({ PLAN: plan }),
      placeOf: () => null,
    },
    count,
    restartLimit,
    say: (message) => told.said.push(message),
    onFewer: (left) => told.fewer.push(left),
  });
  return { ...told, workers };
}

describe('workers that are watched', () => {
  it('have ended well when each was dismissed', async () => {
    const { workers, lines, said } = watch('0,0', 3);
    expect(await workers.ended).toEqual({ code: 0, isThrough: true });
    expect(lines.toSorted()).toEqual(['0: worker 0 of 2', '1: worker 1 of 2']);
    expect(said).toEqual([]);
  });

  it('that were dismissed have ended well, whatever the run came to', async () => {
    const { workers, said } = watch('130,130', 3);
    expect(await workers.ended).toEqual({ code: 130, isThrough: true });
    expect(said).toEqual([]);
  });

  it('are started anew when they fail, and given up beyond the limit; the others stay', async () => {
    const { workers, lines, said, fewer } = watch('1,0', 1);
    expect(await workers.ended).toEqual({ code: 1, isThrough: false });
    expect(lines.filter((line) => line === '0: worker 0 of 2')).toHaveLength(2);
    const how = 'worker 0 ended with code 1: lockstep: E_TRAINING: no luck';
    expect(said).toEqual([`${how}; it is started anew`, `${how}; it is given up`]);
    expect(fewer.every((left) => left === 1)).toBe(true);
  });

  it('that meet bad input are not tried again: they would meet it again', async () => {
    const { workers, said } = watch('2', 3);
    expect(await workers.ended).toEqual({ code: 1, isThrough: false });
    expect(said).toEqual(['worker 0 ended with code 2: lockstep: E_TRAINING: no luck; it is given up']);
  });

  it('end when they are told to, and are not started anew then', async () => {
    const { workers, said } = watch('wait,wait', 3);
    workers.signal('SIGTERM');
    await workers.end();
    expect(await workers.ended).toEqual({ code: 0, isThrough: true });
    expect(said).toEqual([]);
  });
});
