import { connect } from 'node:net';
import { once } from 'node:events';
import { describe, expect, it, onTestFinished } from 'vitest';
import { WORKER_METRICS, type MetricDefinition } from '../../../protocol/metrics.ts';
import { startExporter, type Exporter, type ExporterOptions } from '../../../worker/metrics/exporter.ts';
import { makeCertificate } from '../../certificates.ts';

const PHASES = { data: 0.5, compute: 4, allreduce: 0.25, apply: 1, wait: 2 };
const GPU = { name: 'GPU-1', utilization: 0.75, memoryBytes: 1024 };

async function start(change: Partial<ExporterOptions> = {}): Promise<Exporter> {
  const exporter = await startExporter({
    host: '127.0.0.1',
    tls: null,
    keys: null,
    run: 'r "1"',
    worker: 'w0',
    engineBytes: () => 4096,
    gpu: () => null,
    ...change,
  });
  onTestFinished(() => exporter.close());
  return exporter;
}

const samplesOf = async (exporter: Exporter): Promise<string[]> =>
  (await (await fetch(exporter.url)).text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));

describe('a worker’s own metrics', () => {
  it('are exactly the catalogue’s, each with its labels', async () => {
    const exporter = await start({ gpu: () => GPU });
    exporter.observe({ step: 1, phases: PHASES } as Parameters<Exporter['observe']>[0]);
    const labelsOf = new Map<string, string[]>();
    for (const sample of await samplesOf(exporter)) {
      const [, name = '', labels = ''] = /^(\w+?)(?:_bucket|_sum|_count)?\{(.*)\} /.exec(sample) ?? [];
      const names = [...labels.matchAll(/(\w+)="/g)].map((match) => match[1] ?? '').filter((label) => label !== 'le');
      labelsOf.set(name, names.toSorted());
    }
    const entries = Object.entries<MetricDefinition>(WORKER_METRICS);
    expect(labelsOf).toEqual(new Map(entries.map(([name, { labels }]) => [name, labels.toSorted()])));
  });

  it('add up what its steps took, however often somebody looks', async () => {
    const exporter = await start();
    const report = { step: 41, phases: PHASES } as Parameters<Exporter['observe']>[0];
    exporter.observe(report);
    await samplesOf(exporter);
    exporter.observe({ ...report, step: 42 });
    const samples = await samplesOf(exporter);
    const labels = 'run="r \\"1\\"",worker="w0"';
    expect(samples).toContain(`lockstep_worker_step{${labels}} 42`);
    expect(samples).toContain(`lockstep_worker_steps_total{${labels}} 2`);
    expect(samples).toContain(`lockstep_worker_phase_seconds_total{phase="compute",${labels}} 8`);
    expect(samples).toContain(`lockstep_worker_phase_seconds_total{phase="data",${labels}} 1`);
    expect(samples).toContain(`lockstep_worker_memory_bytes{part="engine",${labels}} 4096`);
  });

  it('say what the process itself says: processor time that grows, memory', async () => {
    const exporter = await start();
    const cpu = async (): Promise<number> =>
      Number(
        (await samplesOf(exporter))
          .find((line) => line.includes('cpu_seconds_total{mode="user"'))
          ?.split(' ')
          .at(-1),
      );
    const before = await cpu();
    const own = process.cpuUsage().user / 1e6;
    expect(before).toBeLessThanOrEqual(own);
    for (const until = performance.now() + 30; performance.now() < until;);
    expect(await cpu()).toBeGreaterThan(before);
  });

  it('carry the name that another coordinator gave', async () => {
    const exporter = await start();
    exporter.rename('w7');
    const samples = await samplesOf(exporter);
    expect(samples.every((line) => line.includes('worker="w7"'))).toBe(true);
  });

  it('a GPU of which nothing is known any more is not shown', async () => {
    let gpu: typeof GPU | null = GPU;
    const exporter = await start({ gpu: () => gpu });
    const shown = async (): Promise<number> =>
      (await samplesOf(exporter)).filter((line) => line.includes('_gpu_')).length;
    expect(await shown()).toBe(2);
    gpu = null;
    expect(await shown()).toBe(0);
  });

  it('are OpenMetrics for who asks for it', async () => {
    const exporter = await start();
    const answer = await fetch(exporter.url, { headers: { accept: 'application/openmetrics-text' } });
    expect(answer.headers.get('content-type')).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8');
    expect(await answer.text()).toMatch(/\n# EOF\n$/);
  });
});

describe('their server', () => {
  it('has that one path, read-only', async () => {
    const { url } = await start();
    expect((await fetch(new URL('/', url))).status).toBe(404);
    expect((await fetch(url, { method: 'POST' })).status).toBe(405);
    expect((await fetch(url, { method: 'HEAD' })).status).toBe(200);
  });

  it('tells the address that others reach it at', async () => {
    const { url } = await start({ host: '0.0.0.0', announced: '10.1.2.3' });
    expect(url).toMatch(/^http:\/\/10\.1\.2\.3:\d+\/metrics$/);
  });

  it('speaks TLS where the worker has a certificate', async () => {
    const { url } = await start({
      tls: { identity: makeCertificate(['localhost'], null), ca: null, clientCa: null },
    });
    expect(url).toMatch(/^https:/);
  });

  it('ends at once, whoever is connected', async () => {
    const exporter = await startExporter({
      host: '127.0.0.1',
      tls: null,
      keys: null,
      run: 'r',
      worker: 'w0',
      engineBytes: () => 0,
      gpu: () => null,
    });
    const socket = connect(Number(new URL(exporter.url).port), '127.0.0.1');
    await once(socket, 'connect');
    const end = once(socket, 'close');
    await exporter.close();
    await end;
    expect(socket.destroyed).toBe(true);
  });

  it('an address of another machine can’t be listened on', async () => {
    await expect(start({ host: '192.0.2.1' })).rejects.toMatchObject({ code: 'E_LISTEN' });
  });
});
