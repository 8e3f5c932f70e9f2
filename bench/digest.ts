// What comparing weights costs: the SHA-256 digest of the weights beside a step of the tutorial's CNN (its own 0.49 MB), and for larger models
// beside the least that a step of theirs does, Adam's update of as many weights in memory. One thread, as in a worker.

import { fileURLToPath } from 'node:url';
import { adam } from '../jobs/optimizers.ts';
import { DEFAULT_DIGEST_EVERY_STEPS } from '../protocol/run-config.ts';
import { digestOf } from '../worker/engine/digest.ts';
import { engineEnvironment } from '../worker/engine/environment.ts';
import { interleaved, median, runsPerSecond, startMeasuring, TYPESCRIPT } from './measure.ts';
import type { BenchOptions } from './run.ts';
import type { Row } from './table.ts';

const ENGINE_PROCESS = fileURLToPath(new URL('engine-process.ts', import.meta.url));
/** The tutorial's parameters, and models of 25 and 100 MB. */
const TUTORIAL = 122_570;
const SIZES = [TUTORIAL, 6_250_000, 25_000_000] as const;
const BATCH = 64;
const WINDOW_SECONDS = 0.5;

const megabytes = (floats: number): string => `${Number(((4 * floats) / 1e6).toFixed(2))} MB`;

export async function digest({ repeats = 5 }: BenchOptions): Promise<Row[]> {
  const engine = await startMeasuring([process.execPath, ...TYPESCRIPT, ENGINE_PROCESS, 'graph'], engineEnvironment(1));
  if ('missing' in engine) throw new Error(`the engine can't be measured: ${engine.missing}`);
  const found = new Map<string, number[]>();
  const runs: Record<string, () => Promise<number>> = {
    step: async () =>
      (1000 * BATCH) /
      (await engine.rate({ work: 'step', batch: BATCH, microbatch: BATCH / 4, seconds: WINDOW_SECONDS })),
  };
  const optimizer = adam();
  for (const floats of SIZES) {
    const vector = (): Float32Array => Float32Array.from({ length: floats }, (_, i) => Math.fround(Math.sin(i)));
    const [weights, gradient, m, v] = [vector(), vector(), vector(), new Float32Array(floats)];
    let steps = 0;
    runs[`digest ${floats}`] = async () => 1000 / (await runsPerSecond(() => void digestOf(weights), WINDOW_SECONDS));
    runs[`adam ${floats}`] = async () =>
      1000 / (await runsPerSecond(() => optimizer.update(weights, gradient, [m, v], ++steps, 1e-5), WINDOW_SECONDS));
  }
  try {
    for (const name of interleaved(Object.keys(runs), repeats)) {
      const ms = (await runs[name]?.()) ?? Number.NaN;
      process.stderr.write(`${name}: ${ms.toFixed(3)} ms\n`);
      found.set(name, [...(found.get(name) ?? []), ms]);
    }
  } finally {
    engine.stop();
  }
  const of = (name: string): number => median(found.get(name) ?? []);
  const row = (floats: number, peer: string, peerName: string): Row[] => {
    const [ours, other] = [of(`digest ${floats}`), of(peer)];
    const each = ours / DEFAULT_DIGEST_EVERY_STEPS;
    return [
      { case: `digest of ${megabytes(floats)}`, ours, peer: other, peerName, ratio: other / ours, unit: 'ms', repeats },
      {
        case: `digest of ${megabytes(floats)}, a step where it is made each ${DEFAULT_DIGEST_EVERY_STEPS} steps`,
        ours: each,
        peer: other,
        peerName,
        ratio: other / each,
        unit: 'ms',
        repeats,
      },
    ];
  };
  return SIZES.flatMap((floats) => [
    ...(floats === TUTORIAL
      ? row(floats, 'step', `a step of the tutorial's CNN, batch ${BATCH} in 4 microbatches, one core`)
      : []),
    ...row(floats, `adam ${floats}`, `Adam's update of as many weights`),
  ]);
}
