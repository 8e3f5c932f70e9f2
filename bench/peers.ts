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

/** What a table says of a peer that is not there. */
export const NOT_INSTALLED = 'not installed: npm run bench:peers';

/** The Python that has these packages of the peers'; null when there is none. `LOCKSTEP_PEERS_PYTHON` names another. */
export function peersPython(...packages: readonly string[]): string | null {
  const python = process.env['LOCKSTEP_PEERS_PYTHON'] ?? join(environment(), 'bin', 'python');
  if (!existsSync(python)) return null;
  const script = 'import sys, importlib.util as u; sys.exit(None in map(u.find_spec, sys.argv[1:]))';
  return spawnSync(python, ['-c', script, ...packages]).status === 0 ? python : null;
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
