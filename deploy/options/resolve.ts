// From the flags and the job to the run: the numbers that decide its bits and its length. Pure.

import type { JobDefinition } from '../../jobs/contract.ts';
import { stepsPerEpoch } from '../../protocol/batch-plan.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { gradientCompressionSchema, type JobReference, type RunConfig } from '../../protocol/run-config.ts';
import { DEFAULT_MICROBATCHES, DEFAULT_SEED, type TrainFlags } from './flags.ts';

/** What the run is besides flags and job. */
export interface RunPlace {
  /** The run's name: the last part of its directory. */
  readonly run: string;
  readonly reference: JobReference;
  /** Samples that the data set has. */
  readonly trainSize: number;
  readonly testSize: number;
  /** What `--engine` came to on this machine. */
  readonly engine: string;
}

/** Engines that trace the model into a graph. */
const GRAPH_ENGINES = ['tensorflow', 'tensorflow-gpu'];

/** Throws LockstepError E_NOT_SUPPORTED where the engine has not got the mode or the precision. */
function engineOf(flags: TrainFlags, engine: string): Pick<RunConfig, 'engine' | 'engineMode' | 'precision'> {
  const hasGraph = GRAPH_ENGINES.includes(engine);
  const engineMode = flags.engineMode === 'eager' || !hasGraph ? 'eager' : 'graph';
  if (flags.engineMode === 'graph' && !hasGraph) {
    throw new LockstepError(
      'E_NOT_SUPPORTED',
      `--engine-mode graph: the engine ${engine} runs operation by operation only`,
      {
        remedy: `Leave it out, or use --engine ${GRAPH_ENGINES.join(' or ')}.`,
      },
    );
  }
  if (flags.precision === 'mixed_bfloat16' && engineMode !== 'graph') {
    const which = hasGraph ? '--engine-mode eager' : `the engine ${engine}`;
    throw new LockstepError('E_NOT_SUPPORTED', `--precision mixed_bfloat16: ${which} has float32 only`, {
      remedy: `Use --precision float32, or --engine ${GRAPH_ENGINES.join(' or ')} without --engine-mode eager.`,
    });
  }
  return { engine, engineMode, precision: flags.precision === 'mixed_bfloat16' ? 'mixed_bfloat16' : 'float32' };
}

/** How a global batch is cut. Throws LockstepError E_BATCH_SIZE when the pieces would not be equal. */
export function resolveBatch(
  flags: TrainFlags,
  job: JobDefinition,
): { readonly globalBatch: number; readonly microbatches: number } {
  const globalBatch = flags.batchSize ?? job.batchSize;
  const microbatches = flags.microbatches ?? job.microbatches ?? DEFAULT_MICROBATCHES;
  if (globalBatch % microbatches !== 0) throw unevenBatch(flags, globalBatch, microbatches);
  return { globalBatch, microbatches };
}

/** Makes the run's configuration. Throws LockstepError E_BATCH_SIZE or E_USAGE, naming the flag and its value. */
export function resolveRun(flags: TrainFlags, job: JobDefinition, place: RunPlace): RunConfig {
  const { globalBatch, microbatches } = resolveBatch(flags, job);
  const trainSamples = atMost(
    '--train-samples',
    flags.trainSamples,
    place.trainSize,
    `${job.data.name} has`,
    'training',
  );
  const testSamples = atMost('--test-samples', flags.testSamples, place.testSize, `${job.data.name} has`, 'test');
  const seed = flags.seed ?? DEFAULT_SEED;
  const epochs = flags.epochs ?? job.epochs;
  const whole = epochs * stepsPerEpoch({ samples: trainSamples, globalBatch, microbatches, seed });
  return {
    run: place.run,
    job: place.reference,
    jobName: job.name,
    seed,
    globalBatch,
    microbatches,
    epochs,
    steps: Math.min(whole, flags.maxSteps ?? whole),
    learningRate: flags.learningRate ?? job.optimizer.learningRate,
    augment: job.augment !== undefined && (flags.augment ?? true),
    trainSamples,
    testSamples,
    ...engineOf(flags, place.engine),
    transport: flags.transport === 'nats' ? 'nats' : 'ws',
    bucketBytes: flags.bucketSize === undefined ? null : flags.bucketSize * 1024,
    dataThreads: flags.dataThreads ?? null,
    gradientCompression: gradientCompressionSchema.parse(flags.gradientCompression ?? 'none'),
    checkpointEverySteps: flags.checkpointEvery ?? 0,
    digestEverySteps: flags.digestEvery,
    auditRate: auditRateOf(flags),
  };
}

/** Throws LockstepError E_USAGE where audits would only find that engines differ. */
function auditRateOf({ audit, allowMixedEngines }: TrainFlags): number {
  if (audit === 0 || !allowMixedEngines) return audit;
  throw new LockstepError('E_USAGE', `--audit ${audit} compares bits, which --allow-mixed-engines lets differ`, {
    remedy: 'Leave one of them out.',
  });
}

function unevenBatch(flags: TrainFlags, globalBatch: number, microbatches: number): LockstepError {
  const below = Math.floor(globalBatch / microbatches) * microbatches;
  const near = [below, below + microbatches].filter((n) => n > 0).join(' or ');
  const batch = flags.batchSize === undefined ? `the job's batch size ${globalBatch}` : `--batch-size ${globalBatch}`;
  const pieces = flags.microbatches === undefined ? `${microbatches} microbatches` : `--microbatches ${microbatches}`;
  return new LockstepError('E_BATCH_SIZE', `${batch} cannot be cut into equal parts by ${pieces}`, {
    remedy: `Use --batch-size ${near}, or other --microbatches.`,
  });
}

function atMost(flag: string, wish: number | undefined, size: number, has: string, what: string): number {
  if (wish !== undefined && wish > size) {
    throw new LockstepError('E_USAGE', `${flag} ${wish}: ${has} ${size} ${what} samples`, {
      remedy: `Use at most ${size}, or leave it out to use them all.`,
    });
  }
  return wish ?? size;
}
