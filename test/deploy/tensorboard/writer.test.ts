// Files as TensorBoard finds them, read back by a reader written out here after the format's description.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { openTensorBoard } from '../../../deploy/tensorboard/writer.ts';
import type { RunEvent } from '../../../protocol/run-event.ts';

/** Fields of a message by number: numbers as they stand, nested ones as bytes. */
function fieldsOf(message: Buffer): [number, number | Buffer][] {
  const fields: [number, number | Buffer][] = [];
  let at = 0;
  const varint = (): number => {
    let [value, factor] = [0, 1];
    for (;;) {
      const byte = message.readUInt8(at++);
      value += (byte & 0x7f) * factor;
      factor *= 0x80;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    const [field, wire] = [tag >> 3, tag & 7];
    if (wire === 0) fields.push([field, varint()]);
    else if (wire === 1) fields.push([field, message.readDoubleLE((at += 8) - 8)]);
    else if (wire === 5) fields.push([field, message.readFloatLE((at += 4) - 4)]);
    else {
      const length = varint();
      fields.push([field, message.subarray(at, (at += length))]);
    }
  }
  return fields;
}

/** `version`, `start STEP` and `TAG STEP VALUE` of each file of a run, file by file. */
function readBack(directory: string): string[] {
  return readdirSync(directory)
    .toSorted()
    .flatMap((name) => {
      const bytes = readFileSync(join(directory, name));
      const found: string[] = [];
      for (let at = 0; at < bytes.length;) {
        const length = Number(bytes.readBigUInt64LE(at));
        const fields = new Map(fieldsOf(bytes.subarray(at + 12, at + 12 + length)));
        const step = Number(fields.get(2) ?? 0);
        if (fields.has(3)) found.push('version');
        if (fields.has(7)) found.push(`start ${step}`);
        const summary = fields.get(5);
        for (const [, value] of Buffer.isBuffer(summary) ? fieldsOf(summary) : []) {
          const [[, tag], [, number]] = fieldsOf(value as Buffer) as [[number, Buffer], [number, number]];
          found.push(`${tag.toString()} ${step} ${Number(number.toPrecision(6))}`);
        }
        at += length + 16;
      }
      return found;
    });
}

const step = (n: number, loss: number): RunEvent => ({
  kind: 'step',
  step: n,
  generation: 1,
  loss,
  accuracy: 0.5,
  gradientNorm: Number.NaN,
  samples: 64,
  seconds: 0.25,
  phases: { data: 0, compute: 0, allreduce: 0, apply: 0, wait: 0 },
});

function scratch(): string {
  const path = mkdtempSync(join(tmpdir(), 'lockstep-board-'));
  onTestFinished(() => rmSync(path, { recursive: true }));
  return path;
}

it('writes each step, and the epoch’s test by its name and at its step; a run that goes on voids what came after', async () => {
  const directory = scratch();
  const warn = (message: string): never => {
    throw new Error(message);
  };
  let seconds = 1764188400;
  const options = { directory, learningRate: 0.001, now: () => seconds, warn };
  const first = await openTensorBoard({ ...options, resumedFromStep: null });
  first.event(step(1, 2.25));
  first.event(step(2, 2));
  first.event({
    kind: 'epoch',
    epochs: 2,
    report: { epoch: 1, loss: 2.125, testLoss: 1.75, testAccuracy: 0.375, seconds: 1, imagesPerSecond: 256 },
  });
  await first.close();
  seconds += 60;
  const second = await openTensorBoard({ ...options, resumedFromStep: 1 });
  second.event(step(2, 2));
  second.event({
    kind: 'epoch',
    epochs: 2,
    report: { epoch: 2, loss: 2, testLoss: null, testAccuracy: null, seconds: 1, imagesPerSecond: 256 },
  });
  await second.close();
  const ofStep = (n: number, loss: number): string[] => [
    `loss ${n} ${loss}`,
    `accuracy ${n} 0.5`,
    `gradient_norm ${n} NaN`,
    `learning_rate ${n} 0.001`,
    `samples_per_second ${n} 256`,
  ];
  expect(readBack(join(directory, 'train'))).toEqual([
    'version',
    ...ofStep(1, 2.25),
    ...ofStep(2, 2),
    'epoch_loss 1 2.125',
    'epoch_samples_per_second 1 256',
    'version',
    'start 2',
    ...ofStep(2, 2),
    'epoch_loss 2 2',
    'epoch_samples_per_second 2 256',
  ]);
  expect(readBack(join(directory, 'test'))).toEqual([
    'version',
    'epoch_loss 1 1.75',
    'epoch_accuracy 1 0.375',
    'loss 2 1.75',
    'accuracy 2 0.375',
    'version',
    'start 2',
  ]);
});

it('refuses a directory that is a file', async () => {
  const directory = join(scratch(), 'file');
  writeFileSync(directory, '');
  const opening = openTensorBoard({ directory, learningRate: 1, resumedFromStep: null, now: () => 0, warn: () => {} });
  await expect(opening).rejects.toMatchObject({
    code: 'E_USAGE',
    message: expect.stringContaining(directory) as string,
  });
});
