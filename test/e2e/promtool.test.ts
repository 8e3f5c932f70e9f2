// Prometheus's own opinion of /metrics, as a coordinator and a worker serve it.

import { spawnSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { createMetrics } from '../../coordinator/http/metrics.ts';
import { startHttp } from '../../coordinator/http/server.ts';
import { VIEW } from '../coordinator/http/view.ts';
import { startExporter } from '../../worker/metrics/exporter.ts';
import { promtoolPath } from './programs.ts';

const NOTHING = { status: 0, stdout: '', stderr: '', error: undefined };

function opinionOf(input: string): object {
  const { status, stdout, stderr, error } = spawnSync(promtoolPath(), ['check', 'metrics'], {
    input,
    encoding: 'utf8',
  });
  return { status, stdout, stderr, error };
}

it('promtool finds nothing to say about the metrics', async () => {
  const metrics = createMetrics({
    run: 'r "1"\n\\',
    transport: 'ws',
    plan: { samples: 4, globalBatch: 3, microbatches: 1, seed: 1 },
    membersWanted: 2,
    past: { startedAtSeconds: 1, coordinators: 1, lastStepAtSeconds: 1, lastCheckpointAtSeconds: 1, shown: null },
  });
  metrics.setView(VIEW);
  metrics.observe({ kind: 'checkpoint', step: 1, directory: 'd', seconds: 0.2 });
  metrics.observe({
    kind: 'worker-ready',
    worker: 'w0',
    engine: { name: 'tensorflow', library: 'TensorFlow 2.21.0', device: 'CPU "é"', threads: 1, settings: {} },
    fingerprint: 'a'.repeat(64),
  });
  metrics.observeWorkerStep(
    'w0',
    {
      step: 1,
      samples: 64,
      lossSum: 128,
      correct: 16,
      gradientNorm: 0.5,
      seconds: 0.1,
      phases: { data: 0.001, compute: 0.02, allreduce: 0.003, apply: 0.0002, wait: 0.004 },
      rssBytes: 3e8,
    },
    false,
  );
  metrics.observeTraffic('w0', 'w1', { peer: 1, transport: 'shm', bytesOut: 500, bytesIn: 700 });
  metrics.countRefusal('E_MESSAGE');
  const http = await startHttp({
    listen: { host: '127.0.0.1', port: 0 },
    view: () => VIEW,
    metrics: () => metrics.render(),
    ready: () => ({ ok: true, because: '' }),
  });
  const input = await (await fetch(`${http.url}/metrics`)).text();
  await http.close();
  expect(opinionOf(input)).toEqual(NOTHING);
});

it('nor about a worker’s', async () => {
  const exporter = await startExporter({
    host: '127.0.0.1',
    tls: null,
    keys: null,
    run: 'r "1"\n\\',
    worker: 'w0',
    engineBytes: () => 4096,
    gpu: () => ({ name: 'GPU-1', utilization: 0.5, memoryBytes: 1e9 }),
  });
  const input = await (await fetch(exporter.url)).text();
  await exporter.close();
  expect(opinionOf(input)).toEqual(NOTHING);
});
