// The gradients of the tutorial CNN, bit for bit, against TensorFlow's own GradientTape (bench/peers/tape_oracle.py).

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { contributionOf } from '../../../worker/engine/engine.ts';
import { formulaBatch, formulaWeights, readOracle } from '../../oracles/formula.ts';
import { jobOf, tutorialCnn } from './models.ts';
import { openTensorflow } from './native-library.ts';

const { cases, processor } = readOracle('tape');

function processorHere(): string {
  const cpuinfo = readFileSync('/proc/cpuinfo', 'utf8');
  const field = (name: string): string => new RegExp(`^${name}\\s*: (.*)$`, 'm').exec(cpuinfo)?.[1] ?? '?';
  return ['vendor_id', 'cpu family', 'model', 'stepping'].map(field).join(' ');
}

async function gradientOf(samples: number): Promise<Float32Array> {
  const engine = await openTensorflow(jobOf(tutorialCnn), 1);
  engine.loadWeights(formulaWeights(engine.layout.entries.map(({ shape }) => shape)));
  const out = new Float32Array(contributionOf(engine.layout).size);
  const random = { seed: 1, step: 0, microbatch: 0 };
  await engine.gradient({ size: samples, ...formulaBatch(samples, 0), random }, out);
  engine.close();
  return out.subarray(0, engine.layout.trainableSize);
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** Where the tape's bits are known, they must be ours. */
const sameBits = cases.map(({ samples, eager, function: asFunction }) => ({
  name: `bit for bit, ${samples} samples`,
  measure: async () => {
    const bits = createHash('sha256')
      .update(bytesOf(await gradientOf(samples)))
      .digest('hex');
    return { found: [bits, bits], expected: [eager, asFunction] };
  },
}));

/** Another processor makes other bits of the same sums; the tape's values hold there too. */
const sameValues = {
  name: `to 1e-6 (its bits are known for the processor ${processor} only)`,
  measure: async () => {
    const { gradient } = readOracle('cnn');
    const found = await gradientOf(gradient.samples);
    const tooFar: number[] = [];
    let offset = 0;
    for (const { shape, norm, stride, values } of gradient.tensors) {
      const worst = Math.max(...values.map((value, i) => Math.abs(value - (found[offset + i * stride] ?? Number.NaN))));
      if (!(worst / norm < 1e-6)) tooFar.push(worst / norm);
      offset += shape.reduce((product, dimension) => product * dimension, 1);
    }
    return { found: tooFar, expected: [] };
  },
};

describe("the tutorial CNN's gradients are those of TensorFlow's GradientTape", () => {
  for (const { name, measure } of processorHere() === processor ? sameBits : [sameValues]) {
    test(name, async () => {
      const { found, expected } = await measure();
      expect(found).toEqual(expected);
    });
  }
});
