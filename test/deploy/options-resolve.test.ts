// From flags, job and data set to the run's numbers.

import { describe, expect, test } from 'vitest';
import { parseCommand, resolveRun } from '../../deploy/options.ts';
import type { JobDefinition } from '../../jobs/contract.ts';
import { LockstepError } from '../../protocol/errors.ts';
import { runConfigSchema, type RunConfig } from '../../protocol/run-config.ts';
import job from './jobs/small.ts';

const REFERENCE = { kind: 'built-in', name: 'small', sha256: 'a'.repeat(64) } as const;

function resolve(line: string, definition: JobDefinition = job, engine = 'tensorflow'): RunConfig {
  const command = parseCommand(['train', 'small', ...line.split(' ').filter((word) => word !== '')], {}, '');
  if (command.kind !== 'train') throw new Error(command.kind);
  return resolveRun(command.options.flags, definition, {
    run: 'r1',
    reference: REFERENCE,
    trainSize: 1000,
    testSize: 200,
    engine,
  });
}

function refusal(line: string, definition: JobDefinition = job, engine = 'tensorflow'): string {
  try {
    resolve(line, definition, engine);
  } catch (error) {
    if (error instanceof LockstepError) return `${error.code} ${error.message} -> ${error.remedy}`;
    throw error;
  }
  return 'no refusal';
}

describe('resolveRun', () => {
  test("without flags, the job's numbers and the whole data set", () => {
    const config = resolve('');
    // 1000 samples in batches of 64: 15 whole ones and one of 40.
    expect(config).toEqual({
      run: 'r1',
      job: REFERENCE,
      jobName: 'small',
      seed: 1,
      globalBatch: 64,
      microbatches: 4,
      epochs: 3,
      steps: 48,
      learningRate: 0.5,
      augment: false,
      trainSamples: 1000,
      testSamples: 200,
      engine: 'tensorflow',
      engineMode: 'graph',
      precision: 'float32',
      transport: 'ws',
      bucketBytes: null,
      dataThreads: null,
      gradientCompression: 'none',
      checkpointEverySteps: 0,
      digestEverySteps: 100,
      auditRate: 0,
    });
    expect(runConfigSchema.parse(config)).toEqual(config);
  });

  test('an engine that traces runs the graph, unless it is told not to; the others run operation by operation', () => {
    const modeOf = (line: string, engine: string): string => resolve(line, job, engine).engineMode;
    expect(modeOf('', 'tensorflow-gpu')).toBe('graph');
    expect(modeOf('--engine-mode graph', 'tensorflow')).toBe('graph');
    expect(modeOf('--engine-mode eager', 'tensorflow')).toBe('eager');
    expect(modeOf('', 'wasm')).toBe('eager');
    expect(modeOf('', 'webgpu')).toBe('eager');
    expect(refusal('--engine-mode graph', job, 'wasm')).toBe(
      'E_NOT_SUPPORTED --engine-mode graph: the engine wasm runs operation by operation only -> ' +
        'Leave it out, or use --engine tensorflow or tensorflow-gpu.',
    );
  });

  test('audits compare bits, so they need one engine', () => {
    expect(resolve('--audit 0.01').auditRate).toBe(0.01);
    expect(refusal('--audit 0.01 --allow-mixed-engines')).toBe(
      'E_USAGE --audit 0.01 compares bits, which --allow-mixed-engines lets differ -> Leave one of them out.',
    );
    for (const value of ['1.01', '2', '-0', '1e-3', '0.', 'half']) {
      expect(refusal(`--audit ${value}`)).toContain('it must be a number from 0 to 1');
    }
    expect([0, 1, 0.5].map((rate) => resolve(`--audit ${rate}`).auditRate)).toEqual([0, 1, 0.5]);
  });

  test('mixed precision needs a graph', () => {
    expect(resolve('--precision mixed_bfloat16').precision).toBe('mixed_bfloat16');
    expect(refusal('--precision mixed_bfloat16', job, 'webgpu')).toMatch(
      /^E_NOT_SUPPORTED --precision mixed_bfloat16: the engine webgpu has float32 only -> /,
    );
    expect(refusal('--precision mixed_bfloat16 --engine-mode eager')).toMatch(
      /^E_NOT_SUPPORTED --precision mixed_bfloat16: --engine-mode eager has float32 only -> /,
    );
  });

  test('gradients are compressed on demand, in a form that is there', () => {
    expect(resolve('--gradient-compression fp16').gradientCompression).toBe('fp16');
    expect(resolve('--gradient-compression none').gradientCompression).toBe('none');
  });

  test('steps are those of the epochs, or --max-steps if fewer', () => {
    expect(resolve('--epochs 2 --train-samples 128').steps).toBe(4);
    expect(resolve('--epochs 2 --train-samples 129').steps).toBe(6);
    expect(resolve('--max-steps 40').steps).toBe(40);
    expect(resolve('--max-steps 1000').steps).toBe(48);
  });

  test('flags win over the job', () => {
    expect(
      resolve(
        '--batch-size 100 --microbatches 2 --learning-rate 0.25 --seed 0 --test-samples 0 --checkpoint-every 7 --digest-every 0',
      ),
    ).toMatchObject({
      globalBatch: 100,
      microbatches: 2,
      learningRate: 0.25,
      seed: 0,
      testSamples: 0,
      checkpointEverySteps: 7,
      digestEverySteps: 0,
      auditRate: 0,
    });
  });

  test('augmentation is on where the job has one, unless it is off', () => {
    const augmented: JobDefinition = { ...job, augment: { name: 'none', apply: () => {} } };
    expect(resolve('', augmented).augment).toBe(true);
    expect(resolve('--augment off', augmented).augment).toBe(false);
    expect(resolve('--augment on').augment).toBe(false);
  });

  test('a batch that the microbatches do not divide is refused, and the nearest that fit are named', () => {
    expect(refusal('--batch-size 30')).toBe(
      'E_BATCH_SIZE --batch-size 30 cannot be cut into equal parts by 4 microbatches -> Use --batch-size 28 or 32, or other --microbatches.',
    );
    expect(refusal('--batch-size 3 --microbatches 8')).toBe(
      'E_BATCH_SIZE --batch-size 3 cannot be cut into equal parts by --microbatches 8 -> Use --batch-size 8, or other --microbatches.',
    );
    expect(refusal('--microbatches 8', { ...job, batchSize: 20 })).toBe(
      "E_BATCH_SIZE the job's batch size 20 cannot be cut into equal parts by --microbatches 8 -> Use --batch-size 16 or 24, or other --microbatches.",
    );
  });

  test('more samples than there are, are refused', () => {
    expect(refusal('--train-samples 1001')).toBe(
      'E_USAGE --train-samples 1001: numbers has 1000 training samples -> Use at most 1000, or leave it out to use them all.',
    );
    expect(refusal('--test-samples 201')).toBe(
      'E_USAGE --test-samples 201: numbers has 200 test samples -> Use at most 200, or leave it out to use them all.',
    );
  });
});
