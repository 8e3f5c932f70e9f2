import { existsSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type * as TensorFlow from '@tensorflow/tfjs';
import { expect, it } from 'vitest';
import { exportModel } from '../../../coordinator/record/model-export.ts';
import { flatten, smallModel, tf } from './plain-tensorflow.ts';
import { temporaryDirectory } from './temporary.ts';

const topologyOf = (model: TensorFlow.LayersModel): string => JSON.stringify(model.toJSON(undefined, false));

/** Reads model.json and its shards as any of TensorFlow.js's loaders does: concatenated in the order of `paths`. */
function load(directory: string): Promise<TensorFlow.LayersModel> {
  const json = JSON.parse(readFileSync(join(directory, 'model.json'), 'utf8')) as TensorFlow.io.ModelJSON;
  const [group] = json.weightsManifest;
  if (group === undefined) throw new Error('no weights');
  const data = Buffer.concat(group.paths.map((path) => readFileSync(join(directory, path))));
  return tf.loadLayersModel(
    tf.io.fromMemory({
      modelTopology: json.modelTopology,
      weightSpecs: group.weights,
      weightData: Uint8Array.from(data).buffer,
    }),
  );
}

it('the exported model predicts what the model predicted, to the bit', async () => {
  const run = temporaryDirectory();
  const model = smallModel();
  await exportModel(run, { topology: topologyOf(model), ...flatten(model) });
  const again = await load(join(run, 'model'));
  const input = tf.randomNormal([5, 6, 6, 2], 0, 1, 'float32', 3);
  const predict = (m: TensorFlow.LayersModel): unknown => (m.predict(input) as TensorFlow.Tensor).arraySync();
  expect(predict(again)).toEqual(predict(model));
  expect(again.getWeights().map((w) => w.arraySync())).toEqual(model.getWeights().map((w) => w.arraySync()));
});

it('model.json is a layers-model with one group of weights and its shards beside it', async () => {
  const run = temporaryDirectory();
  const model = smallModel();
  await exportModel(run, { topology: topologyOf(model), ...flatten(model) });
  expect(readdirSync(join(run, 'model')).toSorted()).toEqual(['group1-shard1of1.bin', 'model.json']);
  expect(JSON.parse(readFileSync(join(run, 'model', 'model.json'), 'utf8'))).toMatchObject({
    format: 'layers-model',
    weightsManifest: [
      {
        paths: ['group1-shard1of1.bin'],
        weights: [
          { name: 'conv/kernel', shape: [3, 3, 2, 3], dtype: 'float32' },
          { name: 'conv/bias' },
          { name: 'norm/gamma' },
          { name: 'norm/beta' },
          { name: 'out/kernel' },
          { name: 'out/bias' },
          { name: 'norm/moving_mean' },
          { name: 'norm/moving_variance' },
        ],
      },
    ],
  });
});

it('weights over 4 MiB are cut into shards, whole when put together', async () => {
  const run = temporaryDirectory();
  const model = tf.sequential({ layers: [tf.layers.dense({ inputShape: [1100], units: 1000, name: 'wide' })] });
  const { layout, weights } = flatten(model);
  await exportModel(run, { topology: topologyOf(model), layout, weights });
  const directory = join(run, 'model');
  // 1,101,000 floats are 4,404,000 bytes.
  expect(readFileSync(join(directory, 'group1-shard1of2.bin'))).toHaveLength(4_194_304);
  expect(readFileSync(join(directory, 'group1-shard2of2.bin'))).toHaveLength(209_696);
  const again = await load(directory);
  const same = again.getWeights().map((w, i) => {
    const before = model.getWeights()[i];
    return (
      before !== undefined &&
      Buffer.compare(Buffer.from(w.dataSync().buffer), Buffer.from(before.dataSync().buffer)) === 0
    );
  });
  expect(same).toEqual([true, true]);
});

it('an older model is replaced, and what a killed writer left is gone', async () => {
  const run = temporaryDirectory();
  const model = smallModel();
  mkdirSync(join(run, '.model.partial', 'rest'), { recursive: true });
  await exportModel(run, { topology: topologyOf(model), ...flatten(model) });
  const before = readFileSync(join(run, 'model', 'group1-shard1of1.bin'));
  const { layout, weights } = flatten(model);
  await exportModel(run, { topology: topologyOf(model), layout, weights: weights.map((x) => 2 * x) });
  expect(readdirSync(run)).toEqual(['model']);
  expect(readFileSync(join(run, 'model', 'group1-shard1of1.bin')).equals(before)).toBe(false);
  expect(existsSync(join(run, 'model', 'rest'))).toBe(false);
});
