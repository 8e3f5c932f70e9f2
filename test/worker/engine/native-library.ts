// Opens the tensorflow engine in a test's own process, on the library that set-up installed.

import type { JobDefinition } from "../../../jobs/contract.ts";
import type { Engine } from "../../../worker/engine/engine.ts";
import { engineEnvironment } from "../../../worker/engine/environment.ts";
import { openEngine } from "../../../worker/engine/tensorflow.ts";

export const libraryVersion = "2.21.0";

export async function nativeBindingPath(): Promise<string> {
  return process.env["LOCKSTEP_TEST_BINDING"] ?? "";
}

export async function openTensorflow(job: JobDefinition, seed: number): Promise<Engine> {
  // TensorFlow reads these when it loads, which openEngine does.
  Object.assign(process.env, engineEnvironment(1));
  const bindingPath = await nativeBindingPath();
  return openEngine({ job, bindingPath, libraryVersion, seed, precision: "float32" });
}
