import { describe, expect, it } from 'vitest';
import { createMetrics } from '../../../coordinator/http/metrics.ts';
import type { LinkTraffic, StepReport } from '../../../protocol/messages.ts';
import { METRICS, type MetricDefinition } from '../../../protocol/metrics.ts';
import type { RootCause } from '../../../protocol/run-event.ts';
import { VIEW } from './view.ts';

const metrics = () => createMetrics({ run: 'r1', transport: 'ws' });

const REPORT = {
  step: 1,
  samples: 64,
  lossSum: 128,
  correct: 16,
  gradientNorm: 0.5,
  seconds: 0.1,
  phases: { data: 0.001, compute: 0.02, allreduce: 0.003, apply: 0.0002, wait: 0.004 },
  rssBytes: 3e8,
} satisfies StepReport;

const LINK = { peer: 1, transport: 'shm', bytesOut: 500, bytesIn: 700 } satisfies LinkTraffic;

const DIGEST_CAUSE: RootCause = {
  who: 'w1',
  rank: 1,
  host: 'h',
  pid: 1,
  exitCode: null,
  signal: null,
  code: 'E_DIGEST',
  message: 'other weights',
  lastLines: [],
  logFile: null,
};

/** The samples of an exposition: `name{labels} value`, comments left out. */
async function samplesOf(made: ReturnType<typeof metrics>): Promise<string[]> {
  const { text } = await made.render();
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

describe('the exposition', () => {
  it('has exactly the catalogue’s metrics, with their help and type', async () => {
    const { text, contentType } = await metrics().render();
    expect(contentType).toBe('text/plain; version=0.0.4; charset=utf-8');
    const lines = text.split('\n');
    const entries = Object.entries<MetricDefinition>(METRICS);
    expect(lines.filter((line) => line.startsWith('# HELP '))).toEqual(
      entries.map(([name, { help }]) => `# HELP ${name} ${help}`),
    );
    expect(lines.filter((line) => line.startsWith('# TYPE '))).toEqual(
      entries.map(([name, { kind }]) => `# TYPE ${name} ${kind}`),
    );
  });

  it('after a step of everything, each sample has exactly the catalogue’s labels', async () => {
    const made = metrics();
    made.setView(VIEW);
    made.observeWorkerStep('w0', REPORT);
    made.observeTraffic('w0', 'w1', LINK);
    made.observe({ kind: 'checkpoint', step: 1, directory: 'd', seconds: 0.2 });
    made.observe({
      kind: 'step',
      step: 1,
      generation: 1,
      loss: 2,
      accuracy: 0.25,
      gradientNorm: 0.5,
      samples: 64,
      seconds: 0.1,
      phases: REPORT.phases,
    });
    made.observe({
      kind: 'worker-ready',
      worker: 'w0',
      engine: { name: 'tensorflow', library: 'TensorFlow 2.21.0', device: 'CPU', threads: 1, settings: {} },
      fingerprint: 'a'.repeat(64),
    });
    made.countRefusal('E_MESSAGE');
    const labelsOf = new Map<string, string[]>();
    for (const sample of await samplesOf(made)) {
      const [, name = '', labels = ''] = /^(\w+?)(?:_bucket|_sum|_count)?\{(.*)\} /.exec(sample) ?? [];
      const names = [...labels.matchAll(/(\w+)="/g)].map((match) => match[1] ?? '').filter((label) => label !== 'le');
      labelsOf.set(name, names.toSorted());
    }
    const expected = Object.entries<MetricDefinition>(METRICS).map(
      ([name, { labels }]) => [name, labels.toSorted()] as const,
    );
    expect(labelsOf).toEqual(new Map(expected));
  });

  it('a run that has just begun has its counters, at 0', async () => {
    expect(await samplesOf(metrics())).toEqual([
      'lockstep_images_total{run="r1"} 0',
      'lockstep_workers_lost_total{run="r1"} 0',
      'lockstep_steps_lost_total{run="r1"} 0',
      'lockstep_microbatches_recomputed_total{run="r1"} 0',
      'lockstep_record_failures_total{run="r1",part="checkpoint"} 0',
      'lockstep_record_failures_total{run="r1",part="journal"} 0',
      'lockstep_record_failures_total{run="r1",part="metrics"} 0',
      'lockstep_record_failures_total{run="r1",part="report"} 0',
      'lockstep_record_failures_total{run="r1",part="model"} 0',
      'lockstep_digest_mismatches_total{run="r1"} 0',
    ]);
  });
});

describe('values', () => {
  it('a view sets what it says, and leaves out what is not known yet', async () => {
    const made = metrics();
    made.setView({ ...VIEW, testLoss: null });
    const samples = await samplesOf(made);
    for (const line of [
      'lockstep_step{run="r1"} 1000',
      'lockstep_steps{run="r1"} 7820',
      'lockstep_epoch{run="r1"} 2',
      'lockstep_loss{run="r1"} 1.0625',
      'lockstep_accuracy{run="r1"} 0.5',
      'lockstep_test_accuracy{run="r1"} 0.4375',
      'lockstep_learning_rate{run="r1"} 0.001',
      'lockstep_gradient_norm{run="r1"} 0.75',
      'lockstep_images_per_second{run="r1"} 4321.5',
      'lockstep_generation{run="r1"} 1',
      'lockstep_workers{run="r1",state="training"} 2',
      'lockstep_workers{run="r1",state="spare"} 1',
      'lockstep_workers{run="r1",state="lost"} 0',
    ]) {
      expect(samples).toContain(line);
    }
    expect(samples.some((line) => line.startsWith('lockstep_test_loss'))).toBe(false);
  });

  it('totals follow the view, however often it is shown', async () => {
    const made = metrics();
    made.setView({ ...VIEW, workersLost: 1 });
    made.setView({ ...VIEW, workersLost: 1 });
    made.setView({ ...VIEW, workersLost: 2, microbatchesRecomputed: 5 });
    const samples = await samplesOf(made);
    expect(samples).toContain('lockstep_workers_lost_total{run="r1"} 2');
    expect(samples).toContain('lockstep_steps_lost_total{run="r1"} 3');
    expect(samples).toContain('lockstep_microbatches_recomputed_total{run="r1"} 5');
  });

  it('a worker’s step is counted by phase; all-reduce with the waiting for peers', async () => {
    const made = metrics();
    made.observeWorkerStep('w0', REPORT);
    made.observeWorkerStep('w0', REPORT);
    const samples = await samplesOf(made);
    expect(samples).toContain('lockstep_step_duration_seconds_sum{run="r1",worker="w0",phase="compute"} 0.04');
    expect(samples).toContain(
      'lockstep_step_duration_seconds_bucket{le="0.01",run="r1",worker="w0",phase="compute"} 0',
    );
    expect(samples).toContain(
      'lockstep_step_duration_seconds_bucket{le="0.025",run="r1",worker="w0",phase="compute"} 2',
    );
    expect(samples).toContain('lockstep_allreduce_duration_seconds_sum{run="r1",worker="w0",transport="ws"} 0.014');
    expect(samples).toContain('lockstep_worker_resident_memory_bytes{run="r1",worker="w0"} 300000000');
  });

  it('bytes are counted by link: who, to whom, over what', async () => {
    const made = metrics();
    for (const transport of ['shm', 'shm', 'tcp'] as const) made.observeTraffic('w0', 'w1', { ...LINK, transport });
    made.observeTraffic('w0', 'w2', LINK);
    const samples = await samplesOf(made);
    expect(samples.filter((line) => line.startsWith('lockstep_allreduce_'))).toEqual([
      'lockstep_allreduce_bytes_total{run="r1",worker="w0",peer="w1",transport="shm"} 1000',
      'lockstep_allreduce_bytes_total{run="r1",worker="w0",peer="w1",transport="tcp"} 500',
      'lockstep_allreduce_bytes_total{run="r1",worker="w0",peer="w2",transport="shm"} 500',
      'lockstep_allreduce_received_bytes_total{run="r1",worker="w0",peer="w1",transport="shm"} 1400',
      'lockstep_allreduce_received_bytes_total{run="r1",worker="w0",peer="w1",transport="tcp"} 700',
      'lockstep_allreduce_received_bytes_total{run="r1",worker="w0",peer="w2",transport="shm"} 700',
    ]);
  });

  it('a step adds its samples', async () => {
    const made = metrics();
    const step = {
      kind: 'step',
      generation: 1,
      loss: 2,
      accuracy: 0.25,
      gradientNorm: 0.5,
      seconds: 0.1,
      phases: REPORT.phases,
    } as const;
    made.observe({ ...step, step: 1, samples: 64 });
    made.observe({ ...step, step: 2, samples: 16 });
    expect(await samplesOf(made)).toContain('lockstep_images_total{run="r1"} 80');
  });

  it('a write that fails is counted by what was to be written', async () => {
    const made = metrics();
    made.countRecordFailure('journal');
    made.countRecordFailure('journal');
    const samples = await samplesOf(made);
    expect(samples).toContain('lockstep_record_failures_total{run="r1",part="journal"} 2');
    expect(samples).toContain('lockstep_record_failures_total{run="r1",part="checkpoint"} 0');
  });

  it('a refusal and the failure that it becomes are one mismatch', async () => {
    const made = metrics();
    made.observe({ kind: 'worker-refused', worker: 'w1', code: 'E_DIGEST', because: 'other weights' });
    made.observe({ kind: 'failed', cause: DIGEST_CAUSE });
    expect(await samplesOf(made)).toContain('lockstep_digest_mismatches_total{run="r1"} 1');
  });

  it('a mismatch among several and the failure that it becomes are one; another worker’s is another', async () => {
    const made = metrics();
    const mismatch = { kind: 'mismatch', what: 'weights', step: 7, because: 'b' } as const;
    made.observe({ ...mismatch, workers: ['w0', 'w1'] });
    made.observe({ kind: 'failed', cause: DIGEST_CAUSE });
    made.observe({ ...mismatch, workers: ['w5'] });
    expect(await samplesOf(made)).toContain('lockstep_digest_mismatches_total{run="r1"} 2');
  });

  it('codes that a peer makes up share one label', async () => {
    const made = metrics();
    made.countRefusal('E_UNAUTHORIZED');
    for (const code of ['anything', 'else', '"}\n']) made.countRefusal(code);
    const refused = (await samplesOf(made)).filter((line) => line.startsWith('lockstep_workers_refused_total'));
    expect(refused).toEqual([
      'lockstep_workers_refused_total{run="r1",code="E_UNAUTHORIZED"} 1',
      'lockstep_workers_refused_total{run="r1",code="other"} 3',
    ]);
  });
});
