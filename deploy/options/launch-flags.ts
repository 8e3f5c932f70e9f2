// The flags that `launch` has besides those of a training: which hosts, how ssh reaches them, what is there.

import type { Host } from '../launch/hosts.ts';
import { BadValue, type Parser } from './values.ts';

export const DEFAULT_HOST_GRACE_SECONDS = 30;
export const DEFAULT_HOST_RETRY_LIMIT = 10;

export interface LaunchFlags {
  /** By -H; null: by one of the two below. */
  readonly hosts: readonly Host[] | null;
  readonly hostfile: string | undefined;
  readonly discoveryScript: string | undefined;
  readonly discoveryIntervalSeconds: number;
  readonly sshPort: number | null;
  readonly sshIdentityFile: string | null;
  readonly sshOptions: readonly string[];
  /** Null: where it is here. */
  readonly remoteDir: string | null;
  readonly remoteNode: string;
  /** Without a word between launcher and host for so long, both give the connection up, and the host ends its workers. */
  readonly graceSeconds: number;
  /** Failures in a row after which a host is left out. */
  readonly retryLimit: number;
}

/** Syntax and help, in the order in which they are shown. */
export const LAUNCH_FLAGS: readonly (readonly [syntax: string, help: string])[] = [
  [
    '-H, --hosts <list>',
    'HOST:SLOTS,HOST:SLOTS: hosts, as ssh knows them, and how many workers each has (default: as --nproc-per-node auto)',
  ],
  ['--hostfile <file>', 'a line a host, as mpirun and horovodrun read it: HOST slots=N'],
  [
    '--host-discovery-script <file>',
    'a program that prints HOST:SLOTS lines; run again and again: hosts that come and go join and leave the run',
  ],
  ['--host-discovery-interval <seconds>', 'from one run of the script to the next (default: 5)'],
  ['--ssh-port <port>', "ssh's port on the hosts"],
  ['--ssh-identity-file <file>', 'the key that ssh shows'],
  ['--ssh-option <option>', 'NAME=VALUE, as `ssh -o` takes it; may be repeated'],
  ['--remote-dir <dir>', "Lockstep's checkout on the hosts (default: where it is here)"],
  ['--remote-node <path>', 'Node on the hosts (default: node, on the PATH that ssh gives)'],
  [
    '--host-grace <seconds>',
    `how long a host that is cut off keeps its workers alive, and is not called lost by the launcher (default: ${DEFAULT_HOST_GRACE_SECONDS})`,
  ],
  [
    '--host-retry-limit <n>',
    `how often in a row a host that fails is started again before it is left out (default: ${DEFAULT_HOST_RETRY_LIMIT})`,
  ],
];

/** Options of ssh, one a line; separate flags are put together so, and so are those of the environment form. */
export const sshOptionList: Parser<readonly string[]> = (text) => {
  const options = text.split('\n').filter((line) => line.trim() !== '');
  const bad = options.find((option) => !/^[A-Za-z]+[ =].+$/.test(option));
  if (bad !== undefined) throw new BadValue('it must be NAME=VALUE', { remedy: 'See `man ssh_config` for the names.' });
  return options;
};
