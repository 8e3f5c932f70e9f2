// Three NATS servers on loopback from the files that are shipped (deploy/nats/), with other ports and paths: what is tested is what is
// copied. Each can be killed and started again, on its own port and with what it had stored.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeAuthority, makeCertificate } from '../certificates.ts';
import { natsServerPath } from './programs.ts';

const SHIPPED = fileURLToPath(new URL('../../deploy/nats/', import.meta.url));
const SERVERS = [1, 2, 3] as const;
const HEALTHY_EVERY_MS = 100;
const HEALTHY_TRIES = 600;
const ROLES = ['coordinator', 'worker', 'observer', 'admin'] as const;
export type NatsUser = (typeof ROLES)[number];

async function freePorts(count: number): Promise<number[]> {
  const held = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  await Promise.all(held.map((server) => once(server, 'listening')));
  const ports = held.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(held.map(async (server) => once(server.close(), 'close')));
  return ports;
}

export class NatsCluster {
  readonly caFile: string;
  private readonly directory: string;
  private readonly ports: readonly { readonly client: number; readonly route: number; readonly http: number }[];
  private readonly running = new Map<number, ChildProcess>();

  private constructor(directory: string, ports: NatsCluster['ports']) {
    this.directory = directory;
    this.ports = ports;
    this.caFile = join(directory, 'ca.pem');
  }

  /** @param directory a new one */
  static async start(directory: string): Promise<NatsCluster> {
    const ports = await freePorts(9);
    const cluster = new NatsCluster(
      directory,
      SERVERS.map((_, i) => ({ client: ports[i] ?? 0, route: ports[i + 3] ?? 0, http: ports[i + 6] ?? 0 })),
    );
    cluster.configure();
    for (const server of SERVERS) cluster.run(server);
    for (const server of SERVERS) await cluster.healthy(server);
    return cluster;
  }

  url(user: NatsUser): string {
    const hosts = this.ports.map(({ client }) => `127.0.0.1:${client}`).join(',');
    return `tls://${user}:${this.password(user)}@${hosts}`;
  }

  /** The server that listens at `port`, from 1. */
  serverAt(port: number): number {
    return 1 + this.ports.findIndex(({ client }) => client === port);
  }

  async kill(server: number): Promise<void> {
    const child = this.running.get(server);
    this.running.delete(server);
    child?.kill('SIGKILL');
    if (child?.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }

  /** Starts it again; resolves when it has caught up with the others. */
  async restart(server: number): Promise<void> {
    this.run(server);
    await this.healthy(server);
  }

  async stop(): Promise<void> {
    for (const server of SERVERS) await this.kill(server);
  }

  private password(user: NatsUser): string {
    return `pw-${user}`;
  }

  private configure(): void {
    const authority = makeAuthority();
    const { cert, key } = makeCertificate(['localhost', '127.0.0.1'], authority);
    for (const server of SERVERS) {
      const place = this.place(server);
      cpSync(SHIPPED, place, { recursive: true });
      const files = { 'cert.pem': cert, 'key.pem': key, 'ca.pem': authority.cert };
      for (const [name, text] of Object.entries(files)) writeFileSync(join(place, name), text);
      const { client, route, http } = this.ports[server - 1] ?? { client: 0, route: 0, http: 0 };
      const adapt: readonly (readonly [string, string])[] = [
        ['0.0.0.0:4222', `127.0.0.1:${client}`],
        ['127.0.0.1:8222', `127.0.0.1:${http}`],
        ['0.0.0.0:6222', `127.0.0.1:${route}`],
        ['/etc/nats/', `${place}/`],
        ['/var/lib/nats', join(place, 'store')],
        ...SERVERS.map((other): [string, string] => [
          `//nats-${other}:6222`,
          `//127.0.0.1:${this.ports[other - 1]?.route}`,
        ]),
      ];
      const file = join(place, 'cluster.conf');
      let text = readFileSync(file, 'utf8');
      for (const [from, to] of adapt) {
        if (!text.includes(from)) throw new Error(`deploy/nats/cluster.conf has no ${from} any more`);
        text = text.replaceAll(from, to);
      }
      writeFileSync(file, text);
    }
    writeFileSync(this.caFile, authority.cert);
  }

  private place(server: number): string {
    return join(this.directory, `nats-${server}`);
  }

  private run(server: number): void {
    const passwords = ROLES.map((role) => [`LOCKSTEP_NATS_${role.toUpperCase()}`, this.password(role)]);
    const log = join(this.place(server), 'log');
    const args = ['--config', join(this.place(server), `nats-${server}.conf`), '--log', log];
    this.running.set(
      server,
      spawn(natsServerPath(), args, { stdio: 'ignore', env: { ...process.env, ...Object.fromEntries(passwords) } }),
    );
  }

  /** Its JetStream has caught up, and the cluster has a leader. */
  private async healthy(server: number): Promise<void> {
    const { http = 0 } = this.ports[server - 1] ?? {};
    for (let tries = 1; ; tries++) {
      const answer = await fetch(`http://127.0.0.1:${http}/healthz`).catch(() => null);
      if (answer?.status === 200) return;
      if (tries === HEALTHY_TRIES) throw new Error(`nats-${server}: ${(await answer?.text()) ?? 'no answer'}`);
      await new Promise<void>((resolve) => {
        setTimeout(resolve, HEALTHY_EVERY_MS);
      });
    }
  }
}
