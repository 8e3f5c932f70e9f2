// Slurm's own daemons, on loopback: one controller, munged, and two slurmd that stand for two nodes of this machine, in directories and on ports of
// the test's own. No cgroups, no systemd, no accounting. Wants root and Debian's packages.

import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { vi } from 'vitest';

const WAIT = { timeout: 60_000, interval: 100 };
const NODES = ['node1', 'node2'] as const;

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<Server>((resolve) => {
          const server = createServer().listen(0, '127.0.0.1', () => resolve(server));
        }),
    ),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(
    servers.map(
      (server) =>
        new Promise((resolve) => {
          server.close(resolve);
        }),
    ),
  );
  return ports;
}

export class SlurmCluster {
  /** Seen by all nodes; removed with the cluster. */
  readonly shared: string;
  private readonly root: string;
  private readonly daemons: ChildProcess[] = [];

  private constructor() {
    this.root = mkdtempSync(join(tmpdir(), 'lockstep-slurm-'));
    chmodSync(this.root, 0o755);
    this.shared = join(this.root, 'shared');
  }

  static async start(): Promise<SlurmCluster> {
    const cluster = new SlurmCluster();
    try {
      await cluster.boot();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  private async boot(): Promise<void> {
    const at = (name: string): string => join(this.root, name);
    for (const name of ['shared', 'state', 'log', 'run', ...NODES]) mkdirSync(at(name));
    writeFileSync(at('munge.key'), randomBytes(128), { mode: 0o400 });
    const [control = 0, ...ports] = await freePorts(1 + NODES.length);
    const nodes = NODES.map(
      (name, i) =>
        `NodeName=${name} NodeHostname=${hostname()} NodeAddr=127.0.0.1 Port=${ports[i]} CPUs=2 State=UNKNOWN`,
    );
    // Two queues: what comes into the second takes nodes from the first, whose jobs are queued again.
    const configuration = `
ClusterName=lockstep
SlurmctldHost=${hostname()}(127.0.0.1)
SlurmctldPort=${control}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=${at('run/munge')}
CredType=cred/munge
StateSaveLocation=${at('state')}
SlurmdSpoolDir=${this.root}/%n
SlurmctldPidFile=${at('run/slurmctld.pid')}
SlurmdPidFile=${this.root}/run/slurmd-%n.pid
SlurmctldLogFile=${at('log/slurmctld')}
SlurmdLogFile=${this.root}/log/slurmd-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
${nodes.join('\n')}
PartitionName=low Nodes=${NODES.join(',')} Default=YES PriorityTier=1 PreemptMode=REQUEUE State=UP
PartitionName=high Nodes=${NODES.join(',')} PriorityTier=10 PreemptMode=OFF State=UP
`;
    writeFileSync(at('slurm.conf'), configuration);
    this.daemon('munged', ['--foreground', '--force', ...this.mungeFiles()]);
    await vi.waitFor(() => this.ask('munge', ['--no-input', `--socket=${at('run/munge')}`]), WAIT);
    this.daemon('slurmctld', ['-D', '-i']);
    for (const name of NODES) this.daemon('slurmd', ['-D', '-N', name]);
    await this.untilIdle();
  }

  /** Until no node has, or is still ending, anything. */
  async untilIdle(): Promise<void> {
    await vi.waitFor(() => {
      const states = this.ask('sinfo', ['--noheader', '--Node', '--partition=low', '--format=%T']);
      if (states !== 'idle\nidle\n') throw new Error(`the nodes are ${states}; ${this.logs()}`);
    }, WAIT);
  }

  private mungeFiles(): string[] {
    const at = (name: string): string => join(this.root, name);
    return [
      `--key-file=${at('munge.key')}`,
      `--socket=${at('run/munge')}`,
      `--pid-file=${at('run/munged.pid')}`,
      `--seed-file=${at('run/munged.seed')}`,
      `--log-file=${at('log/munged')}`,
    ];
  }

  private daemon(program: string, args: readonly string[]): void {
    this.daemons.push(spawn(program, [...args], { stdio: 'ignore', env: this.environment() }));
  }

  private environment(more: Readonly<Record<string, string>> = {}): Record<string, string | undefined> {
    return { ...process.env, SLURM_CONF: join(this.root, 'slurm.conf'), ...more };
  }

  /** What one of Slurm's commands prints; throws what it says when it fails. */
  ask(program: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): string {
    return execFileSync(program, [...args], {
      encoding: 'utf8',
      env: this.environment(env),
      cwd: this.shared,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** A field of `scontrol show job`, e.g. `JobState`. */
  job(id: string, field: string): string {
    const text = this.ask('scontrol', ['--oneliner', 'show', 'job', id]);
    return new RegExp(` ${field}=(\\S*)`).exec(text)?.[1] ?? '';
  }

  async until(id: string, field: string, value: string): Promise<void> {
    await vi.waitFor(() => {
      const now = this.job(id, field);
      if (now !== value)
        throw new Error(
          `${field} is ${now}, not ${value}\n${this.ask('scontrol', ['show', 'job', id])}\n${this.logs()}\n${this.output()}`,
        );
    }, WAIT);
  }

  /** The end of what its jobs and their workers have written. */
  private output(): string {
    const ends = readdirSync(this.shared, { recursive: true, encoding: 'utf8' })
      .filter((name) => /(^out|\.log)$/.test(name))
      .map((name) => `${name}:\n${readFileSync(join(this.shared, name), 'utf8').slice(-1500)}`);
    return ends.join('\n');
  }

  private logs(): string {
    return ['slurmctld', ...NODES.map((name) => `slurmd-${name}`)]
      .map((name) => {
        try {
          return readFileSync(join(this.root, 'log', name), 'utf8').slice(-4000);
        } catch {
          return `${name}: no log`;
        }
      })
      .join('\n');
  }

  async stop(): Promise<void> {
    try {
      this.ask('scancel', ['--user=root']);
      await vi.waitFor(() => {
        if (this.ask('squeue', ['--noheader']) !== '') throw new Error('jobs are left');
      }, WAIT);
    } catch {
      // It never came so far.
    }
    for (const child of this.daemons.toReversed()) {
      const ended = new Promise((resolve) => {
        child.once('close', resolve);
      });
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGTERM');
      await ended;
    }
    rmSync(this.root, { recursive: true, force: true });
  }
}
