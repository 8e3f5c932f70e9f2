// Where the peers live: a Python virtual environment in the per-user cache, made by `npm run bench:peers` from the pinned
// bench/peers/requirements.txt.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheDirectory } from '../deploy/setup/cache.ts';
import { LockstepError } from '../protocol/errors.ts';

export const PEERS = fileURLToPath(new URL('peers/', import.meta.url));

function environment(): string {
  return join(cacheDirectory(), 'peers');
}

/** The Python that has the peers; null when they are not installed. `LOCKSTEP_PEERS_PYTHON` names another. */
export function peersPython(): string | null {
  const python = process.env['LOCKSTEP_PEERS_PYTHON'] ?? join(environment(), 'bin', 'python');
  return existsSync(python) ? python : null;
}

export function installPeers(): number {
  const run = (command: string, args: readonly string[]): void => {
    const { status, error } = spawnSync(command, [...args], { stdio: 'inherit' });
    if (status !== 0) {
      throw new LockstepError(
        'E_TOOL_MISSING',
        `${command} ${args.join(' ')} failed${error === undefined ? '' : `: ${error.message}`}`,
        {
          remedy: 'Install Python 3.10 or later with venv and pip.',
        },
      );
    }
  };
  run('python3', ['-m', 'venv', environment()]);
  run(join(environment(), 'bin', 'python'), ['-m', 'pip', 'install', '--quiet', '-r', join(PEERS, 'requirements.txt')]);
  process.stdout.write(`The peers are installed in ${environment()}\n`);
  return 0;
}
