// The trained model as TensorFlow.js writes it: model.json with the topology and a weights manifest, and the weights in 4 MB
// shards. `tf.loadLayersModel` opens it in Node and in a browser. No tensor is needed: the flat float32 vector in layout order
// is the weight data: its shards are cut anywhere, also within a weight, as TensorFlow.js's own savers do.

import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { syncDirectory, writeDurable } from './atomic.ts';
import type { Checkpoint } from './checkpoint.ts';

const SHARD_BYTES = 4 * 1024 * 1024;

/** Writes `model/` under the run directory, replacing an older one. */
export async function exportModel(
  runDirectory: string,
  model: { readonly topology: string; readonly layout: Checkpoint['layout']; readonly weights: Float32Array },
): Promise<void> {
  const directory = join(runDirectory, 'model');
  // Fixed names: the directory has one holder, and what a killed one left is overwritten.
  const aside = join(runDirectory, '.model.partial');
  const replaced = join(runDirectory, '.model.replaced');
  for (const path of [aside, replaced]) await rm(path, { recursive: true, force: true });
  try {
    await writeAside(aside, model);
  } catch (error) {
    // Half a model would only take the room that is wanted.
    await rm(aside, { recursive: true, force: true }).catch(() => {});
    throw error;
  }
  if (existsSync(directory)) await rename(directory, replaced);
  await rename(aside, directory);
  await syncDirectory(runDirectory);
  await rm(replaced, { recursive: true, force: true });
}

/** The content of a model.json whose weights lie in the files `paths`, one after the other. */
export function manifestOf(model: {
  readonly topology: string;
  readonly layout: Checkpoint['layout'];
  readonly paths: readonly string[];
}): Record<string, unknown> {
  const { topology, layout, paths } = model;
  return {
    format: 'layers-model',
    generatedBy: 'Lockstep',
    convertedBy: null,
    modelTopology: JSON.parse(topology) as unknown,
    weightsManifest: [{ paths, weights: layout.map(({ name, shape }) => ({ name, shape, dtype: 'float32' })) }],
  };
}

async function writeAside(aside: string, model: Parameters<typeof exportModel>[1]): Promise<void> {
  const { weights } = model;
  await mkdir(aside);
  const shards = Math.max(1, Math.ceil(weights.byteLength / SHARD_BYTES));
  const paths = Array.from({ length: shards }, (_, i) => `group1-shard${i + 1}of${shards}.bin`);
  const bytes = new Uint8Array(weights.buffer, weights.byteOffset, weights.byteLength);
  for (const [i, path] of paths.entries()) {
    await writeDurable(join(aside, path), bytes.subarray(i * SHARD_BYTES, (i + 1) * SHARD_BYTES));
  }
  await writeDurable(join(aside, 'model.json'), `${JSON.stringify(manifestOf({ ...model, paths }))}\n`);
  await syncDirectory(aside);
}
