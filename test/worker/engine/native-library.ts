// Opens the tensorflow engine in a test's own process, on the library that set-up installed.

import { findTensorflow } from '../../../deploy/setup/tensorflow.ts';
import type { JobDefinition } from '../../../jobs/contract.ts';
import type { Engine } from '../../../worker/engine/engine.ts';
import { engineEnvironment } from '../../../worker/engine/environment.ts';
import type { EngineMode } from '../../../worker/engine/tensorflow/device.ts';
import { openTensorflow as open } from '../../../worker/engine/tensorflow/open.ts';

export async function openTensorflow(job: JobDefinition, seed: number, mode: EngineMode = 'graph'): Promise<Engine> {
  // TensorFlow reads these when it loads, which opening does.
  Object.assign(process.env, engineEnvironment(1));
  return open({ job, ...findTensorflow(), seed, mode, precision: 'float32' });
}
