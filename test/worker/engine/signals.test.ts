// A real process under a thousand signals a second.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { findTensorflow } from '../../../deploy/setup/tensorflow.ts';

const SCRIPT = fileURLToPath(new URL('signals-process.ts', import.meta.url));
const GRADIENTS = 400;

async function run(signalEveryMs: number | null): Promise<{ digests: string[]; heard: number }> {
  const { bindingPath, libraryVersion } = findTensorflow();
  const args = ['--import', 'tsx', SCRIPT, bindingPath, libraryVersion, String(GRADIENTS)];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let timer: NodeJS.Timeout | undefined;
  let errors = '';
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
  let result = '';
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (line === 'ready' && signalEveryMs !== null) timer = setInterval(() => child.kill('SIGUSR2'), signalEveryMs);
    if (line.startsWith('{')) result = line;
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  clearInterval(timer);
  expect({ code, signal, errors: code === 0 ? '' : errors }).toEqual({ code: 0, signal: null, errors: '' });
  return JSON.parse(result) as { digests: string[]; heard: number };
}

describe.skipIf(process.platform !== 'linux')('signals', () => {
  it('are heard by a process that computes gradients, and change none of them', async () => {
    const undisturbed = await run(null);
    const disturbed = await run(1);
    expect(undisturbed).toEqual({ digests: [expect.any(String)], heard: 0 });
    expect(disturbed.digests).toEqual(undisturbed.digests);
    expect(disturbed.heard).toBeGreaterThan(100);
  });
});
