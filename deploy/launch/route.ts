// By which address of this machine a host reaches it: the one from which this machine would send to the host. What a name means is
// ssh's to say (its configuration has aliases), and which address leads there the system's routing table's: a datagram socket that is
// connected has one, and nothing is sent.

import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { hostname } from 'node:os';
import { promisify } from 'node:util';
import { LockstepError } from '../../protocol/errors.ts';
import type { Host } from './hosts.ts';
import { sshArguments, type SshOptions } from './remote-command.ts';

/** Any will do: nothing is sent. */
const PORT = 9;
const TIMEOUT_MS = 10_000;

const run = promisify(execFile);

/** This machine, which needs no ssh. */
export function isHere({ name }: Host): boolean {
  return ['localhost', '127.0.0.1', '::1', hostname()].includes(name);
}

/** What `ssh -G` says: a keyword and its value a line. Pure. */
export function parseSshConfig(text: string): ReadonlyMap<string, string> {
  return new Map(
    text.split('\n').flatMap((line): [string, string][] => {
      const at = line.indexOf(' ');
      return at < 0 ? [] : [[line.slice(0, at).toLowerCase(), line.slice(at + 1).trim()]];
    }),
  );
}

/** Null where it can't be told yet: ssh will say what is wrong. Throws E_TOOL_MISSING, or E_LISTEN for a host behind another. */
export async function addressTowards(host: Host, ssh: SshOptions): Promise<string | null> {
  const config = parseSshConfig(await configOf(host, ssh));
  const proxy = config.get('proxyjump') ?? config.get('proxycommand');
  if (proxy !== undefined && proxy !== 'none') {
    throw new LockstepError('E_LISTEN', `${host.where}: ${host.name} is reached by way of ${proxy}`, {
      remedy: 'Say by which address it reaches this machine: --listen ADDRESS:PORT.',
    });
  }
  let to: { readonly address: string; readonly family: number };
  try {
    to = await lookup(config.get('hostname') ?? host.name);
  } catch {
    return null;
  }
  const socket = createSocket(to.family === 6 ? 'udp6' : 'udp4');
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.connect(PORT, to.address, resolve);
    });
    return socket.address().address;
  } catch {
    return null;
  } finally {
    socket.close();
  }
}

async function configOf(host: Host, ssh: SshOptions): Promise<string> {
  try {
    return (await run('ssh', sshArguments(host.name, ssh, null), { timeout: TIMEOUT_MS })).stdout;
  } catch (cause) {
    const { code, stderr } = cause as { code?: unknown; stderr?: string };
    if (code === 'ENOENT') {
      throw new LockstepError('E_TOOL_MISSING', 'ssh is not on the PATH', {
        remedy: 'apt-get install openssh-client',
        cause,
      });
    }
    const because = (stderr ?? '').trim().split('\n').at(-1) ?? String(cause);
    throw new LockstepError('E_HOSTS', `${host.where}: ssh does not take ${host.name}: ${because}`, {
      remedy: 'Correct --ssh-option, or the configuration of ssh.',
      cause,
    });
  }
}
