// Which processors a worker is bound to, on machines of several kinds; and that it really is, on this one.

import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';
import { processorsHere, startedOn } from '../../deploy/affinity.ts';
import { maskOf, parseList, placeFor, type Processor } from '../../deploy/pinning.ts';

/** `nodes` x `cores` x `threads`, numbered as Linux does on PCs: first threads of all cores, then second ones. */
function machine(nodes: number, cores: number, threads: number): Processor[] {
  const all = nodes * cores;
  return Array.from({ length: all * threads }, (_, id) => ({
    id,
    core: `${id % all}`,
    node: Math.floor((id % all) / cores),
  }));
}

const places = (pin: 'auto' | 'on' | 'off', processors: readonly Processor[], workers: number): string[] =>
  Array.from({ length: workers }, (_, rank) => {
    const place = placeFor(pin, processors, rank, workers);
    return place === null ? 'anywhere' : `${place.processors.join(' ')} x${place.sharers}`;
  });

describe('--pin', () => {
  it('auto binds on machines with several memory nodes only, to all of one node', () => {
    expect(places('auto', machine(1, 4, 2), 2)).toEqual(['anywhere', 'anywhere']);
    expect(places('auto', machine(2, 2, 2), 4)).toEqual(['0 1 4 5 x2', '0 1 4 5 x2', '2 3 6 7 x2', '2 3 6 7 x2']);
    expect(places('auto', machine(2, 2, 1), 3)).toEqual(['0 1 x2', '0 1 x2', '2 3 x1']);
  });

  it('on gives each worker cores of its own, with both their threads, node by node', () => {
    expect(places('on', machine(1, 2, 1), 2)).toEqual(['0 x1', '1 x1']);
    expect(places('on', machine(2, 2, 2), 4)).toEqual(['0 4 x1', '1 5 x1', '2 6 x1', '3 7 x1']);
    expect(places('on', machine(1, 5, 1), 2)).toEqual(['0 1 x1', '2 3 4 x1']);
  });

  it('on, with more workers than cores, has them share', () => {
    expect(places('on', machine(1, 2, 1), 5)).toEqual(['0 x3', '0 x3', '0 x3', '1 x2', '1 x2']);
  });

  it('uses no processor that the launcher itself may not use', () => {
    const allowed = machine(2, 4, 1).filter(({ id }) => [1, 6, 7].includes(id));
    expect(places('on', allowed, 3)).toEqual(['1 x1', '6 x1', '7 x1']);
    expect(places('off', allowed, 1)).toEqual(['anywhere']);
  });

  it('reads lists and writes masks as the kernel does', () => {
    expect(parseList('0-2,5,8-9\n')).toEqual([0, 1, 2, 5, 8, 9]);
    expect(parseList('')).toEqual([]);
    expect([...maskOf([0, 2, 9])]).toEqual([5, 2, 0, 0, 0, 0, 0, 0]);
    expect([...maskOf([64])]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
  });

  it.skipIf(process.platform !== 'linux')(
    'binds a child in all its threads, and leaves this process as it was',
    async () => {
      const before = processorsHere();
      const last = before?.at(-1)?.id ?? 0;
      const program =
        "console.log(require('node:fs').readFileSync('/proc/self/status', 'utf8').match(/Cpus_allowed_list:\\s*(\\S+)/)[1])";
      const child = startedOn([last], () =>
        spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] }),
      );
      expect(await text(child.stdout)).toBe(`${last}\n`);
      expect(processorsHere()).toEqual(before);
    },
  );
});
