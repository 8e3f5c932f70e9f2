// deploy/kubernetes/ as kubectl renders it, held against the API's schemas, and its parts against each other: what a selector, a port, a
// Secret's key or a flag names must be there.

import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { ServiceMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor';
import { ScrapeConfig } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1alpha1/ScrapeConfig';
import { describe, expect, it, onTestFinished, type TestContext } from 'vitest';
import { parse, parseAllDocuments, stringify } from 'yaml';
import { parseCommand } from '../../deploy/options.ts';
import { CHECKOUT, needProgram, run } from './tools.ts';

const KUBERNETES = '1.37.0';
const ROOT = join(CHECKOUT, 'deploy', 'kubernetes');

type Labels = Readonly<Record<string, string>>;

interface Container {
  readonly name: string;
  readonly image: string;
  readonly args: readonly string[];
  readonly env?: readonly {
    readonly name: string;
    readonly value?: string;
    readonly valueFrom?: { readonly secretKeyRef: { readonly name: string; readonly key: string } };
  }[];
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
  readonly resources: {
    readonly requests: Record<string, string>;
    readonly limits: Record<string, string>;
  };
  readonly securityContext: unknown;
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
  readonly startupProbe?: Probe;
  readonly livenessProbe?: Probe;
  readonly readinessProbe?: Probe;
}

interface Probe {
  readonly httpGet?: { readonly path: string; readonly port: string; readonly scheme: string };
  readonly tcpSocket?: { readonly port: string };
}

interface Pod {
  readonly metadata: { readonly labels: Labels };
  readonly spec: {
    readonly hostname?: string;
    readonly terminationGracePeriodSeconds: number;
    readonly automountServiceAccountToken: boolean;
    readonly securityContext: unknown;
    readonly containers: readonly [Container];
    readonly volumes: readonly {
      readonly name: string;
      readonly secret?: { readonly secretName: string; readonly items?: readonly { key: string; path: string }[] };
      readonly persistentVolumeClaim?: { readonly claimName: string };
      readonly emptyDir?: object;
    }[];
  };
}

interface Selector {
  readonly matchLabels: Labels;
}

interface Rule {
  readonly ports?: readonly { readonly port: number; readonly protocol: string }[];
  readonly from?: readonly { readonly podSelector?: Selector; readonly namespaceSelector?: Selector }[];
  readonly to?: readonly { readonly podSelector?: Selector }[];
}

/** What is read of a manifest, of whatever kind. */
interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly labels: Labels };
  readonly spec: {
    readonly template: Pod;
    readonly selector: Labels & Selector;
    readonly ports: readonly { readonly name: string; readonly port: number; readonly targetPort: string }[];
    readonly podSelector: Selector;
    readonly ingress?: readonly Rule[];
    readonly egress?: readonly Rule[];
    readonly podFailurePolicy: { readonly rules: readonly { onExitCodes?: { containerName: string } }[] };
    readonly endpoints: readonly { readonly port: string }[];
    readonly httpSDConfigs: readonly { readonly url: string }[];
  };
}

const manifestsIn = (text: string): Manifest[] => parseAllDocuments(text).map((one) => one.toJS() as Manifest);

function rendered(context: TestContext, directory: string): string {
  needProgram(context, 'kubectl');
  const { code, stdout, stderr } = run('kubectl', ['kustomize', directory]);
  expect([code, stderr]).toEqual([0, '']);
  return stdout;
}

/** An overlay of everything at once, as a user would write one. */
function everything(context: TestContext): string {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'lockstep-overlay-')));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const to = (name: string): string => relative(directory, join(ROOT, name));
  const overlay = {
    apiVersion: 'kustomize.config.k8s.io/v1beta1',
    kind: 'Kustomization',
    resources: [to('overlays/gpu')],
    components: [to('components/nats'), to('components/monitoring')],
  };
  writeFileSync(join(directory, 'kustomization.yaml'), stringify(overlay));
  return rendered(context, directory);
}

const WAYS: readonly [string, (context: TestContext) => string][] = [
  ['overlays/cpu', (context) => rendered(context, join(ROOT, 'overlays', 'cpu'))],
  ['overlays/gpu', (context) => rendered(context, join(ROOT, 'overlays', 'gpu'))],
  ['overlays/gpu with all components', everything],
];

/** What the API's schemas say: the exit code, and what is not well. */
function verdict(context: TestContext, manifests: string): { readonly code: number | null; readonly words: string } {
  needProgram(context, 'kubernetes-validate');
  const { code, stdout, stderr } = run(
    'kubernetes-validate',
    ['--strict', '--quiet', '--kubernetes-version', KUBERNETES, '-'],
    { input: manifests },
  );
  return { code, words: `${stdout}${stderr}` };
}

const isMonitor = ({ apiVersion }: Manifest): boolean => apiVersion.startsWith('monitoring.coreos.com/');
const textOf = (manifests: readonly unknown[]): string => manifests.map((one) => stringify(one)).join('---\n');

describe.each(WAYS)('%s', (_, render) => {
  it('is what the API takes', (context) => {
    const all = manifestsIn(render(context));
    expect(verdict(context, textOf(all.filter((one) => !isMonitor(one))))).toEqual({ code: 0, words: '' });
    const refused = all.filter(isMonitor).flatMap((one) => {
      const typed = one.kind === 'ServiceMonitor' ? new ServiceMonitor(one as never) : new ScrapeConfig(one as never);
      try {
        typed.validate();
        return [];
      } catch (error) {
        return [`${one.kind}: ${String(error)}`];
      }
    });
    expect(refused).toEqual([]);
  });

  it('names nothing that is not there', (context) => {
    const all = manifestsIn(render(context));
    expect(dangling(all)).toEqual([]);
  });

  it('has containers whose command line Lockstep takes, to the addresses and files that they are given', (context) => {
    const all = manifestsIn(render(context));
    const pods = podsOf(all);
    const told = pods.map((pod) => {
      const [{ args, env = [], volumeMounts }] = pod.spec.containers;
      const variables = Object.fromEntries(
        env.map(({ name, value }) => [name, value ?? (name === 'LOCKSTEP_NATS_URL' ? 'tls://a:b@lockstep-nats' : '')]),
      );
      const words = [...args, ...Object.values(variables)];
      const paths = words.flatMap((word) => /(?:^|=)(\/.*)/.exec(word)?.[1] ?? []);
      const isMounted = (path: string): boolean =>
        volumeMounts.some(({ mountPath }) => path.startsWith(`${mountPath}/`));
      return {
        command: parseCommand(args, variables, '0'),
        unmounted: paths.filter((path) => !isMounted(path)),
        hostname: pod.spec.hostname,
        graceSeconds: pod.spec.terminationGracePeriodSeconds,
      };
    });
    const [coordinator, worker] = told;
    expect(told.map(({ unmounted }) => unmounted)).toEqual([[], []]);
    expect(coordinator).toMatchObject({
      command: { kind: 'coordinator', options: { flags: { autoResume: true, listen: { port: 29_400 } } } },
      // Else a pod that takes over on another node can't tell that the lock's holder is gone.
      hostname: 'lockstep-coordinator',
    });
    if (worker?.command.kind !== 'worker') throw new Error('the second is a worker');
    const { coordinator: called, termGrace } = worker.command.flags;
    const url = new URL(called.kind === 'http' ? called.url : called.server.url);
    const services = all.filter(({ kind }) => kind === 'Service');
    const served = services.map(({ metadata, spec }) => `${metadata.name}:${spec.ports[0]?.port}`);
    // The NATS servers come from their own chart.
    expect([...served, 'lockstep-nats:4222']).toContain(url.host);
    expect(termGrace).toBeLessThan(worker.graceSeconds);
  });

  it('is fit for the "restricted" level of the pod security standards, with resources bounded', (context) => {
    for (const { spec } of podsOf(manifestsIn(render(context)))) {
      expect(spec).toMatchObject({
        automountServiceAccountToken: false,
        securityContext: { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: 'RuntimeDefault' } },
      });
      const [container] = spec.containers;
      expect(container.securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      });
      expect(Object.keys(container.resources.requests)).toEqual(expect.arrayContaining(['cpu', 'memory']));
      expect(Object.keys(container.resources.limits)).toContain('memory');
      expect(container.image).toMatch(/^registry\.example\.com\/lockstep:0\.1\.0-(cpu|gpu)$/);
      // Where the root file system can't be written.
      expect(container.volumeMounts.map(({ mountPath }) => mountPath)).toContain('/tmp');
    }
  });
});

it('on GPUs each worker has one, and the coordinator none', (context) => {
  const [coordinator, worker] = podsOf(manifestsIn(rendered(context, join(ROOT, 'overlays', 'gpu'))));
  expect(worker?.spec.containers[0].resources.limits).toMatchObject({ 'nvidia.com/gpu': '1' });
  expect(coordinator?.spec.containers[0].resources.limits).not.toHaveProperty('nvidia.com/gpu');
});

describe('what is broken is refused', () => {
  const changed = (context: TestContext, from: string, to: string): string => {
    const text = rendered(context, join(ROOT, 'overlays', 'cpu'));
    expect(text).toContain(from);
    return text.replace(from, to);
  };

  it.for([
    ['a word for a number', 'parallelism: 1', 'parallelism: one'],
    ['a field that there is none of', 'backoffLimit: 10', 'backofLimit: 10'],
    ['a field in a container that there is none of', 'readOnlyRootFilesystem: true', 'readOnlyRootFileSystem: true'],
    ['a protocol that there is none of', 'protocol: UDP', 'protocol: [UDP]'],
  ])('by the schemas: %s', ([, from = '', to = ''], context) => {
    expect(verdict(context, changed(context, from, to)).code).toBe(1);
  });

  it.for([
    ['a port', 'targetPort: https', 'targetPort: http', 'Service lockstep-coordinator: port http'],
    ['a Secret', 'secretName: lockstep-tls', 'secretName: lockstep-tsl', 'volume tls: Secret lockstep-tsl'],
    ['a claim', 'claimName: lockstep-runs', 'claimName: runs', 'volume runs: claim runs'],
    ['a volume', 'name: runs\n', 'name: run\n', 'mount of run: no such volume'],
    ['a path of health', 'path: /healthz', 'path: /health', 'probe of /health: no such path'],
    ['a container', 'containerName: coordinator', 'containerName: main', 'Job lockstep-coordinator: container main'],
  ])('by the cross-check: %s', ([, from = '', to = '', told = ''], context) => {
    expect(dangling(manifestsIn(changed(context, from, to)))).toContain(told);
  });

  it('by the monitors’ schemas', () => {
    const broken = { spec: { httpSDConfigs: [{ uri: 'https://lockstep-coordinator:29400/sd' }] } };
    expect(() => new ScrapeConfig(broken as never).validate()).toThrow(/url/);
  });
});

/** Secrets with the keys that they have, by the commands of the documentation. */
function secretsOfDocs(): Map<string, string[]> {
  const text = readFileSync(join(CHECKOUT, 'docs', 'launch-kubernetes.md'), 'utf8').replaceAll(/\\\n\s*/g, ' ');
  const found = new Map<string, string[]>();
  for (const [, kind, name = '', rest = ''] of text.matchAll(/kubectl create secret (generic|tls) ([\w-]+)([^\n]*)/g)) {
    const given = [...rest.matchAll(/--from-(?:file|literal)=([\w.-]+)=/g)].map(([, key = '']) => key);
    found.set(name, kind === 'tls' ? ['tls.crt', 'tls.key'] : given);
  }
  return found;
}

describe('the values for the NATS chart', () => {
  const values = parse(readFileSync(join(ROOT, 'nats-values.yaml'), 'utf8')) as {
    readonly fullnameOverride: string;
    readonly config: { readonly cluster: { readonly replicas: number } };
    readonly container: {
      readonly env: Record<string, { valueFrom: { secretKeyRef: { name: string; key: string } } }>;
    };
  };

  it('name Secrets and keys that the documentation makes, and three servers of the name that workers call', () => {
    const secrets = secretsOfDocs();
    const missing = Object.values(values.container.env)
      .map(({ valueFrom }) => valueFrom.secretKeyRef)
      .filter(({ name, key }) => secrets.get(name)?.includes(key) !== true);
    expect(missing).toEqual([]);
    expect([values.fullnameOverride, values.config.cluster.replicas]).toEqual(['lockstep-nats', 3]);
  });
});

function podsOf(all: readonly Manifest[]): Pod[] {
  return all.filter(({ kind }) => kind === 'Job').map(({ spec }) => spec.template);
}

const covers = (selector: Labels, labels: Labels): boolean =>
  Object.entries(selector).every(([key, value]) => labels[key] === value);

/** What is named and is not there. */
function dangling(all: readonly Manifest[]): string[] {
  const found: string[] = [];
  const pods = podsOf(all);
  const secrets = secretsOfDocs();
  const podsFor = (selector: Labels): Pod[] => pods.filter(({ metadata }) => covers(selector, metadata.labels));
  const portsOf = (some: readonly Pod[]): (string | number)[] =>
    some.flatMap(({ spec }) =>
      spec.containers.flatMap(({ ports = [] }) => ports.flatMap((p) => [p.name, p.containerPort])),
    );
  for (const { kind, metadata, spec } of all) {
    const what = `${kind} ${metadata.name}`;
    const check = (isThere: boolean, name: string): void => {
      if (!isThere) found.push(`${what}: ${name}`);
    };
    if (kind === 'Service') {
      check(podsFor(spec.selector).length === 1, 'its selector is for one kind of pod');
      for (const { targetPort } of spec.ports)
        check(portsOf(podsFor(spec.selector)).includes(targetPort), `port ${targetPort}`);
    }
    if (kind === 'PodDisruptionBudget')
      check(podsFor(spec.selector.matchLabels).length === 1, 'its selector is for one kind of pod');
    if (kind === 'ServiceMonitor') {
      const services = all.filter(
        (one) => one.kind === 'Service' && covers(spec.selector.matchLabels, one.metadata.labels),
      );
      for (const { port } of spec.endpoints)
        check(
          services.some((s) => s.spec.ports.some(({ name }) => name === port)),
          `port ${port}`,
        );
    }
    if (kind === 'ScrapeConfig') {
      const served = all
        .filter((one) => one.kind === 'Service')
        .map((s) => `${s.metadata.name}:${s.spec.ports[0]?.port}`);
      for (const { url } of spec.httpSDConfigs) check(served.includes(new URL(url).host), url);
    }
    if (kind === 'NetworkPolicy') {
      const own = podsFor(spec.podSelector.matchLabels);
      check(own.length > 0, 'its selector is for no pod');
      for (const { from = [], ports = [] } of spec.ingress ?? []) {
        for (const { podSelector, namespaceSelector } of from)
          check(namespaceSelector !== undefined || podsFor(podSelector?.matchLabels ?? {}).length > 0, 'from no pod');
        for (const { port } of ports)
          check(own.every((pod) => portsOf([pod]).includes(port)) || port === 29_500, `port ${port}`);
      }
    }
    if (kind === 'Job') {
      for (const { onExitCodes } of spec.podFailurePolicy.rules) {
        const name = onExitCodes?.containerName;
        check(
          name === undefined || spec.template.spec.containers.some((one) => one.name === name),
          `container ${name}`,
        );
      }
    }
  }
  for (const { spec } of pods) {
    const volumes = new Set(spec.volumes.map(({ name }) => name));
    for (const { name, secret, persistentVolumeClaim: claim } of spec.volumes) {
      if (secret !== undefined) {
        const keys = secrets.get(secret.secretName);
        if (keys === undefined) found.push(`volume ${name}: Secret ${secret.secretName}`);
        for (const { key } of secret.items ?? [])
          if (keys?.includes(key) === false) found.push(`volume ${name}: key ${key}`);
      }
      if (
        claim !== undefined &&
        !all.some((m) => m.kind === 'PersistentVolumeClaim' && m.metadata.name === claim.claimName)
      )
        found.push(`volume ${name}: claim ${claim.claimName}`);
    }
    const [container] = spec.containers;
    for (const { name } of container.volumeMounts)
      if (!volumes.has(name)) found.push(`mount of ${name}: no such volume`);
    for (const { valueFrom } of container.env ?? []) {
      const ref = valueFrom?.secretKeyRef;
      if (ref !== undefined && secrets.get(ref.name)?.includes(ref.key) !== true)
        found.push(`Secret ${ref.name}: key ${ref.key}`);
    }
    for (const probe of [container.startupProbe, container.livenessProbe, container.readinessProbe]) {
      const port = probe?.httpGet?.port ?? probe?.tcpSocket?.port;
      if (port !== undefined && container.ports?.some(({ name }) => name === port) !== true)
        found.push(`probe of port ${port}`);
      const path = probe?.httpGet?.path;
      if (path !== undefined && !['/healthz', '/readyz'].includes(path)) found.push(`probe of ${path}: no such path`);
    }
    for (const word of container.args) {
      const [, mount = '', file = ''] = /=\/run\/secrets\/lockstep\/(\w+)\/(.+)/.exec(word) ?? [];
      const secret = spec.volumes.find(({ name }) => name === mount)?.secret?.secretName;
      if (mount !== '' && secret !== undefined && secrets.get(secret)?.includes(file) === false)
        found.push(`${word}: no such key`);
    }
  }
  return found;
}
