// A process of its own that takes many steps on a traced engine, twice as many as it is told, and prints, as JSON, what it held
// half-way and at the end: tensors, resident memory in bytes. The first half is for the allocators to settle: they are flat from
// some 5,000 steps on. Its arguments: the addon, the library's version, the number of steps.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { adam } from '../../../jobs/optimizers.ts';
import { contributionOf } from '../../../worker/engine/engine.ts';
import { engineEnvironment } from '../../../worker/engine/environment.ts';
import { openTensorflow } from '../../../worker/engine/tensorflow/open.ts';
import { jobOf } from './models.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const [bindingPath = '', libraryVersion = '', count = ''] = process.argv.slice(2);
const steps = Number(count);
Object.assign(process.env, engineEnvironment(1));
const job = jobOf((tf) =>
  tf.sequential({
    layers: [
      tf.layers.dense({ inputShape: [64], units: 64, activation: 'relu' }),
      tf.layers.batchNormalization(),
      tf.layers.dropout({ rate: 0.5 }),
      tf.layers.dense({ units: 4, activation: 'softmax' }),
    ],
  }),
);
const engine = await openTensorflow({ job, bindingPath, libraryVersion, seed: 1, mode: 'graph', precision: 'float32' });
const sum = new Float32Array(contributionOf(engine.layout).size);
const weights = await engine.initialWeights(1);
const optimizer = adam();
const slots = optimizer.slots.map(() => new Float32Array(engine.layout.trainableSize));
const inputs = new Float32Array(16 * 64).fill(0.5);
const labels = new Int32Array(16).fill(1);

const held = (): object => {
  collectGarbage();
  collectGarbage(); // array buffers that the first found are freed by the second
  return { ...engine.memory(), resident: process.memoryUsage.rss() };
};
const seen: object[] = [];
for (let step = 1; step <= 2 * steps; step++) {
  // Two sizes: the last microbatch of an epoch is shorter.
  const size = step % 10 === 0 ? 7 : 16;
  const random = { seed: 1, step, microbatch: 0 };
  await engine.gradient({ size, inputs: inputs.subarray(0, size * 64), labels: labels.subarray(0, size), random }, sum);
  engine.apply({ sum, samples: size, step, learningRate: 1e-3, optimizer, weights, slots });
  if (step % 10 === 0) await engine.evaluate(16, inputs, labels);
  if (step % steps === 0) seen.push(held());
}
process.stdout.write(JSON.stringify(seen));
engine.close();
