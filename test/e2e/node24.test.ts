// The newest Node line that is supported, by a smoke run: it strips the types of the sources itself, loads the addon that was
// compiled for another Node, and must compute the same bits.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, expect, test } from 'vitest';
import { lockstep, reportIn, Scratch } from './lockstep.ts';
import { NODE_24, node24 } from './node24.ts';

const scratch = new Scratch();
afterAll(() => {
  scratch.remove();
});

async function digestOf(name: string, node: string): Promise<string | null> {
  const directory = scratch.dir(name);
  const small = '--workers 2 --max-steps 5 --train-samples 640 --test-samples 100 --seed 7'.split(' ');
  const place = ['--listen', '127.0.0.1:0', '--run-dir', directory];
  const { code, stderr } = await lockstep(['train', 'cifar10-cnn', ...small, ...place], { node }).ended;
  expect(stderr).toBe('');
  expect(code).toBe(0);
  return reportIn(directory).digest;
}

test('Node 24 runs the sources as they are, to the same digest as the Node of the tests', async () => {
  const node = await node24();
  const { stdout } = await promisify(execFile)(node, [
    '--print',
    'process.version + " " + process.features.typescript',
  ]);
  expect(stdout).toBe(`v${NODE_24} strip\n`);
  const here = await digestOf('here', process.execPath);
  expect(here).toMatch(/^[0-9a-f]{64}$/);
  expect(await digestOf('there', node)).toBe(here);
});
