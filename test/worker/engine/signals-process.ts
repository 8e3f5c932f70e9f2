// A process of its own that computes gradients of the tutorial's CNN and listens to SIGUSR2. Prints `ready`, then, when it has
// computed as many as it is told, as JSON the digest of them all and how many signals it has heard. Its arguments: the addon, the
// library's version, the number of gradients.

import cifar10Cnn from '../../../jobs/cifar10-cnn.ts';
import { digestOf } from '../../../worker/engine/digest.ts';
import { contributionOf } from '../../../worker/engine/engine.ts';
import { engineEnvironment } from '../../../worker/engine/environment.ts';
import { openTensorflow } from '../../../worker/engine/tensorflow/open.ts';

const SIZE = 16;
const [bindingPath = '', libraryVersion = '', count = ''] = process.argv.slice(2);
Object.assign(process.env, engineEnvironment(1));
let heard = 0;
process.on('SIGUSR2', () => heard++);

const options = { job: cifar10Cnn, seed: 1, mode: 'graph', precision: 'float32' } as const;
const engine = await openTensorflow({ ...options, bindingPath, libraryVersion });
const sum = new Float32Array(contributionOf(engine.layout).size);
const inputs = Float32Array.from({ length: SIZE * 32 * 32 * 3 }, (_, i) => ((i * 7919) % 256) / 255);
const labels = Int32Array.from({ length: SIZE }, (_, i) => i % 10);
const digests: string[] = [];
process.stdout.write('ready\n');
for (let step = 0; step < Number(count); step++) {
  await engine.gradient({ size: SIZE, inputs, labels, random: { seed: 1, step, microbatch: 0 } }, sum);
  digests.push(digestOf(sum));
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
}
process.stdout.write(`${JSON.stringify({ digests: [...new Set(digests)], heard })}\n`);
process.exit(0);
