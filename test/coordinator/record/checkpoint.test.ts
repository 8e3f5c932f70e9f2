import { createHash } from 'node:crypto';
import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  latestCheckpoint,
  latestCheckpointBefore,
  readCheckpoint,
  scoreOf,
  writeCheckpoint,
} from '../../../coordinator/record/checkpoint.ts';
import { pruneCheckpoints } from '../../../coordinator/record/prune.ts';
import { NO_PROGRESS, type ProgressRecord } from '../../../coordinator/core/progress.ts';
import type { RunConfig } from '../../../protocol/run-config.ts';
import { CONFIG } from '../config.ts';
import { temporaryDirectory } from './temporary.ts';

/** 0x3f800000 and 0xc0000000, little-endian: what [1, -2] is on disk. */
const ONE_MINUS_TWO = Buffer.from('0000803f000000c0', 'hex');
/** SHA-256 of those eight bytes, by Python's hashlib. */
const DIGEST = 'ee4ac73c2bd27756ab82780f27c73a7bc4d3f0bb6acb37e008bc27eccd7e588b';

const LAYOUT = [{ name: 'dense/kernel', shape: [2, 1], offset: 0, length: 2, trainable: true }];
const PROGRESS: ProgressRecord = {
  ...NO_PROGRESS,
  epochLossSum: 0.1 + 0.2,
  lastLoss: 2 ** -1074,
  byEpoch: [{ epoch: 1, loss: 1.25, testLoss: null, testAccuracy: 0.5, seconds: 3, imagesPerSecond: 4 }],
};

function write(
  runDirectory: string,
  step: number,
  change: { weights?: Float32Array; digest?: string; progress?: ProgressRecord; residuals?: number } = {},
) {
  const { residuals = 0 } = change;
  return writeCheckpoint(runDirectory, {
    config: residuals === 0 ? CONFIG : { ...CONFIG, gradientCompression: 'fp16' },
    state: {
      step,
      digest: change.digest ?? DIGEST,
      vectors: [
        { name: 'weights', data: change.weights ?? new Float32Array([1, -2]) },
        { name: 'slot:m', data: new Float32Array([0.5, 3e-45]) },
        { name: 'slot:v', data: new Float32Array(0) },
        ...Array.from({ length: residuals }, (_, m) => ({ name: `residual:${m}`, data: Float32Array.of(m, -0) })),
      ],
    },
    progress: change.progress ?? PROGRESS,
    layout: LAYOUT,
    topology: '{"class_name":"Sequential"}',
  });
}

const at = (runDirectory: string, ...rest: string[]): string => join(runDirectory, 'checkpoints', ...rest);
const names = (runDirectory: string): string[] => readdirSync(at(runDirectory)).toSorted();

describe('a checkpoint', () => {
  it('reads back bit for bit: weights, slots, progress, configuration, layout, topology', async () => {
    const run = temporaryDirectory();
    expect(await write(run, 3)).toEqual({ ok: true, directory: at(run, 'step-3') });
    expect(await readCheckpoint(at(run, 'step-3'))).toEqual({
      step: 3,
      digest: DIGEST,
      config: CONFIG,
      layout: LAYOUT,
      progress: PROGRESS,
      vectors: [
        { name: 'weights', data: new Float32Array([1, -2]) },
        { name: 'slot:m', data: new Float32Array([0.5, 3e-45]) },
        { name: 'slot:v', data: new Float32Array(0) },
      ],
      topology: '{"class_name":"Sequential"}',
    });
  });

  it('of compressed gradients has the residual of every microbatch', async () => {
    const run = temporaryDirectory();
    await write(run, 3, { residuals: 4 });
    const { config, vectors } = await readCheckpoint(at(run, 'step-3'));
    expect(config.gradientCompression).toBe('fp16');
    expect(vectors.slice(3)).toEqual(
      [0, 1, 2, 3].map((m) => ({ name: `residual:${m}`, data: Float32Array.of(m, -0) })),
    );
    expect(readFileSync(at(run, 'step-3', 'residual-2.bin'))).toEqual(Buffer.from('0000004000000080', 'hex'));
    await write(run, 4, { residuals: 3 });
    await expect(readCheckpoint(at(run, 'step-4'))).rejects.toMatchObject({
      code: 'E_CHECKPOINT_CORRUPT',
      message: expect.stringContaining('residual:3 of a run in fp16 is missing') as string,
    });
  });

  it('of a version that knew no compression is one of gradients in float32', async () => {
    const run = temporaryDirectory();
    await write(run, 3);
    const manifest = JSON.parse(readFileSync(at(run, 'step-3', 'checkpoint.json'), 'utf8')) as { config: object };
    const { gradientCompression: _, ...config } = manifest.config as RunConfig;
    writeFileSync(at(run, 'step-3', 'checkpoint.json'), JSON.stringify({ ...manifest, config }));
    expect((await readCheckpoint(at(run, 'step-3'))).config).toEqual(CONFIG);
  });

  it('is a directory of raw little-endian floats and a JSON file that says their hashes; nothing else is left', async () => {
    const run = temporaryDirectory();
    await write(run, 3);
    expect(names(run)).toEqual(['step-3']);
    expect(readdirSync(at(run, 'step-3')).toSorted()).toEqual([
      'checkpoint.json',
      'slot-1.bin',
      'slot-2.bin',
      'topology.json',
      'weights.bin',
    ]);
    expect(readFileSync(at(run, 'step-3', 'weights.bin'))).toEqual(ONE_MINUS_TWO);
    expect(JSON.parse(readFileSync(at(run, 'step-3', 'checkpoint.json'), 'utf8'))).toMatchObject({
      schema: 1,
      step: 3,
      digest: DIGEST,
      vectors: [{ name: 'weights', file: 'weights.bin', bytes: 8, sha256: DIGEST }, { bytes: 8 }, { bytes: 0 }],
    });
  });

  it('longer than a piece of I/O is whole and in order', async () => {
    const run = temporaryDirectory();
    const weights = Float32Array.from({ length: 3 * 2 ** 20 + 5 }, (_, i) => i);
    const digest = createHash('sha256').update(new Uint8Array(weights.buffer)).digest('hex');
    expect((await write(run, 1, { weights, digest })).ok).toBe(true);
    const { vectors } = await readCheckpoint(at(run, 'step-1'));
    // Bytes, not values: a deep comparison of three million numbers takes half a minute.
    expect(Buffer.compare(new Uint8Array(vectors[0]!.data.buffer), new Uint8Array(weights.buffer))).toBe(0);
  });

  it('a diverged run’s NaN is kept', async () => {
    const run = temporaryDirectory();
    await write(run, 1, { progress: { ...PROGRESS, epochLossSum: Number.NaN } });
    expect((await readCheckpoint(at(run, 'step-1'))).progress.epochLossSum).toBeNaN();
  });

  it('of weights that do not have the digest given is not written', async () => {
    const run = temporaryDirectory();
    const result = await write(run, 1, { digest: 'f'.repeat(64) });
    expect(result).toMatchObject({ ok: false, because: expect.stringContaining(DIGEST) });
    expect(names(run)).toEqual([]);
  });

  it('of a step that is there already takes its place', async () => {
    const run = temporaryDirectory();
    await write(run, 1);
    await write(run, 1, { progress: { ...PROGRESS, lastLoss: 7 } });
    expect(names(run)).toEqual(['step-1']);
    expect((await readCheckpoint(at(run, 'step-1'))).progress.lastLoss).toBe(7);
  });

  it('a disk that fails is an answer, not an exception', async () => {
    const run = temporaryDirectory();
    writeFileSync(at(run), 'a file where the directory should be');
    expect(await write(run, 1)).toMatchObject({ ok: false, because: expect.stringMatching(/ENOTDIR|EEXIST/) });
  });
});

describe('a damaged checkpoint', () => {
  const flip = (path: string): void => {
    const bytes = readFileSync(path);
    bytes[1] = (bytes[1] ?? 0) ^ 1;
    writeFileSync(path, bytes);
  };
  const editJson = (directory: string, edit: (text: string) => string): void => {
    const path = join(directory, 'checkpoint.json');
    writeFileSync(path, edit(readFileSync(path, 'utf8')));
  };

  it.each<[string, string, (directory: string) => void]>([
    ['weights.bin', 'a bit of the weights is flipped', (d) => flip(join(d, 'weights.bin'))],
    ['slot-1.bin', 'a bit of a slot is flipped', (d) => flip(join(d, 'slot-1.bin'))],
    ['weights.bin', 'the weights are cut short', (d) => truncateSync(join(d, 'weights.bin'), 4)],
    ['slot-2.bin', 'a slot is longer', (d) => appendFileSync(join(d, 'slot-2.bin'), 'abcd')],
    ['weights.bin', 'the weights are gone', (d) => rmSync(join(d, 'weights.bin'))],
    ['topology.json', 'the topology is altered', (d) => writeFileSync(join(d, 'topology.json'), '{}')],
    ['checkpoint.json', 'its JSON is cut short', (d) => truncateSync(join(d, 'checkpoint.json'), 40)],
    ['checkpoint.json', 'its JSON is gone', (d) => rmSync(join(d, 'checkpoint.json'))],
    [
      'checkpoint.json',
      'a file name leads elsewhere',
      (d) => editJson(d, (text) => text.replace('"slot-1.bin"', '"../../x.bin"')),
    ],
    [
      'checkpoint.json',
      'its digest is another',
      (d) => editJson(d, (text) => text.replace(`"digest":"${DIGEST}"`, `"digest":"${'a'.repeat(64)}"`)),
    ],
  ])('is refused naming %s when %s', async (file, _, damage) => {
    const run = temporaryDirectory();
    await write(run, 3);
    damage(at(run, 'step-3'));
    await expect(readCheckpoint(at(run, 'step-3'))).rejects.toMatchObject({
      code: 'E_CHECKPOINT_CORRUPT',
      message: expect.stringContaining(file),
    });
  });

  it('of another schema is refused as that, not as damaged: neither passed over for an older one nor set aside', async () => {
    const run = temporaryDirectory();
    for (const step of [9, 10]) await write(run, step);
    editJson(at(run, 'step-10'), (text) => text.replace('"schema":1', '"schema":2'));
    const refusal = {
      code: 'E_RECORD_VERSION',
      message: `the checkpoint ${at(run, 'step-10')} has schema 2, and this Lockstep reads schema 1`,
      remedy: expect.stringContaining('docs/compatibility.md') as string,
    };
    await expect(readCheckpoint(at(run, 'step-10'))).rejects.toMatchObject(refusal);
    await expect(latestCheckpoint(run, { setAside: true })).rejects.toMatchObject(refusal);
    await expect(latestCheckpointBefore(run, 11)).rejects.toMatchObject(refusal);
    expect(names(run)).toEqual(['step-10', 'step-9']);
  });

  it('is passed over for the one before, and named; it stays where it is', async () => {
    const run = temporaryDirectory();
    for (const step of [9, 10, 11]) await write(run, step);
    flip(at(run, 'step-11', 'weights.bin'));
    const { checkpoint, directory, damaged } = await latestCheckpoint(run);
    expect(checkpoint.step).toBe(10);
    expect(directory).toBe(at(run, 'step-10'));
    expect(damaged).toEqual([expect.stringContaining('step-11')]);
    expect(names(run)).toEqual(['step-10', 'step-11', 'step-9']);
  });

  it('set aside it keeps all it had and counts no more when old ones are removed', async () => {
    const run = temporaryDirectory();
    for (const step of [9, 10, 11]) await write(run, step);
    flip(at(run, 'step-11', 'weights.bin'));
    expect((await latestCheckpoint(run, { setAside: true })).checkpoint.step).toBe(10);
    await pruneCheckpoints(run, 2);
    expect(names(run)).toEqual(['step-10', 'step-11.damaged', 'step-9']);
    expect(readdirSync(at(run, 'step-11.damaged'))).toHaveLength(5);
  });

  it('a checkpoint under another one’s name is damage too', async () => {
    const run = temporaryDirectory();
    await write(run, 3);
    mkdirSync(at(run, 'step-5'));
    for (const name of readdirSync(at(run, 'step-3'))) copyFileSync(at(run, 'step-3', name), at(run, 'step-5', name));
    expect((await latestCheckpoint(run)).checkpoint.step).toBe(3);
    expect((await latestCheckpoint(run)).directory).toBe(at(run, 'step-3'));
  });

  it('when none is whole, or there is none, it is E_NO_CHECKPOINT with the reasons', async () => {
    const run = temporaryDirectory();
    await expect(latestCheckpoint(run)).rejects.toMatchObject({ code: 'E_NO_CHECKPOINT' });
    await write(run, 3);
    flip(at(run, 'step-3', 'weights.bin'));
    await expect(latestCheckpoint(run)).rejects.toMatchObject({
      code: 'E_NO_CHECKPOINT',
      message: expect.stringContaining('weights.bin'),
    });
  });
});

describe('old checkpoints', () => {
  it('all but the newest N are removed, by number and not by name', async () => {
    const run = temporaryDirectory();
    for (const step of [8, 9, 10, 100]) await write(run, step);
    await pruneCheckpoints(run, 2);
    expect(names(run)).toEqual(['step-10', 'step-100']);
  });

  it('the best is kept besides them, as its own evaluation has it; one in mid-epoch has only that of the epoch before', async () => {
    const run = temporaryDirectory();
    // Three steps an epoch, six in all.
    const accuracy = new Map([
      [3, 0.75],
      [4, 0.75],
      [6, 0.5],
      [9, 0.5],
      [12, 0.25],
    ]);
    for (const [step, testAccuracy] of accuracy) await write(run, step, { progress: { ...PROGRESS, testAccuracy } });
    expect(await scoreOf(run, 3)).toEqual({ testAccuracy: 0.75, testLoss: null });
    expect(await scoreOf(run, 4)).toBeNull();
    expect(await scoreOf(run, 5)).toBeNull();
    await pruneCheckpoints(run, 1);
    expect(names(run)).toEqual(['step-12', 'step-3']);
  });

  it('the newest one is never removed', async () => {
    const run = temporaryDirectory();
    await write(run, 1);
    await pruneCheckpoints(run, 0);
    expect(names(run)).toEqual(['step-1']);
  });
});
