import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { tellCoordinator } from '../../deploy/launch-messages.ts';

test('a coordinator that has left, and whose leaving is not yet known, is no error', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-launch-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const left = join(directory, 'left');
  const child = spawn(
    process.execPath,
    ['-e', `process.disconnect(); require('fs').writeFileSync(process.argv[1], ''); setInterval(() => {}, 1000)`, left],
    { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] },
  );
  onTestFinished(() => void child.kill('SIGKILL'));
  const errors: Error[] = [];
  child.on('error', (error) => errors.push(error));
  const disconnected = once(child, 'disconnect');

  // Blocks the event loop: this process cannot have seen the channel close.
  execFileSync('sh', ['-c', 'until [ -e "$0" ]; do sleep 0.01; done', left], { timeout: 10_000 });
  expect(child.connected).toBe(true);
  tellCoordinator(child, { kind: 'stop', because: 'a test' });

  await disconnected;
  expect(errors).toEqual([]);
});
