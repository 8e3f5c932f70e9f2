// Prints the tutorial CNN's fingerprint on the addon named by its argument, under the environment it was started with; or the
// refusal's code and sentence.

import { TENSORFLOW_VERSION as libraryVersion } from '../../../deploy/setup/tensorflow.ts';
import { engineEnvironment } from '../../../worker/engine/environment.ts';
import { fingerprintOf } from '../../../worker/engine/fingerprint.ts';
import { openEngine } from '../../../worker/engine/tensorflow.ts';
import { jobOf, tutorialCnn } from './models.ts';

Object.assign(process.env, { ...engineEnvironment(1), ...process.env });
const bindingPath = process.argv[2] ?? '';
openEngine({
  job: jobOf(tutorialCnn),
  bindingPath,
  libraryVersion,
  seed: 1,
  precision: 'float32',
}).then(
  (engine) => console.log(fingerprintOf(engine, [32, 32, 3], 10, 16)),
  (error: { code: string; message: string }) => console.log(`${error.code}: ${error.message}`),
);
