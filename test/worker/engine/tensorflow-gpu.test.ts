// The engine on an NVIDIA GPU, where there is one and set-up has installed the library: it keeps every engine's contract, and
// gives plain TensorFlow.js's gradients for models of many kinds, with the same bits each time. TensorFloat-32 is off here, or
// products would agree to three digits only.

import { createRequire } from 'node:module';
import { beforeAll, describe, expect, test } from 'vitest';
import { findGpus } from '../../../deploy/setup/nvidia.ts';
import { findTensorflow, tensorflowDamage } from '../../../deploy/setup/tensorflow.ts';
import type { JobDefinition } from '../../../jobs/contract.ts';
import { digestOf } from '../../../worker/engine/digest.ts';
import { contributionOf, type Engine } from '../../../worker/engine/engine.ts';
import { engineEnvironment, gpuEnvironment } from '../../../worker/engine/environment.ts';
import { useDeterministicGradients } from '../../../worker/engine/tensorflow/deterministic-gradients.ts';
import {
  type NativeBinding,
  registerBackend,
  type TensorflowLibrary,
} from '../../../worker/engine/tensorflow/library.ts';
import { useNativeGradients } from '../../../worker/engine/tensorflow/native-gradients.ts';
import { createTracedEngine } from '../../../worker/engine/tensorflow/traced-engine.ts';
import { describeEngineContract } from './contract.ts';
import { jobOf } from './models.ts';
import { ZOO } from './zoo.ts';
import { type Answer, batchOf, scaleOf, SEED, SIZES, stockAnswer, worstDifference } from './zoo-answers.ts';

const list = await findGpus();
const damage = tensorflowDamage('gpu');
const missing = list.found ? damage : list.because;
const info = { name: 'tensorflow-gpu', library: '', device: '', threads: 1, settings: {} };

let library: TensorflowLibrary;
const stock = new Map<string, Answer[]>();

describe.skipIf(missing !== null)(`on a GPU${missing === null ? '' : ` (not here: ${missing})`}`, () => {
  beforeAll(async () => {
    const gpu = list.found ? (list.gpus[0]?.uuid ?? '') : '';
    Object.assign(process.env, engineEnvironment(1), gpuEnvironment(gpu), { NVIDIA_TF32_OVERRIDE: '0' });
    const { bindingPath } = findTensorflow('gpu');
    library = await registerBackend(createRequire(import.meta.url)(bindingPath) as NativeBinding, bindingPath);
    useDeterministicGradients(library.tf);
    for (const [name, zoo] of Object.entries(ZOO)) {
      stock.set(
        name,
        SIZES.map((size) => stockAnswer(library, zoo, batchOf(zoo, size))),
      );
    }
    useNativeGradients(library.tf, library.backend);
  });

  const open = async (job: JobDefinition, seed: number): Promise<Engine> =>
    createTracedEngine(library, info, job, seed, 'float32');

  test('TensorFlow found it', () => {
    expect(library.onGpu).toBe(true);
  });

  describeEngineContract('tensorflow-gpu', open);

  describe('the graph gives the gradients, losses and states of eager TensorFlow.js, the same bits each time', () => {
    for (const [name, zoo] of Object.entries(ZOO)) {
      test(name, async () => {
        const expected = stock.get(name) ?? [];
        const engine = await open(jobOf(zoo.build), SEED);
        const { loss } = contributionOf(engine.layout);
        for (const [i, size] of SIZES.entries()) {
          const { gradients, loss: stockLoss } = expected[i] as Answer;
          const out = new Float32Array(contributionOf(engine.layout).size).fill(Number.NaN);
          await engine.gradient(batchOf(zoo, size), out);
          expect(out.every(Number.isFinite)).toBe(true);
          expect(Math.abs((out[loss] ?? 0) / stockLoss - 1)).toBeLessThan(1e-5);
          engine.layout.entries
            .filter(({ trainable }) => trainable)
            .forEach(({ offset, length }, k) => {
              const gradient = gradients[k] as Float32Array;
              expect(worstDifference(out.subarray(offset, offset + length), gradient)).toBeLessThan(
                1e-5 * scaleOf(gradient),
              );
            });
          const again = new Float32Array(out.length);
          await engine.gradient(batchOf(zoo, size), again);
          expect(digestOf(again)).toBe(digestOf(out));
        }
        engine.close();
      });
    }
  });
});
