// The newest checkpoint as a model that TensorFlow.js opens over HTTP: its model.json, and its weights as they lie in the checkpoint,
// read piece by piece when somebody asks. What is read is not verified here: whoever reads has the digest to hold it against.

import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { checkpointsOf, checkpointSteps } from './checkpoint-directory.ts';
import { readModel } from './checkpoint.ts';
import { manifestOf } from './model-export.ts';

export interface ServedModel {
  /** model.json of the newest checkpoint; its `userDefinedMetadata` has step and digest. Null before the first. */
  manifest(): Promise<Record<string, unknown> | null>;
  /** The weights that a model.json of that step names; null where that checkpoint is gone. */
  weights(step: number): Promise<{ readonly bytes: number; readonly stream: Readable } | null>;
}

export function servedModel(runDirectory: string): ServedModel {
  const directoryOf = (step: number): string => join(checkpointsOf(runDirectory), `step-${step}`);
  return {
    manifest: async () => {
      const newest = checkpointSteps(runDirectory).at(-1);
      if (newest === undefined) return null;
      const { step, digest, layout, topology } = await readModel(directoryOf(newest));
      const manifest = manifestOf({ topology, layout, paths: [`step-${step}/weights.bin`] });
      return { ...manifest, userDefinedMetadata: { step, digest } };
    },
    weights: async (step) => {
      if (!checkpointSteps(runDirectory).includes(step)) return null;
      const { weightsPath } = await readModel(directoryOf(step));
      const file = await open(weightsPath, 'r');
      const { size } = await file.stat();
      return { bytes: size, stream: createReadStream(weightsPath, { fd: file }) };
    },
  };
}
