// Prints the tutorial CNN's fingerprint on the addon named by its argument, under the environment it was started with; or the
// refusal's code and sentence.

import { TENSORFLOW_VERSION as libraryVersion } from '../../../deploy/setup/tensorflow.ts';
import { engineEnvironment } from '../../../worker/engine/environment.ts';
import { fingerprintOf } from '../../../worker/engine/fingerprint.ts';
import { openTensorflow } from '../../../worker/engine/tensorflow/open.ts';
import { jobOf, tutorialCnn } from './models.ts';

Object.assign(process.env, { ...engineEnvironment(1), ...process.env });
const bindingPath = process.argv[2] ?? '';
openTensorflow({
  job: jobOf(tutorialCnn),
  bindingPath,
  libraryVersion,
  seed: 1,
  mode: 'graph',
  precision: 'float32',
}).then(
  async (engine) => console.log(await fingerprintOf(engine, [32, 32, 3], 10, 16)),
  (error: { code: string; message: string }) => console.log(`${error.code}: ${error.message}`),
);
