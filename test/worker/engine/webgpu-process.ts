// Opens the webgpu engine under the environment it was started with and prints, as JSON, what came of it: the engine's
// description after one gradient, or the refusal. Ends by itself, if the engine lets it.
// Arguments: the adapter's name (or an empty one), and `software` where a rasteriser is allowed.

import { findWebgpu } from '../../../deploy/setup/webgpu.ts';
import { contributionOf } from '../../../worker/engine/engine.ts';
import { openWebgpu } from '../../../worker/engine/webgpu/open.ts';
import { jobOf } from './models.ts';

const [, , adapter = '', software] = process.argv;
const job = jobOf((tf) => tf.sequential({ layers: [tf.layers.dense({ inputShape: [3], units: 2 })] }));
openWebgpu({
  job,
  seed: 1,
  ...findWebgpu(),
  adapter: adapter === '' ? null : adapter,
  allowSoftware: software === 'software',
}).then(
  async (engine) => {
    const out = new Float32Array(contributionOf(engine.layout).size);
    const random = { seed: 1, step: 0, microbatch: 0 };
    await engine.gradient({ size: 1, inputs: Float32Array.of(1, 2, 3), labels: Int32Array.of(1), random }, out);
    engine.close();
    console.log(JSON.stringify(engine.info));
  },
  (error: { code: string; message: string; remedy: string }) => {
    console.log(JSON.stringify({ code: error.code, message: error.message, remedy: error.remedy }));
  },
);
