// Hosts on one machine: each a network namespace with a name, processes and an sshd of its own, on a wire with latency, loss and limited
// bandwidth between them (wire.py: kernels without `tc netem` are common). Addresses are private and exist inside the namespaces only.
//
// The first host is the launching one: commands are run on it by a program that stands for Node. What a host starts is in its PID
// namespace and ends with it, so that a test that fails leaves nothing; that nothing is left before is for the test to see.

import { execFileSync, spawnSync, spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { accessSync, constants, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheDirectory } from '../../deploy/setup/cache.ts';

const WIRE = fileURLToPath(new URL('wire.py', import.meta.url));
const SSHD = '/usr/sbin/sshd';
const NEEDED = ['/usr/sbin/ip', '/usr/sbin/tc', SSHD, '/usr/bin/ssh-keygen', '/usr/bin/unshare'];

/** Why there can be no such hosts here; null: there can. */
export function noHostsBecause(): string | null {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'needs root on Linux';
  const missing = NEEDED.filter((file) => {
    try {
      accessSync(file, constants.X_OK);
      return false;
    } catch {
      return true;
    }
  });
  return missing.length === 0 ? null : `needs ${missing.join(', ')}`;
}

/** Why this kernel, or what keeps this process in, allows no hosts; null: it does. Nothing that is installed would change it. */
export function kernelRefusesBecause(): string | null {
  const tried =
    'ip link add near0 type veth peer name far0 && tc qdisc add dev near0 root tbf rate 1mbit burst 32kbit latency 50ms';
  const { status, stderr } = spawnSync('unshare', ['--net', '--uts', '--pid', '--fork', 'sh', '-c', tried], {
    encoding: 'utf8',
  });
  return status === 0 ? null : `no namespaces with a network of their own here: ${stderr.trim()}`;
}

function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

export interface Weather {
  readonly delayMs: number;
  /** Share of the frames. */
  readonly loss: number;
  /** As tc writes it: `100mbit`. */
  readonly rate: string;
}

export class Hosts {
  /** Addresses; the first one is the launching host's. */
  readonly addresses: readonly string[];
  /** Where all of them put temporary files. */
  readonly temporary: string;
  /** Stands for Node, on the launching host. */
  readonly node: string;
  /** How the launching host reaches the others by ssh. */
  readonly sshFlags: readonly string[];
  private readonly directory: string;
  private readonly name = `ls${randomBytes(3).toString('hex')}`;
  private readonly started: ChildProcess[] = [];

  constructor(directory: string, count: number) {
    this.directory = directory;
    this.addresses = Array.from({ length: count }, (_, i) => `10.77.0.${i + 1}`);
    this.node = join(directory, 'node-on-h0');
    this.temporary = join(directory, 'tmp');
    this.sshFlags = [
      '--ssh-identity-file',
      join(directory, 'user-key'),
      '--ssh-option',
      `UserKnownHostsFile=${join(directory, 'known-hosts')}`,
      '--ssh-option',
      'StrictHostKeyChecking=yes',
      '--remote-node',
      process.execPath,
    ];
  }

  private space(host: number | 'wire'): string {
    return host === 'wire' ? `${this.name}-wire` : `${this.name}-h${host}`;
  }

  private start(program: string, ...args: readonly string[]): ChildProcess {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.started.push(child);
    return child;
  }

  async open({ delayMs, loss, rate }: Weather): Promise<void> {
    mkdirSync(this.temporary);
    const wire = this.space('wire');
    run('ip', 'netns', 'add', wire);
    for (const [i, address] of this.addresses.entries()) {
      const space = this.space(i);
      run('ip', 'netns', 'add', space);
      run('ip', '-n', wire, 'link', 'add', `w${i}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', space);
      run('ip', 'netns', 'exec', space, 'sh', '-c', 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6');
      run('ip', 'netns', 'exec', space, 'python3', WIRE, 'plain', 'eth0');
      run('ip', '-n', space, 'address', 'add', `${address}/24`, 'dev', 'eth0');
      run('ip', '-n', space, 'link', 'set', 'lo', 'up');
      run('ip', '-n', space, 'link', 'set', 'eth0', 'up');
      run('ip', '-n', wire, 'link', 'set', `w${i}`, 'up');
    }
    this.limit(rate);
    const devices = this.addresses.map((_, i) => `w${i}`);
    const carrier = this.start(
      'ip',
      'netns',
      'exec',
      wire,
      'python3',
      WIRE,
      'carry',
      `${delayMs}`,
      `${loss}`,
      '1',
      ...devices,
    );
    if (carrier.stdout !== null) await once(carrier.stdout, 'data');
    this.makeKeys();
    const shell = `echo h0 > /proc/sys/kernel/hostname && TMPDIR=${this.temporary} exec ${process.execPath} "$@"`;
    const there = `exec ip netns exec ${this.space(0)} unshare --uts sh -c '${shell}' sh "$@"`;
    writeFileSync(this.node, `#!/bin/sh\n${there}\n`, { mode: 0o755 });
    for (const i of this.addresses.keys()) if (i > 0) this.startSshd(i);
  }

  private makeKeys(): void {
    const { directory } = this;
    for (const key of ['user-key', 'host-key']) {
      run('ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'test', '-f', join(directory, key));
    }
    const [type = '', key = ''] = readFileSync(join(directory, 'host-key.pub'), 'utf8').split(' ');
    const known = this.addresses.map((address) => `${address} ${type} ${key}\n`).join('');
    writeFileSync(join(directory, 'known-hosts'), known);
    const config = [
      'Port 22',
      `HostKey ${join(directory, 'host-key')}`,
      `AuthorizedKeysFile ${join(directory, 'user-key.pub')}`,
      'PidFile none',
      'StrictModes no',
      'UsePAM no',
      'PasswordAuthentication no',
      'KbdInteractiveAuthentication no',
      'PermitRootLogin prohibit-password',
      `SetEnv LOCKSTEP_CACHE=${cacheDirectory()} TMPDIR=${this.temporary}`,
      // As many as it likes at once: an unsure connection is tried again.
      'MaxStartups 100',
    ];
    writeFileSync(join(directory, 'sshd-config'), `${config.join('\n')}\n`);
  }

  /** sshd wants a directory of its own in /run: there it is in a memory that only this host sees. */
  private startSshd(host: number): void {
    const script = [
      `echo h${host} > /proc/sys/kernel/hostname`,
      'mount -t tmpfs tmpfs /run',
      'mkdir /run/sshd',
      `exec ${SSHD} -D -e -o ListenAddress=${this.addresses[host]} -f ${join(this.directory, 'sshd-config')} 2> ${join(this.directory, `sshd-${host}.log`)}`,
    ].join(' && ');
    const apart = ['--uts', '--pid', '--ipc', '--mount-proc', '--fork', '--kill-child'];
    this.start('ip', 'netns', 'exec', this.space(host), 'unshare', ...apart, 'sh', '-c', script);
  }

  /** What each host may send, from now on. */
  limit(rate: string): void {
    for (const i of this.addresses.keys()) {
      const queue = ['dev', 'eth0', 'root', 'tbf', 'rate', rate, 'burst', '64kb', 'latency', '200ms'];
      run('tc', '-n', this.space(i), 'qdisc', 'replace', ...queue);
    }
  }

  /** Pulls a host's cable out. */
  cut(host: number): void {
    run('ip', '-n', this.space('wire'), 'link', 'set', `w${host}`, 'down');
  }

  mend(host: number): void {
    run('ip', '-n', this.space('wire'), 'link', 'set', `w${host}`, 'up');
  }

  /** Command lines of what runs on a host, its sshd's own processes left out. */
  processesOn(host: number): string[] {
    return run('ip', 'netns', 'pids', this.space(host))
      .split('\n')
      .filter((pid) => pid !== '')
      .flatMap((pid) => {
        try {
          return [readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()];
        } catch {
          return [];
        }
      })
      .filter((line) => line !== '' && !/^(sshd: |\/usr\/sbin\/sshd |unshare |sh -c echo )/.test(line));
  }

  /** Ends all that runs on them, and takes the namespaces away; what can't be undone is told. */
  async close(): Promise<void> {
    for (const child of this.started) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
    for (const host of [...this.addresses.keys(), 'wire' as const]) {
      if (!this.exists(host)) continue;
      for (const pid of run('ip', 'netns', 'pids', this.space(host)).split('\n')) {
        if (pid !== '') tryToKill(Number(pid));
      }
      run('ip', 'netns', 'del', this.space(host));
    }
  }

  private exists(host: number | 'wire'): boolean {
    return run('ip', 'netns', 'list')
      .split('\n')
      .some((line) => line.split(' ', 1)[0] === this.space(host));
  }

  /** Names of namespaces that are still there. */
  left(): string[] {
    return run('ip', 'netns', 'list')
      .split('\n')
      .filter((line) => line.startsWith(this.name));
  }
}

function tryToKill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}
