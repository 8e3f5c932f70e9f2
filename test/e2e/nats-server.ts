// A NATS server of a test's own: on a free port of loopback, ended by its pid.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseNatsUrl, type NatsServer } from '../../nats/server.ts';
import { natsServerPath } from './programs.ts';

export interface RunningServer {
  readonly url: string;
  kill(): Promise<void>;
}

export function serverAt(url: string): NatsServer {
  const parsed = parseNatsUrl(url);
  if (parsed === null) throw new Error(`no URL of a NATS server: ${url}`);
  return parsed.server;
}

export async function startNatsServer(...flags: readonly string[]): Promise<RunningServer> {
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-nats-'));
  const args = ['--addr', '127.0.0.1', '--port', '-1', '--store_dir', directory, ...flags];
  // The last one of two ports counts.
  const child = spawn(natsServerPath(), args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = once(child, 'exit');
  let url = '';
  for await (const line of createInterface({ input: child.stderr })) {
    const place = /Listening for client connections on (\S+)/.exec(line)?.[1];
    if (place !== undefined) url = `nats://${place}`;
    if (line.includes('Server is ready')) break;
  }
  child.stderr.resume();
  return {
    url,
    kill: async () => {
      child.kill('SIGKILL');
      await ended;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
