// A real Prometheus for tests: with the configuration that the product ships, pointed at a coordinator and in a hurry; and what it answers.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse, stringify } from 'yaml';
import { z } from 'zod';
import { prometheusPath } from './programs.ts';

const SHIPPED = new URL('../../dashboards/', import.meta.url);
const READY_POLL_MS = 50;

export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  /** Seconds and value. */
  readonly at: number;
  readonly value: number;
}

const pointSchema = z.tuple([z.number(), z.string()]);
const answerSchema = z.object({
  status: z.literal('success'),
  data: z.object({
    resultType: z.enum(['vector', 'matrix', 'scalar']),
    result: z.array(
      z.object({
        metric: z.record(z.string(), z.string()),
        value: pointSchema.optional(),
        values: z.array(pointSchema).optional(),
      }),
    ),
  }),
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}

interface Shipped {
  global: Record<string, string>;
  rule_files: string[];
  scrape_configs: {
    static_configs?: { targets: string[] }[];
    http_sd_configs?: { url: string; refresh_interval: string }[];
  }[];
}

/** The shipped configuration for a coordinator at this address, each `every`. */
function configurationFor(coordinator: string, every: string): string {
  const config = parse(readFileSync(new URL('prometheus.yml', SHIPPED), 'utf8')) as Shipped;
  config.global = { scrape_interval: every, evaluation_interval: every };
  config.rule_files = config.rule_files.map((file) => fileURLToPath(new URL(file, SHIPPED)));
  const { host } = new URL(coordinator);
  for (const { static_configs: fixed = [], http_sd_configs: found = [] } of config.scrape_configs) {
    for (const one of fixed) one.targets = one.targets.map((target) => target.replace('127.0.0.1:29400', host));
    for (const one of found) {
      one.url = one.url.replace('127.0.0.1:29400', host);
      one.refresh_interval = every;
    }
  }
  return stringify(config);
}

export class Prometheus {
  readonly url: string;
  private readonly child: ChildProcess;

  private constructor(url: string, child: ChildProcess) {
    this.url = url;
    this.child = child;
  }

  /** Resolves when it is ready. */
  static async start(directory: string, coordinator: string, every: string): Promise<Prometheus> {
    mkdirSync(directory, { recursive: true });
    const config = join(directory, 'prometheus.yml');
    writeFileSync(config, configurationFor(coordinator, every));
    const address = `127.0.0.1:${await freePort()}`;
    const flags = [`--config.file=${config}`, `--storage.tsdb.path=${join(directory, 'data')}`];
    const child = spawn(prometheusPath(), [...flags, `--web.listen-address=${address}`], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr?.on('data', (chunk: Buffer) => (said += chunk.toString()));
    const prometheus = new Prometheus(`http://${address}`, child);
    while (
      !(await fetch(`${prometheus.url}/-/ready`).then(
        ({ ok }) => ok,
        () => false,
      ))
    ) {
      if (child.exitCode !== null) throw new Error(`prometheus ended with ${child.exitCode}:\n${said}`);
      await new Promise((resolve) => {
        setTimeout(resolve, READY_POLL_MS);
      });
    }
    return prometheus;
  }

  /** The samples of a query at a time (seconds; none: now): of a range, all that lie in it. */
  async query(expr: string, at?: number): Promise<Sample[]> {
    const parameters = new URLSearchParams({ query: expr, ...(at !== undefined && { time: String(at) }) });
    const answer: unknown = await (
      await fetch(`${this.url}/api/v1/query`, { method: 'POST', body: parameters })
    ).json();
    const parsed = answerSchema.safeParse(answer);
    if (!parsed.success) throw new Error(`${expr}\n${JSON.stringify(answer)}`);
    return parsed.data.data.result.flatMap(({ metric: labels, value, values = [] }) =>
      [...(value === undefined ? [] : [value]), ...values].map(([time, text]) => ({
        labels,
        at: time,
        value: Number(text),
      })),
    );
  }

  async get(path: string): Promise<unknown> {
    return (await fetch(`${this.url}${path}`)).json();
  }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null) return;
    const end = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    await end;
  }
}
