// The cost model (cost-model.ts) against this machine, and what it says of larger ones. Its constants come from all-reduces of two and
// four ranks up to 25 MB and from jobs that run beside each other unconnected; it is checked on what it has not seen - 100 MB, eight
// ranks, connected jobs - and only then asked about 8 and 64 workers. Milliseconds; efficiency is against one worker by itself, whose
// share of the batch stays the same (weak scaling).
//
// Rows: `ours` is measured (for predictions: the model's figure), `peer` the model's (for predictions: a published one).

import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { ourProcess } from './allreduce.ts';
import {
  allReduceSeconds,
  expectedMaximum,
  fitCosts,
  stepTime,
  type Costs,
  type Layout,
  type StepTime,
  type Wire,
} from './cost-model.ts';
import { interleaved, median, startMeasuring } from './measure.ts';
import type { BenchOptions } from './run.ts';
import { usualBucketFloats } from '../worker/collective/plan.ts';
import { threeDigits, type Row } from './table.ts';
import { trained } from './throughput.ts';

const WINDOW_SECONDS = 0.25;
const WAYS = ['shm', 'tcp'] as const;
type Way = (typeof WAYS)[number];

/** The tutorial's CNN with loss, correct and the wish to stop. */
const CNN_BYTES = 4 * 122_573;
const MB = 1_000_000;
const SMALL_BUCKET_BYTES = 32 * 1024;
const MIN_BUCKET_BYTES = 512 * 1024;
/** With small buckets, too: what a frame costs by itself is told apart from its bytes only by frames of another size. */
const FITTED: readonly Wanted[] = [
  ...[2, 4].flatMap((ranks) => [40_000, CNN_BYTES, 4 * MB, 25 * MB].map((bytes) => ({ ranks, bytes }))),
  { ranks: 2, bytes: 4 * MB, bucketBytes: SMALL_BUCKET_BYTES },
];
const UNSEEN: readonly Wanted[] = [
  { ranks: 2, bytes: 100 * MB },
  { ranks: 2, bytes: 25 * MB, bucketBytes: SMALL_BUCKET_BYTES },
  { ranks: 4, bytes: 100 * MB },
  { ranks: 8, bytes: CNN_BYTES },
  { ranks: 8, bytes: 4 * MB },
  { ranks: 8, bytes: 25 * MB },
];

interface Wanted {
  readonly ranks: number;
  readonly bytes: number;
  readonly bucketBytes?: number;
}

const layoutOf = (ranks: number, bytes: number, hosts = 1): Layout => ({
  ranks,
  hosts,
  bytes,
  bucketBytes: usualBucketBytes(ranks, bytes),
});
function usualBucketBytes(ranks: number, bytes: number): number {
  return usualBucketFloats(Math.round(bytes / 4), ranks) * 4;
}
const sizeOf = (bytes: number): string => `${Number((bytes / MB).toPrecision(2))} MB`;

interface Measured {
  readonly layout: Layout;
  readonly seconds: number;
}

const isFitted = ({ ranks, bytes, bucketBytes }: Layout): boolean =>
  FITTED.some(
    (one) =>
      one.ranks === ranks && one.bytes === bytes && (one.bucketBytes ?? usualBucketBytes(ranks, bytes)) === bucketBytes,
  );

/** All-reduces over `way`, medians of interleaved windows. */
async function measureExchanges(way: Way, repeats: number): Promise<Measured[]> {
  const wanted = [...FITTED, ...UNSEEN].map((one) => ({ bucketBytes: usualBucketBytes(one.ranks, one.bytes), ...one }));
  const measured: Measured[] = [];
  for (const ranks of new Set(wanted.map((one) => one.ranks))) {
    const system = await startMeasuring(ourProcess(ranks, way), {});
    if ('missing' in system) throw new Error(system.missing);
    const here = wanted.filter((one) => one.ranks === ranks);
    const found = new Map(here.map((one) => [one, [] as number[]]));
    for (const one of interleaved(here, repeats)) {
      const floats = Math.round(one.bytes / 4);
      const ms = await system.rate({
        floats,
        bucketFloats: one.bucketBytes / 4,
        copied: false,
        seconds: WINDOW_SECONDS,
      });
      found.get(one)?.push(ms);
    }
    system.stop();
    for (const [{ bytes, bucketBytes }, ms] of found) {
      measured.push({ layout: { ranks, hosts: 1, bytes, bucketBytes }, seconds: median(ms) / 1000 });
    }
    process.stderr.write(`all-reduce, ${ranks} ranks over ${way}: measured\n`);
  }
  return measured;
}

/** Steps of a run that are left out: its graphs are traced and its memory warms up. */
const WARM_UP_STEPS = 30;
const STEPS = 230;
/** One worker's share in a step of two at batch 64. */
const SHARE = 32;
const MAX_MICROBATCHES = 64;

interface Steps {
  /** Of each step, seconds: of data and computing, of all, and what is neither computing nor exchange. */
  readonly compute: number[];
  readonly whole: number[];
  readonly after: number[];
}

function stepsOf(run: string): Steps {
  const lines = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trim().split('\n').slice(WARM_UP_STEPS);
  const known = lines.map(
    (line) =>
      JSON.parse(line) as { seconds: number; phases: Record<'data' | 'compute' | 'wait' | 'allreduce', number> },
  );
  return {
    compute: known.map(({ phases }) => phases.data + phases.compute),
    whole: known.map(({ seconds }) => seconds),
    after: known.map(({ seconds, phases }) => seconds - phases.data - phases.compute - phases.wait - phases.allreduce),
  };
}

async function steps(workers: number, batch: number, microbatches: number): Promise<Steps> {
  const flags = {
    workers,
    'batch-size': batch,
    microbatches,
    'max-steps': STEPS,
    'train-samples': 12_800,
    epochs: 100,
  };
  const words = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
  return trained([...words, '--augment', 'off'], [], stepsOf);
}

const mean = (values: readonly number[]): number => expectedMaximum(values, 1);

function row(about: string, ours: number, peer: number | null, peerName: string, unit: string, repeats: number): Row {
  return { case: about, ours, peer, peerName, ratio: peer === null ? null : ours / peer, unit, repeats };
}

interface Prediction {
  readonly title: string;
  readonly layout: Layout;
  readonly workersPerHost: number;
  readonly wire: Wire | null;
  readonly compute: readonly number[];
  readonly after: number;
  /** Part of the computing beside which buckets travel; 0 where a gradient comes out in one piece. */
  readonly overlapShare: number;
  readonly published?: { readonly efficiency: number; readonly by: string };
}

function predict(
  prediction: Prediction,
  local: Costs,
  bucketBytes = prediction.layout.bucketBytes,
  compute = prediction.compute,
): StepTime & { readonly allReduce: number } {
  const { after, overlapShare } = prediction;
  const layout = { ...prediction.layout, bucketBytes };
  // A core to each worker.
  const exchange = allReduceSeconds(layout, prediction.workersPerHost, local, prediction.wire);
  const time = stepTime({
    compute,
    workers: layout.ranks,
    workersPerCore: 1,
    after,
    exchange,
    overlap: overlapShare * mean(compute),
    lastPart: overlapShare === 0 ? 1 : Math.min(1, layout.bucketBytes / layout.bytes),
  });
  return { ...time, allReduce: exchange };
}

/** The size of buckets, of powers of two from half a MiB on, with which a step is shortest. */
function bestBucket(prediction: Prediction, local: Costs): number {
  const sizes: number[] = [];
  for (let size = MIN_BUCKET_BYTES; size < 2 * prediction.layout.bytes; size *= 2) sizes.push(size);
  const secondsAt = (size: number): number => predict(prediction, local, size).seconds;
  return sizes.toSorted((a, b) => secondsAt(a) - secondsAt(b))[0] ?? MIN_BUCKET_BYTES;
}

const RESNET_50_BYTES = 102 * MB;
const RESNET_101_BYTES = 178 * MB;
/** Assumed, not measured: a step of a GPU's share; the backward pass is two thirds of it. */
const GPU_STEP_SECONDS = { resnet50: 0.2, resnet101: 0.5 };
const BACKWARD = 2 / 3;
const GBIT = 1e9 / 8;
/** Of a wire, what is left for payload. */
const WIRE_SHARE = 0.94;

function predictions(compute: readonly number[], after: number, tcp: Costs): Prediction[] {
  const wire = (gbit: number, microseconds: number): Wire => ({
    bytesPerSecond: WIRE_SHARE * gbit * GBIT,
    latencySeconds: microseconds / 1e6,
    costs: tcp,
  });
  const own = mean(compute);
  /** With this machine's spread, in proportion. */
  const scaled = (seconds: number): number[] => compute.map((one) => (one * seconds) / own);
  const places = [
    { title: '8 workers, one host, shm', ranks: 8, hosts: 1, wire: null },
    { title: '64 workers, one host, shm', ranks: 64, hosts: 1, wire: null },
    { title: '64 workers, 8 hosts, 10 Gbit/s, 100 us', ranks: 64, hosts: 8, wire: wire(10, 100) },
    { title: '64 workers, 8 hosts, 25 Gbit/s, 50 us', ranks: 64, hosts: 8, wire: wire(25, 50) },
  ];
  const jobs = [
    {
      title: `CNN, 0.49 MB, ${SHARE} images a worker, in one piece`,
      bytes: CNN_BYTES,
      compute,
      after,
      overlapShare: 0,
    },
    ...[
      { how: 'in one piece', overlapShare: 0 },
      { how: 'beside the backward pass', overlapShare: BACKWARD },
    ].map(({ how, overlapShare }) => ({
      title: `ResNet-50, 102 MB, 200 ms a step, ${how}`,
      bytes: RESNET_50_BYTES,
      compute: scaled(GPU_STEP_SECONDS.resnet50),
      after: 0,
      overlapShare,
    })),
  ];
  const all: Prediction[] = jobs.flatMap((job) =>
    places.map((place) => ({
      title: `${job.title}; ${place.title}`,
      layout: layoutOf(place.ranks, job.bytes, place.hosts),
      workersPerHost: place.ranks / place.hosts,
      wire: place.wire,
      compute: job.compute,
      after: job.after,
      overlapShare: job.overlapShare,
    })),
  );
  const plausible: Prediction = {
    title:
      'ResNet-101, 178 MB, 500 ms a step, beside the backward pass, even pace; 128 workers, 32 hosts, 25 Gbit/s, 50 us',
    layout: layoutOf(128, RESNET_101_BYTES, 32),
    workersPerHost: 4,
    wire: wire(25, 50),
    compute: [GPU_STEP_SECONDS.resnet101],
    after: 0,
    overlapShare: BACKWARD,
    published: { efficiency: 0.88, by: 'Horovod, 128 GPUs over TCP, published: plausibility only' },
  };
  return [...all, plausible];
}

export async function model(options: BenchOptions): Promise<Row[]> {
  const { repeats = 3 } = options;
  const cores = availableParallelism();
  const rows: Row[] = [];
  const costs = new Map<Way, Costs>();
  for (const way of WAYS) {
    const measured = await measureExchanges(way, repeats);
    const fitted = fitCosts(measured.filter((one) => isFitted(one.layout)).map((one) => ({ ...one, cores })));
    costs.set(way, fitted);
    process.stdout.write(`${way}: ${costsText(fitted)}\n`);
    for (const { layout, seconds } of measured) {
      const crowded = layout.ranks > cores ? ` on ${cores} cores` : '';
      const foretold = allReduceSeconds(layout, cores, fitted, null);
      const buckets =
        layout.bucketBytes !== SMALL_BUCKET_BYTES ? '' : ` in buckets of ${layout.bucketBytes / 1024} KiB`;
      const about = `all-reduce, ${way}, W=${layout.ranks}${crowded}, ${sizeOf(layout.bytes)}${buckets}`;
      const peer = isFitted(layout) ? 'model, fitted to it' : 'model, unseen';
      rows.push(row(about, 1000 * seconds, 1000 * foretold, peer, 'ms', repeats));
    }
  }
  const [shm, tcp] = WAYS.map((way) => costs.get(way));
  if (shm === undefined || tcp === undefined) throw new Error('every way has its costs');

  // As many jobs as cores, unconnected: what a worker's share takes while the other cores compute, too, and how much that varies.
  const apart = await Promise.all(Array.from({ length: cores }, async () => steps(1, SHARE, 2)));
  const compute = apart.flatMap((job) => job.compute);
  const after = mean(apart.flatMap((job) => job.after));
  const own = mean(compute);
  process.stdout.write(
    `compute: ${(1000 * own).toFixed(2)} ms a step and worker (${SHARE} images), the slowest of 2, 8 and 64 at ` +
      `${[2, 8, 64].map((n) => (expectedMaximum(compute, n) / own).toFixed(2)).join(', ')} of that; apply and the rest ${(1000 * after).toFixed(2)} ms\n`,
  );
  // A batch is cut into a power of two; twice as many workers share the same one.
  const fitting = 2 ** Math.floor(Math.log2(Math.min(cores, MAX_MICROBATCHES / 2)));
  for (const workers of [fitting, 2 * fitting]) {
    const together = await steps(workers, SHARE * fitting, 2 * fitting);
    const foretold = stepTime({
      compute: compute.map((one) => (one * fitting) / workers),
      workers,
      workersPerCore: workers / cores,
      after,
      exchange: allReduceSeconds(layoutOf(workers, CNN_BYTES), cores, shm, null),
      overlap: 0,
      lastPart: 1,
    });
    const crowded = workers > cores ? ` on ${cores} cores` : '';
    const about = `step, cifar10-cnn, W=${workers}${crowded}, ${SHARE * fitting} images`;
    rows.push(row(about, 1000 * mean(together.whole), 1000 * foretold.seconds, 'model, unseen', 'ms', 1));
  }

  for (const prediction of predictions(compute, after, tcp)) {
    const { efficiency, seconds, wait, exchange, allReduce } = predict(prediction, shm);
    const share = (part: number): string => `${(100 * (part / seconds)).toFixed(0)} %`;
    const ms = (time: number): string => `${threeDigits(1000 * time)} ms`;
    const even = predict(prediction, shm, prediction.layout.bucketBytes, [mean(prediction.compute)]).efficiency;
    const best = bestBucket(prediction, shm);
    const otherwise = predict(prediction, shm, best).efficiency;
    const tuned = otherwise < efficiency + 0.01 ? '' : `; ${otherwise.toFixed(2)} with --bucket-size ${best / 1024}`;
    const parts = `waits ${share(wait)}, exchanges ${share(exchange)} of ${ms(seconds)}`;
    const where = `all-reduce ${ms(allReduce)}; ${parts}; at an even pace ${even.toFixed(2)}${tuned}`;
    const { published } = prediction;
    rows.push(
      row(
        `predicted: ${prediction.title}`,
        efficiency,
        published?.efficiency ?? null,
        published === undefined ? where : `${published.by}; ${where}`,
        'of ideal',
        0,
      ),
    );
  }
  return rows;
}

function costsText({ call, frame, byte, farByte, wake }: Costs): string {
  const microseconds = (seconds: number): string => `${(1e6 * seconds).toFixed(1)} us`;
  const perByte = (seconds: number): string => (seconds === 0 ? 'free' : `${(1e-9 / seconds).toFixed(2)} GB/s`);
  return `${microseconds(call)} a call, ${microseconds(frame)} a frame, bytes at ${perByte(byte)} in the cache and ${perByte(byte + farByte)} out of it, ${microseconds(wake)} a peer to wake where ranks outnumber cores`;
}
