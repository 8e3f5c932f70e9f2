// Opens the tensorflow engine in a test's own process, on the library that set-up installed.

import { findTensorflow } from '../../../deploy/setup/tensorflow.ts';
import type { JobDefinition } from '../../../jobs/contract.ts';
import type { Engine } from '../../../worker/engine/engine.ts';
import { engineEnvironment } from '../../../worker/engine/environment.ts';
import { openEngine } from '../../../worker/engine/tensorflow.ts';

export async function openTensorflow(job: JobDefinition, seed: number): Promise<Engine> {
  // TensorFlow reads these when it loads, which openEngine does.
  Object.assign(process.env, engineEnvironment(1));
  return openEngine({ job, ...findTensorflow(), seed, precision: 'float32' });
}
