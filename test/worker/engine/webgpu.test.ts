import { afterAll, beforeAll } from 'vitest';
import { ensureWebgpu, findWebgpu } from '../../../deploy/setup/webgpu.ts';
import type { JobDefinition } from '../../../jobs/contract.ts';
import type { Engine } from '../../../worker/engine/engine.ts';
import { openWebgpu } from '../../../worker/engine/webgpu/open.ts';
import { describeEngineContract } from './contract.ts';
import { jobOf } from './models.ts';
import { useSwiftShader } from './webgpu-software.ts';

const open = async (job: JobDefinition, seed: number): Promise<Engine> =>
  openWebgpu({ job, seed, ...findWebgpu(), adapter: null, allowSoftware: true });

// One engine stays open throughout: the device closes with the last, and with it go the compiled kernels.
let lasting: Engine | undefined;
beforeAll(async () => {
  useSwiftShader();
  await ensureWebgpu(
    () => {},
    () => {},
  );
  lasting = await open(
    jobOf((tf) => tf.sequential({ layers: [tf.layers.dense({ inputShape: [1], units: 2 })] })),
    1,
  );
});
afterAll(() => lasting?.close());

describeEngineContract('webgpu', open);
