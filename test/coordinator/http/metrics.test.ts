import { describe, expect, it } from 'vitest';
import { createMetrics, PAST_WORKERS_MAX, type RunPast } from '../../../coordinator/http/metrics.ts';
import type { LinkTraffic, StepReport } from '../../../protocol/messages.ts';
import { METRICS, type MetricDefinition } from '../../../protocol/metrics.ts';
import type { RootCause } from '../../../protocol/run-event.ts';
import { VIEW } from './view.ts';

const NEW: RunPast = {
  startedAtSeconds: 1_700_000_000,
  coordinators: 0,
  lastStepAtSeconds: null,
  lastCheckpointAtSeconds: null,
  shown: null,
};

/** Of a run with 4 samples an epoch in batches of 3: the second batch has one. */
const metrics = (past: Partial<RunPast> = {}) =>
  createMetrics({
    run: 'r1',
    transport: 'ws',
    plan: { samples: 4, globalBatch: 3, microbatches: 1, seed: 1 },
    membersWanted: 2,
    past: { ...NEW, ...past },
  });

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
    const made = metrics({ lastStepAtSeconds: 1, lastCheckpointAtSeconds: 1 });
    made.setView(VIEW);
    made.observeWorkerStep('w0', REPORT, false);
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
    const counters = (await samplesOf(metrics())).filter((line) => /^\w+_total\{/.test(line));
    expect(counters).toEqual([
      'lockstep_images_total{run="r1"} 0',
      'lockstep_workers_lost_total{run="r1"} 0',
      'lockstep_steps_lost_total{run="r1"} 0',
      'lockstep_microbatches_recomputed_total{run="r1"} 0',
      'lockstep_coordinator_restarts_total{run="r1"} 0',
      'lockstep_coordinator_cpu_seconds_total{run="r1"} 0',
      'lockstep_record_failures_total{run="r1",part="checkpoint"} 0',
      'lockstep_record_failures_total{run="r1",part="journal"} 0',
      'lockstep_record_failures_total{run="r1",part="metrics"} 0',
      'lockstep_record_failures_total{run="r1",part="report"} 0',
      'lockstep_record_failures_total{run="r1",part="model"} 0',
      'lockstep_record_failures_total{run="r1",part="timeline"} 0',
      'lockstep_record_failures_total{run="r1",part="upload"} 0',
      'lockstep_record_failures_total{run="r1",part="counters"} 0',
      'lockstep_digest_mismatches_total{run="r1"} 0',
      'lockstep_digest_checks_total{run="r1"} 0',
      'lockstep_audits_total{run="r1"} 0',
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
    made.observe({ kind: 'generation', generation: 1, worldSize: 2, spares: 0, because: 'b' });
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
    made.observeWorkerStep('w0', REPORT, false);
    made.observeWorkerStep('w0', REPORT, false);
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

  it('samples are those of the steps that are done, each once, the short batch included', async () => {
    const made = metrics();
    const totals = [];
    for (const step of [1, 2, 3, 5, 4, 5]) {
      made.setView({ ...VIEW, step });
      const line = (await samplesOf(made)).find((sample) => sample.startsWith('lockstep_images_total'));
      totals.push(Number(line?.split(' ')[1]));
    }
    // A run that went back has not used anything less.
    expect(totals).toEqual([3, 4, 7, 11, 11, 11]);
  });

  it('a gradient that is not finite is not a number, and stays so', async () => {
    const made = metrics();
    made.observe({ kind: 'failed', cause: { ...DIGEST_CAUSE, code: 'E_NOT_FINITE' } });
    made.setView(VIEW);
    expect(await samplesOf(made)).toContain('lockstep_gradient_norm{run="r1"} NaN');
  });

  it('steps that seem lost are not told before a generation has begun: members may still have them', async () => {
    const made = metrics();
    made.setView({ ...VIEW, stepsLost: 300 });
    expect(await samplesOf(made)).toContain('lockstep_steps_lost_total{run="r1"} 0');
    made.observe({ kind: 'generation', generation: 2, worldSize: 2, spares: 0, because: 'b' });
    made.setView({ ...VIEW, stepsLost: 0 });
    expect(await samplesOf(made)).toContain('lockstep_steps_lost_total{run="r1"} 0');
  });

  it('a recovery lasts from the loss of a member to the first step of the next generation; a newcomer is none', async () => {
    const made = metrics();
    const step = (generation: number): void =>
      made.observe({
        kind: 'step',
        step: 1,
        generation,
        loss: 2,
        accuracy: 0.25,
        gradientNorm: 0.5,
        samples: 3,
        seconds: 0.1,
        phases: REPORT.phases,
      });
    const recoveries = async (): Promise<number> => {
      const line = (await samplesOf(made)).find((sample) =>
        sample.startsWith('lockstep_recovery_duration_seconds_count'),
      );
      return Number(line?.split(' ')[1]);
    };
    made.observeMembership(1, ['w0', 'w1'], () => false);
    step(1);
    made.observeMembership(2, ['w0', 'w1', 'w2'], () => false);
    step(2);
    expect(await recoveries()).toBe(0);
    made.observeMembership(3, ['w0', 'w2'], (worker) => worker === 'w1');
    // Reports that were under way.
    step(2);
    expect(await recoveries()).toBe(0);
    // Another loss before a step was done makes it longer, and is none of its own.
    made.observeMembership(4, ['w2'], (worker) => worker === 'w0');
    step(3);
    expect(await recoveries()).toBe(0);
    step(4);
    expect(await recoveries()).toBe(1);
    // One that makes room for a spare is not lost.
    made.observeMembership(5, ['w3'], () => false);
    step(5);
    expect(await recoveries()).toBe(1);
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

/** What another process is given of one that was killed: through JSON, as through the file. */
async function killed(made: ReturnType<typeof metrics>, lastStep: number): Promise<RunPast['shown']> {
  made.setView({ ...VIEW, step: lastStep });
  const { shown } = await made.render();
  return JSON.parse(JSON.stringify(shown)) as RunPast['shown'];
}

const valuesOf = async (made: ReturnType<typeof metrics>): Promise<Map<string, number>> =>
  new Map(
    (await samplesOf(made)).map((line) => {
      const end = line.lastIndexOf(' ');
      return [line.slice(0, end), Number(line.slice(end + 1))];
    }),
  );

const isCumulative = (series: string): boolean => /_(total|bucket|sum|count)\{/.test(series);

describe('a coordinator that takes over', () => {
  it('shows no counter and no histogram smaller than the one before has shown it', async () => {
    const first = metrics();
    first.observe({ kind: 'generation', generation: 1, worldSize: 2, spares: 0, because: 'b' });
    first.observeWorkerStep('w0', REPORT, false);
    first.observeTraffic('w0', 'w1', LINK);
    first.observe({ kind: 'checkpoint', step: 1, directory: 'd', seconds: 0.2 });
    first.observe({ kind: 'mismatch', what: 'weights', step: 7, workers: ['w1'], because: 'b' });
    first.countRefusal('E_MESSAGE');
    first.countRecordFailure('journal');
    first.setView({ ...VIEW, workersLost: 2, stepsLost: 3, microbatchesRecomputed: 4, digestChecks: 5, audits: 6 });
    const shown = await killed(first, 1000);
    const before = await valuesOf(first);
    const second = metrics({ coordinators: 1, shown });
    const none = { workersLost: 2, stepsLost: 0, microbatchesRecomputed: 0, digestChecks: 0, audits: 0 };
    second.setView({ ...VIEW, ...none, step: 990 });
    const after = await valuesOf(second);
    const smaller = [...before].filter(
      ([series, value]) => isCumulative(series) && !((after.get(series) ?? -1) >= value),
    );
    expect(smaller).toEqual([]);
    expect(after.get('lockstep_step_duration_seconds_bucket{le="0.025",run="r1",worker="w0",phase="compute"}')).toBe(1);
  });

  it('counts on: what it meets itself is added, what the record tells of the whole run is not counted twice', async () => {
    const first = metrics();
    first.observe({ kind: 'generation', generation: 1, worldSize: 2, spares: 0, because: 'b' });
    first.observeWorkerStep('w0', REPORT, false);
    first.setView({ ...VIEW, step: 2, workersLost: 2, stepsLost: 3, microbatchesRecomputed: 4 });
    const second = metrics({ coordinators: 1, shown: await killed(first, 2) });
    second.observe({ kind: 'generation', generation: 2, worldSize: 2, spares: 0, because: 'b' });
    second.observeWorkerStep('w0', { ...REPORT, step: 3 }, false);
    // The third loss was in the journal, and no scrape had shown it.
    second.setView({ ...VIEW, step: 3, workersLost: 3, stepsLost: 1, microbatchesRecomputed: 2 });
    const values = await valuesOf(second);
    expect(values.get('lockstep_workers_lost_total{run="r1"}')).toBe(3);
    expect(values.get('lockstep_steps_lost_total{run="r1"}')).toBe(4);
    expect(values.get('lockstep_microbatches_recomputed_total{run="r1"}')).toBe(6);
    expect(values.get('lockstep_images_total{run="r1"}')).toBe(7);
    expect(values.get('lockstep_coordinator_restarts_total{run="r1"}')).toBe(1);
    expect(values.get('lockstep_step_duration_seconds_count{run="r1",worker="w0",phase="apply"}')).toBe(2);
    // And the third on: restarts are those of the journal.
    const third = metrics({ coordinators: 2, shown: await killed(second, 3) });
    expect((await valuesOf(third)).get('lockstep_coordinator_restarts_total{run="r1"}')).toBe(2);
  });

  it('does not count again the steps that a worker repeats and a scrape has shown', async () => {
    const first = metrics();
    first.observeWorkerStep('w0', REPORT, false);
    const second = metrics({ coordinators: 1, shown: await killed(first, 1) });
    second.observeWorkerStep('w2', { ...REPORT, step: 1 }, true);
    second.observeWorkerStep('w2', { ...REPORT, step: 2 }, true);
    // By a worker that does the first step again, since nobody had kept it.
    second.observeWorkerStep('w3', { ...REPORT, step: 1 }, false);
    const values = await valuesOf(second);
    const counted = ['w0', 'w2', 'w3'].map((worker) =>
      values.get(`lockstep_step_duration_seconds_count{run="r1",worker="${worker}",phase="data"}`),
    );
    expect(counted).toEqual([1, 1, 1]);
  });

  it('knows from the record when the run began, its last step and its last checkpoint', async () => {
    const made = metrics({ startedAtSeconds: 100, lastStepAtSeconds: 200, lastCheckpointAtSeconds: 150 });
    const values = await valuesOf(made);
    expect(values.get('lockstep_run_start_timestamp_seconds{run="r1"}')).toBe(100);
    expect(values.get('lockstep_step_last_timestamp_seconds{run="r1"}')).toBe(200);
    expect(values.get('lockstep_checkpoint_last_timestamp_seconds{run="r1"}')).toBe(150);
  });
});

describe('label sets', () => {
  it('a worker that is lost has no memory and no engine any more; what it did stays counted', async () => {
    const made = metrics();
    for (const worker of ['w0', 'w1']) {
      const engine = { name: 'tensorflow', library: 'TensorFlow 2.21.0', device: 'CPU', threads: 1, settings: {} };
      made.observe({ kind: 'worker-ready', worker, engine, fingerprint: 'a'.repeat(64) });
      made.observeWorkerStep(worker, REPORT, false);
    }
    const workers = VIEW.workers.map(
      (worker) => ({ ...worker, state: worker.id === 'w1' ? 'lost' : worker.state }) as const,
    );
    made.setView({ ...VIEW, workers });
    const samples = await samplesOf(made);
    const about = (name: string): string[] =>
      samples.filter((line) => line.startsWith(name)).flatMap((line) => /worker="(w\d+)"/.exec(line)?.[1] ?? []);
    expect(about('lockstep_worker_resident_memory_bytes')).toEqual(['w0']);
    expect(about('lockstep_engine_info')).toEqual(['w0']);
    expect(new Set(about('lockstep_step_duration_seconds_count'))).toEqual(new Set(['w0', 'w1']));
  });

  it('of workers that are gone only the newest are shown, however many there were, in this process and before', async () => {
    const lose = (made: ReturnType<typeof metrics>, from: number, to: number): void => {
      for (let i = from; i < to; i++) {
        made.observeWorkerStep(`w${i}`, { ...REPORT, step: i }, false);
        made.observeTraffic(`w${i}`, `w${i + 1}`, LINK);
      }
    };
    const first = metrics();
    lose(first, 3, 3 + 2 * PAST_WORKERS_MAX);
    const second = metrics({ coordinators: 1, shown: await killed(first, 1) });
    lose(second, 200, 210);
    second.setView(VIEW);
    const workersIn = async (): Promise<string[]> => [
      ...new Set((await samplesOf(second)).flatMap((line) => /worker="(w\d+)"/.exec(line)?.[1] ?? [])),
    ];
    const left = await workersIn();
    expect(left).toHaveLength(PAST_WORKERS_MAX);
    expect(left).toContain('w209');
    expect(left).not.toContain('w3');
  });
});

describe('OpenMetrics', () => {
  it('is what who asks for it gets: counters named without _total in their heads, and an end', async () => {
    const made = metrics();
    made.setView(VIEW);
    const accept = 'application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1';
    const { contentType, text } = await made.render(accept);
    expect(contentType).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8');
    expect(text).toContain('# TYPE lockstep_workers_lost counter\nlockstep_workers_lost_total{run="r1"} 0\n');
    expect(text).toContain('# HELP lockstep_workers_lost Workers lost');
    expect(text.endsWith('\n# EOF\n')).toBe(true);
    expect(text).not.toMatch(/\n\n/);
  });
});
