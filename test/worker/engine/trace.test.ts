// The tracer: for models of many kinds, the graph's gradients are those of TensorFlow.js's eager execution. Stock answers are
// taken first, in the same process, with nothing of TensorFlow.js replaced but the source of its random numbers.

import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type * as TensorFlow from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { findTensorflow } from '../../../deploy/setup/tensorflow.ts';
import type { Engine } from '../../../worker/engine/engine.ts';
import { contributionOf } from '../../../worker/engine/engine.ts';
import { engineEnvironment } from '../../../worker/engine/environment.ts';
import {
  type NativeBinding,
  registerBackend,
  type TensorflowLibrary,
} from '../../../worker/engine/tensorflow/library.ts';
import { useNativeGradients } from '../../../worker/engine/tensorflow/native-gradients.ts';
import { createTracedEngine } from '../../../worker/engine/tensorflow/traced-engine.ts';
import type { Tf } from '../../../jobs/contract.ts';
import { digestOf } from '../../../worker/engine/digest.ts';
import { jobOf } from './models.ts';
import { CLASSES, IMAGE, ZOO, type ZooModel } from './zoo.ts';
import { type Answer, batchOf, scaleOf, SEED, SIZES, stockAnswer, worstDifference } from './zoo-answers.ts';

type Tensor = TensorFlow.Tensor;
type Shape = TensorFlow.Shape;

const info = { name: 'tensorflow', library: '', device: '', threads: 1, settings: {} };

let library: TensorflowLibrary;
const stock = new Map<string, Answer[]>();
beforeAll(async () => {
  Object.assign(process.env, engineEnvironment(1));
  const { bindingPath } = findTensorflow();
  library = await registerBackend(createRequire(import.meta.url)(bindingPath) as NativeBinding, bindingPath);
  for (const [name, zoo] of Object.entries(ZOO)) {
    stock.set(
      name,
      SIZES.map((size) => stockAnswer(library, zoo, batchOf(zoo, size))),
    );
  }
  useNativeGradients(library.tf, library.backend);
});

const openEngine = async (build: ZooModel['build']): Promise<Engine> =>
  createTracedEngine(library, info, jobOf(build), SEED, 'float32');

describe('the graph gives the gradients, losses and states of eager TensorFlow.js, for two sizes of batch', () => {
  for (const [name, zoo] of Object.entries(ZOO)) {
    test(name, async () => {
      const engine = await openEngine(zoo.build);
      const weights = await engine.initialWeights(SEED);
      const { loss } = contributionOf(engine.layout);
      const [trainable, other] = [true, false].map((kind) => engine.layout.entries.filter((e) => e.trainable === kind));
      for (const [i, size] of SIZES.entries()) {
        const expected = stock.get(name)?.[i] as Answer;
        const out = new Float32Array(contributionOf(engine.layout).size).fill(Number.NaN);
        await engine.gradient(batchOf(zoo, size), out);
        expect(out.every(Number.isFinite)).toBe(true);
        expect(Math.abs((out[loss] ?? 0) / expected.loss - 1)).toBeLessThan(1e-6);
        trainable?.forEach(({ offset, length }, k) => {
          const gradient = expected.gradients[k] as Float32Array;
          // A gradient that is zero throughout would hold against anything.
          expect(gradient.some((value) => Math.abs(value) > 1e-4)).toBe(true);
          expect(worstDifference(out.subarray(offset, offset + length), gradient)).toBeLessThan(
            1e-6 * scaleOf(gradient),
          );
        });
        // A state's change is handed out once a sample.
        other?.forEach(({ offset, length }, k) => {
          const before = weights.subarray(offset, offset + length);
          const after = out.subarray(offset, offset + length).map((change, j) => (before[j] ?? 0) + change / size);
          expect(worstDifference(after, expected.states[k] as Float32Array)).toBeLessThan(1e-6);
        });
      }
      engine.close();
    });
  }
});

describe('two models in one process, each with two shapes', () => {
  test('do not disturb each other', async () => {
    const [one, two] = [ZOO['a Transformer encoder'], ZOO['a ResNet with batch normalisation']];
    if (one === undefined || two === undefined) throw new Error('the zoo lacks a model');
    const alone = [
      await digestsOf(one, await openEngine(one.build)),
      await digestsOf(two, await openEngine(two.build)),
    ];
    const engines = [await openEngine(one.build), await openEngine(two.build)] as const;
    const mixed: string[][] = [[], []];
    for (const size of SIZES) {
      mixed[0]?.push(await digestAt(one, engines[0], size));
      mixed[1]?.push(await digestAt(two, engines[1], size));
    }
    expect(mixed).toEqual(alone);
    for (const engine of engines) engine.close();
  });

  async function digestAt(zoo: ZooModel, engine: Engine, size: number): Promise<string> {
    const out = new Float32Array(contributionOf(engine.layout).size);
    await engine.gradient(batchOf(zoo, size), out);
    return digestOf(out);
  }
  async function digestsOf(zoo: ZooModel, engine: Engine): Promise<string[]> {
    const digests = [];
    for (const size of SIZES) digests.push(await digestAt(zoo, engine, size));
    engine.close();
    return digests;
  }
});

describe('what cannot be a graph is refused by the name of its layer', () => {
  /** Each: what the layer of the user's own does, and what the refusal says of it. */
  const REFUSED: Record<string, { call: (tf: Tf, x: Tensor) => Tensor; says: string }> = {
    'a look at values': {
      call: (_, x) => ((x.dataSync()[0] ?? 0) > 0 ? x : x.neg()),
      says: 'JavaScript reads the values of a tensor, so that what follows depends on the data',
    },
    "a number of JavaScript's own chance": {
      call: (_, x) => x.mul(Math.random()),
      says: 'Math.random is called: a trace would use that one number for ever',
    },
    'an unkeyed random operation': {
      call: (tf, x) => {
        const logits: TensorFlow.Tensor1D = tf.zeros([4]);
        return x.add(tf.multinomial(logits, 1, 7).toFloat());
      },
      says: 'the operation Multinomial keeps a state of its own',
    },
    'a clock': {
      call: (_, x) => x.mul(performance.now()),
      says: 'is not the same each time: it counts, or looks at a clock',
    },
    'a counter': {
      call: (() => {
        let calls = 0;
        return (_: Tf, x: Tensor) => x.add((calls += 1));
      })(),
      says: 'is not the same each time: it counts, or looks at a clock',
    },
    'an operation done now and then': {
      call: (() => {
        let calls = 0;
        return (_: Tf, x: Tensor) => ((calls += 1) % 2 === 0 ? x.relu() : x);
      })(),
      says: 'is not the same each time: it counts, or looks at a clock',
    },
    "a variable that is not the model's": {
      call: (() => {
        let kept: Tensor | undefined;
        return (tf: Tf, x: Tensor) => x.mul((kept ??= tf.variable(tf.scalar(2), true, 'a stranger')));
      })(),
      says: "the variable 'a stranger' is used, which is not a weight of the model",
    },
    strings: {
      call: (tf, x) => {
        tf.concat([tf.tensor(['a']), tf.tensor(['b'])]);
        return x;
      },
      says: 'a tensor of strings is made',
    },
  };

  const withLayer = (call: (tf: Tf, x: Tensor) => Tensor, only: (training: boolean) => boolean) => (tf: Tf) => {
    class Own extends tf.layers.Layer {
      static className = 'Own';
      override computeOutputShape(shape: Shape): Shape {
        return shape;
      }
      override call(inputs: Tensor | Tensor[], kwargs: Record<string, unknown>): Tensor {
        const x = Array.isArray(inputs) ? (inputs[0] as Tensor) : inputs;
        return only(kwargs['training'] === true) ? call(tf, x) : x;
      }
    }
    const { flatten, dense } = tf.layers;
    return tf.sequential({
      layers: [
        flatten({ inputShape: IMAGE }),
        new Own({ name: 'of_my_own' }),
        dense({ units: CLASSES, activation: 'softmax' }),
      ],
    });
  };

  for (const [what, { call, says }] of Object.entries(REFUSED)) {
    test(what, async () => {
      const { tf } = library;
      const engine = await openEngine(withLayer(call, (training) => training));
      const out = new Float32Array(contributionOf(engine.layout).size);
      const batch = batchOf({ build: () => tf.sequential(), inputs: 'images' }, 4);
      await expect(engine.gradient(batch, out)).rejects.toMatchObject({
        code: 'E_TRACE',
        message: expect.stringContaining(says) as string,
        remedy: expect.stringContaining('--engine-mode eager') as string,
      });
      const { numTensors } = tf.memory();
      await expect(engine.gradient(batch, out)).rejects.toThrow("'of_my_own'");
      // TensorFlow.js is as it was: it computes, reads, draws and holds no more tensors.
      expect(tf.memory().numTensors).toBe(numTensors);
      expect(tf.tidy(() => [...tf.scalar(2).square().dataSync()])).toEqual([4]);
      expect(Math.random()).not.toBe(Math.random());
      expect((await engine.evaluate(4, batch.inputs, batch.labels)).predictions.length).toBe(4);
      engine.close();
    });
  }
});

test('ten thousand steps leave nothing behind: not a tensor, and no memory', () => {
  const script = fileURLToPath(new URL('many-steps-process.ts', import.meta.url));
  const { bindingPath, libraryVersion } = findTensorflow();
  const output = execFileSync(process.execPath, ['--import', 'tsx', script, bindingPath, libraryVersion, '10000'], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [early, late] = JSON.parse(output) as { tensors: number; bytes: number; resident: number }[];
  expect([late?.tensors, late?.bytes]).toEqual([early?.tensors, early?.bytes]);
  // Resident memory wanders by some megabytes; one input left behind in each step would be 39 MiB.
  expect((late?.resident ?? 0) - (early?.resident ?? 0)).toBeLessThan(16 << 20);
});
