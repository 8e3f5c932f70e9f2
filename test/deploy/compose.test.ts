// deploy/compose.yaml as Docker Compose itself reads it, and what it names: the command lines, the files that it mounts, what Prometheus scrapes.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, type TestContext } from 'vitest';
import { parse } from 'yaml';
import { parseCommand } from '../../deploy/options.ts';
import { CHECKOUT, needProgram, run, type Ran } from './tools.ts';

const FILE = join(CHECKOUT, 'deploy', 'compose.yaml');

interface Service {
  readonly image: string;
  readonly build?: { readonly context: string; readonly dockerfile: string };
  readonly hostname?: string;
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly secrets?: readonly { readonly source: string; readonly target?: string }[];
  readonly volumes?: readonly { readonly type: string; readonly source: string; readonly target: string }[];
  readonly ports?: readonly { readonly host_ip?: string }[];
  readonly read_only?: boolean;
  readonly cap_drop?: readonly string[];
  readonly stop_grace_period?: string;
}

interface Model {
  readonly services: Readonly<Record<string, Service>>;
  readonly secrets: Readonly<Record<string, { readonly file: string }>>;
}

function config(context: TestContext, file: string, flags: readonly string[] = []): Ran {
  needProgram(context, 'docker-compose');
  return run('docker-compose', ['--file', file, ...flags, 'config', '--format', 'json']);
}

function model(context: TestContext, ...flags: string[]): Model {
  const { code, stdout, stderr } = config(context, FILE, flags);
  expect([code, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as Model;
}

describe('docker compose config', () => {
  it('takes it: four services, and NATS by its profile', (context) => {
    expect(Object.keys(model(context).services).toSorted()).toEqual(['coordinator', 'grafana', 'prometheus', 'worker']);
    expect(Object.keys(model(context, '--profile', 'nats').services)).toContain('nats');
  });

  it.for([
    ['a key that there is none of', 'read_only: true', 'readonly: true'],
    ['a service that there is none of', 'depends_on: [prometheus]', 'depends_on: [prometheuss]'],
    ['a volume that there is none of', 'runs:/runs', 'run:/runs'],
    ['a secret that there is none of', 'secrets: [token]', 'secrets: [tokens]'],
  ])('refuses %s', ([, from = '', to = ''], context) => {
    const directory = mkdtempSync(join(tmpdir(), 'lockstep-compose-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    const text = readFileSync(FILE, 'utf8');
    expect(text).toContain(from);
    writeFileSync(join(directory, 'compose.yaml'), text.replaceAll(from, to));
    expect(config(context, join(directory, 'compose.yaml')).code).not.toBe(0);
  });
});

it('its command lines are ones that Lockstep takes, over WebSocket and over NATS', (context) => {
  const { coordinator, worker } = model(context).services;
  expect(parseCommand(coordinator?.command ?? [], coordinator?.environment ?? {}, '0')).toMatchObject({
    kind: 'coordinator',
    options: {
      job: 'cifar10-cnn',
      flags: { autoResume: true, runDir: '/runs/cifar10-cnn', transport: 'ws', tokenFile: '/run/secrets/token' },
    },
  });
  const environment = { ...coordinator?.environment, LOCKSTEP_TRANSPORT: 'nats' };
  expect(parseCommand(coordinator?.command ?? [], environment, '0')).toMatchObject({
    options: { flags: { transport: 'nats', natsUrl: { hostPort: 'nats:4222' } } },
  });
  expect(parseCommand(worker?.command ?? [], worker?.environment ?? {}, '0')).toMatchObject({
    kind: 'worker',
    flags: { coordinator: { url: 'http://coordinator:29400' }, job: 'cifar10-cnn', termGrace: 45 },
  });
});

it('what is mounted and built is there, the secret is where the documentation makes it', (context) => {
  const { services, secrets } = model(context, '--profile', 'nats');
  const files = Object.values(services).flatMap(({ build, volumes = [] }) => [
    ...volumes.filter(({ type }) => type === 'bind').map(({ source }) => source),
    ...(build === undefined ? [] : [join(build.context, build.dockerfile)]),
  ]);
  expect(files.length).toBeGreaterThan(5);
  expect(files.filter((file) => !existsSync(file))).toEqual([]);
  expect(secrets['token']?.file).toBe(join(CHECKOUT, 'deploy/compose/secrets/token'));
  expect(readFileSync(join(CHECKOUT, 'docs/launch-compose.md'), 'utf8')).toContain('> deploy/compose/secrets/token');
});

it('nothing is reached from another machine, and Lockstep runs hardened', (context) => {
  const { services } = model(context, '--profile', 'nats');
  const addresses = Object.values(services).flatMap(({ ports = [] }) => ports.map((port) => port.host_ip));
  expect(new Set(addresses)).toEqual(new Set(['127.0.0.1']));
  for (const name of ['coordinator', 'worker'])
    expect(services[name]).toMatchObject({
      read_only: true,
      cap_drop: ['ALL'],
      security_opt: ['no-new-privileges:true'],
    });
  // Every image by an exact version.
  const images = Object.values(services).map(({ image }) => image);
  expect(images.filter((image) => !/^lockstep:cpu$|:v?\d+\.\d+\.\d+(-alpine)?$/.test(image))).toEqual([]);
});

describe('Prometheus', () => {
  const FILES = { compose: 'deploy/compose/prometheus.yml', own: 'dashboards/prometheus.yml' };
  const read = (name: keyof typeof FILES): object => parse(readFileSync(join(CHECKOUT, FILES[name]), 'utf8')) as object;

  it('is configured as dashboards/prometheus.yml does, but for where the coordinator is and what it is shown', () => {
    const plain = JSON.stringify(read('compose'))
      .replaceAll(/"authorization":\{"credentials_file":"\/run\/secrets\/token"\},?/g, '')
      .replaceAll(',}', '}')
      .replaceAll('coordinator:29400', '127.0.0.1:29400');
    expect(JSON.parse(plain)).toEqual(read('own'));
  });

  it('takes it', (context) => {
    needProgram(context, 'promtool', 'apt-get install prometheus');
    const { code, stdout } = run('promtool', ['check', 'config', '--syntax-only', FILES.compose]);
    expect([code, stdout]).toEqual([0, expect.stringContaining('SUCCESS')]);
  });

  it('and Grafana find what the services mount', (context) => {
    const { prometheus, grafana } = model(context).services;
    const targets = (service: Service | undefined): string[] => (service?.volumes ?? []).map(({ target }) => target);
    expect(targets(prometheus)).toEqual(
      expect.arrayContaining(['/etc/prometheus/prometheus.yml', '/etc/prometheus/rules']),
    );
    expect(targets(grafana)).toContain('/etc/grafana/provisioning');
    expect(targets(grafana)).toContain(grafana?.environment?.['LOCKSTEP_DASHBOARDS']);
    expect(grafana?.environment?.['LOCKSTEP_PROMETHEUS_URL']).toBe('http://prometheus:9090');
  });
});
