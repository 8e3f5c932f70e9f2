// What an operator sees: a real run of two workers, scraped by a real Prometheus with the configuration, rules and queries that the product
// ships. Each query finds something, and what it finds is what the run's own record says.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RunReport } from '../../protocol/report.ts';
import {
  annotationQueries,
  filledIn,
  nodesOf,
  panelQueries,
  ruleQueries,
  rulesIn,
  selectors,
} from '../dashboards/queries.ts';
import { lockstep, reportIn, Scratch } from './lockstep.ts';
import { Prometheus, type Sample } from './prometheus.ts';

const JOB = fileURLToPath(new URL('jobs/two-moons.ts', import.meta.url));
const RUN = 'watched';
/** So many that there are some forty scrapes while it trains: on a machine of five times the speed there are enough. */
const STEPS = 6000;
/** Each scrape and each evaluation of the rules. */
const EVERY = '200ms';
/** For Grafana's $__rate_interval: some scrapes, also where the machine is slow. */
const RATE_INTERVAL = '5s';

/** What rightly finds nothing in a run where nothing happens. */
const EMPTY: Readonly<Record<string, string>> = {
  'Performance / GPU utilization: {{worker}} on {{gpu}}': 'there is no GPU',
  'Performance / GPU memory: {{worker}} on {{gpu}}': 'there is no GPU',
  'Cluster / Losses and refusals: refused: {{code}}': 'nobody was refused',
  'Cluster / Recoveries: half': 'nobody was lost',
  'Cluster / Recoveries: 95 %': 'nobody was lost',
  'Training marks Lost workers': 'nobody was lost',
  'Performance marks Lost workers': 'nobody was lost',
  'Cluster marks Lost workers': 'nobody was lost',
};

/** Whether there is something depends on whether the first generation opened after the first scrape. */
const MAY_BE_EMPTY = /marks Generations$/;

const scratch = new Scratch();
const directory = scratch.dir(RUN);
let prometheus: Prometheus;
let report: RunReport;
/** When both workers were last seen training, and when the run was last seen. */
let whileTraining = 0;
let atTheEnd = 0;

const lastAt = (samples: readonly Sample[]): number => Math.max(0, ...samples.map(({ at }) => at));

beforeAll(async () => {
  const flags = ['--workers', '2', '--epochs', '1000', '--max-steps', String(STEPS), '--seed', '7'];
  const place = ['--listen', '127.0.0.1:0', '--run-dir', directory];
  const run = lockstep(['train', JOB, ...flags, ...place]);
  const [, url = ''] = await run.wrote(/listening\s+(http:\S+)/);
  prometheus = await Prometheus.start(scratch.dir('prometheus'), url, EVERY);
  const { code, stderr } = await run.ended;
  if (code !== 0) throw new Error(`the run ended with ${code}:\n${stderr}`);
  report = reportIn(directory);
  whileTraining = lastAt(await prometheus.query(`lockstep_worker_steps_total{run="${RUN}"}[5m]`));
  atTheEnd = lastAt(await prometheus.query(`lockstep_step{run="${RUN}"}[5m]`));
});

afterAll(async () => {
  await prometheus.stop();
  scratch.remove();
});

describe('a run that Prometheus watches', () => {
  it('is found by its coordinator and, over /sd, by each of its workers', async () => {
    const up = await prometheus.query('up == 1', whileTraining);
    const found = up.map(({ labels: { job = '', run = '', worker = '' } }) => [job, run, worker].join(' '));
    expect(found.toSorted()).toEqual(['lockstep  ', `lockstep-workers ${RUN} w0`, `lockstep-workers ${RUN} w1`]);
  });

  it('is in the selector of the dashboards', async () => {
    for (const { metric, label } of selectors()) {
      const answer = await prometheus.get(`/api/v1/label/${label}/values?match[]=${metric}`);
      expect(answer).toMatchObject({ data: [RUN] });
    }
  });

  it('every panel and every mark finds something, except for what is named here with its reason', async () => {
    const empty: string[] = [];
    for (const { name, expr } of [...panelQueries(), ...annotationQueries()]) {
      const samples = await prometheus.query(filledIn(expr, RUN, RATE_INTERVAL), whileTraining);
      if (!samples.some(({ value }) => !Number.isNaN(value))) empty.push(name);
    }
    expect(empty.filter((name) => !MAY_BE_EMPTY.test(name)).toSorted()).toEqual(Object.keys(EMPTY).toSorted());
  });

  it('every rule is evaluated without a fault; what is recorded is there, what alerts look at is, too, and none fires', async () => {
    type Rules = { data: { groups: { rules: { name: string; health: string; lastError?: string }[] }[] } };
    const { data } = (await prometheus.get('/api/v1/rules')) as Rules;
    const evaluated = data.groups.flatMap(({ rules }) => rules);
    expect(evaluated.filter(({ health }) => health !== 'ok')).toEqual([]);
    expect(evaluated.map(({ name }) => name).toSorted()).toEqual(
      ruleQueries()
        .map(({ name }) => name)
        .toSorted(),
    );
    for (const { record = '' } of rulesIn('recording.yml')) {
      const samples = await prometheus.query(record, whileTraining);
      expect([record, samples.length > 0 && samples.every(({ value }) => value >= 0)]).toEqual([record, true]);
    }
    const unseen: string[] = [];
    for (const { alert = '', expr } of rulesIn('alerts.yml')) {
      for (const selector of nodesOf(expr, 'VectorSelector')) {
        if ((await prometheus.query(selector, whileTraining)).length === 0) unseen.push(`${alert}: ${selector}`);
      }
    }
    expect(unseen).toEqual([]);
    expect(await prometheus.query('ALERTS{alertstate="firing"}[10m]')).toEqual([]);
  });
});

describe('what Prometheus has at the end', () => {
  const valueOf = async (expr: string): Promise<number | undefined> => {
    const samples = await prometheus.query(filledIn(expr, RUN, RATE_INTERVAL), atTheEnd);
    expect([expr, samples.length]).toEqual([expr, 1]);
    return samples[0]?.value;
  };

  it('is the end: the run waited to be scraped once more', async () => {
    expect(await valueOf('lockstep_run_state{run="$run", state="done"}')).toBe(1);
    expect(await valueOf('lockstep_step{run="$run"}')).toBe(STEPS);
    expect(report.steps).toBe(STEPS);
  });

  it('is what the report says: losses exactly, throughput within 2 %, and nothing is counted twice', async () => {
    expect(await valueOf('lockstep_loss{run="$run"}')).toBe(report.finalLoss);
    expect(await valueOf('lockstep_test_loss{run="$run"}')).toBe(report.testLoss);
    expect(await valueOf('lockstep_test_accuracy{run="$run"}')).toBe(report.testAccuracy);
    expect(await valueOf('lockstep_images_total{run="$run"}')).toBe(report.samples);
    const speed = (await valueOf('lockstep_images_per_second_mean{run="$run"}')) ?? 0;
    expect(speed / report.imagesPerSecond).toBeGreaterThan(0.98);
    expect(speed / report.imagesPerSecond).toBeLessThan(1.02);
    for (const worker of ['w0', 'w1']) {
      const selector = `{run="$run", worker="${worker}", phase="compute"}`;
      expect(await valueOf(`lockstep_step_duration_seconds_count${selector}`)).toBe(STEPS);
      const { stepSeconds } = report.byWorker.find((one) => one.worker === worker) ?? { stepSeconds: { compute: 0 } };
      const sum = (await valueOf(`lockstep_step_duration_seconds_sum${selector}`)) ?? 0;
      expect(sum / (stepSeconds.compute * STEPS)).toBeCloseTo(1, 6);
    }
    expect(await valueOf('lockstep_digest_checks_total{run="$run"}')).toBe(STEPS / 100);
    expect(await valueOf('sum(lockstep_allreduce_bytes_total{run="$run"})')).toBe(
      report.traffic.reduce((sum, { bytes }) => sum + bytes, 0),
    );
  });

  it('is, at every scrape, the loss of the step that it shows, exactly as metrics.jsonl has it', async () => {
    const lines = readFileSync(join(directory, 'metrics.jsonl'), 'utf8').trim().split('\n');
    const lossAt = new Map(
      lines.map((line) => JSON.parse(line) as { step: number; loss: number }).map((l) => [l.step, l.loss]),
    );
    const steps = await prometheus.query(`lockstep_step{run="${RUN}"}[5m]`);
    const losses = new Map(
      (await prometheus.query(`lockstep_loss{run="${RUN}"}[5m]`)).map(({ at, value }) => [at, value]),
    );
    const shown = steps.filter(({ value }) => value > 0);
    expect(new Set(shown.map(({ value }) => value)).size).toBeGreaterThan(5);
    expect(shown.filter(({ at, value }) => losses.get(at) !== lossAt.get(value))).toEqual([]);
  });

  it('agrees with what a worker counted of itself', async () => {
    const own = await prometheus.query(
      `lockstep_worker_phase_seconds_total{run="${RUN}", phase="compute"}`,
      whileTraining,
    );
    const steps = await prometheus.query(`lockstep_worker_steps_total{run="${RUN}"}`, whileTraining);
    expect(own.length).toBe(2);
    for (const { labels, value } of own) {
      const { stepSeconds } = report.byWorker.find(({ worker }) => worker === labels['worker']) ?? {
        stepSeconds: null,
      };
      const count = steps.find((one) => one.labels['worker'] === labels['worker'])?.value ?? 0;
      expect(labels['host']).toBe(report.byWorker[0]?.host);
      // A mean over most of the run, and over all of it.
      expect(value / count / (stepSeconds?.compute ?? 0)).toBeGreaterThan(0.5);
      expect(value / count / (stepSeconds?.compute ?? 0)).toBeLessThan(2);
    }
  });
});
