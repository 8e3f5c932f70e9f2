// Models of many kinds, small enough to be traced and run in milliseconds: each for what is peculiar about it.

import type * as TensorFlow from '@tensorflow/tfjs';
import type { Tf } from '../../../jobs/contract.ts';

type Tensor = TensorFlow.Tensor;
type Shape = TensorFlow.Shape;

export interface ZooModel {
  readonly build: (tf: Tf) => TensorFlow.LayersModel;
  /** Images: float32 [16, 16, 3]; tokens: eight numbers of 0 .. 49, 0 being a gap. All have four classes. */
  readonly inputs: 'images' | 'tokens';
}

export const IMAGE = [16, 16, 3];
export const TOKENS = 8;
const VOCABULARY = 50;
export const CLASSES = 4;

const head = (tf: Tf): TensorFlow.layers.Layer => tf.layers.dense({ units: CLASSES, activation: 'softmax' });
const embedding = (tf: Tf, width = 12): TensorFlow.layers.Layer =>
  tf.layers.embedding({ inputDim: VOCABULARY, outputDim: width, inputLength: TOKENS });
const stack = (tf: Tf, ...layers: TensorFlow.layers.Layer[]): TensorFlow.LayersModel => tf.sequential({ layers });

/** He et al. 2016: three residual blocks, one of which halves the image, batch normalisation throughout. */
function resnet(tf: Tf): TensorFlow.LayersModel {
  const { layers } = tf;
  const convolution = (filters: number, strides = 1, kernelSize = 3): TensorFlow.layers.Layer =>
    layers.conv2d({ filters, kernelSize, strides, padding: 'same', useBias: false });
  const normalized = (x: unknown): unknown => layers.batchNormalization().apply(x as TensorFlow.SymbolicTensor);
  const relu = (x: unknown): unknown => layers.activation({ activation: 'relu' }).apply(x as TensorFlow.SymbolicTensor);
  const apply = (layer: TensorFlow.layers.Layer, x: unknown): unknown => layer.apply(x as TensorFlow.SymbolicTensor);
  const input = tf.input({ shape: IMAGE });
  let x = relu(normalized(apply(convolution(8), input)));
  for (const [filters, strides] of [
    [8, 1],
    [16, 2],
    [16, 1],
  ] as const) {
    const inner = relu(normalized(apply(convolution(filters, strides), x)));
    const outer = normalized(apply(convolution(filters), inner));
    const widened = strides === 1 ? x : apply(convolution(filters, strides, 1), x);
    x = relu(layers.add().apply([outer, widened] as TensorFlow.SymbolicTensor[]));
  }
  const pooled = apply(layers.globalAveragePooling2d({}), x);
  return tf.model({ inputs: input, outputs: apply(head(tf), pooled) as TensorFlow.SymbolicTensor });
}

/** Vaswani et al. 2017: one encoder block; attention of two heads, as a layer of the user's own. */
function transformer(tf: Tf): TensorFlow.LayersModel {
  const width = 16;
  const heads = 2;

  class Positions extends tf.layers.Layer {
    static className = 'Positions';
    #table: TensorFlow.LayerVariable | undefined;
    override build(): void {
      this.#table = this.addWeight(
        'table',
        [TOKENS, width],
        'float32',
        tf.initializers.randomNormal({ stddev: 0.1, mean: 0 }),
      );
      this.built = true;
    }
    override computeOutputShape(shape: Shape): Shape {
      return shape;
    }
    override call(inputs: Tensor | Tensor[]): Tensor {
      const x = Array.isArray(inputs) ? (inputs[0] as Tensor) : inputs;
      return x.add((this.#table as TensorFlow.LayerVariable).read());
    }
  }

  class SelfAttention extends tf.layers.Layer {
    static className = 'SelfAttention';
    #projections: TensorFlow.LayerVariable[] = [];
    override build(): void {
      this.#projections = ['query', 'key', 'value', 'output'].map((name) =>
        this.addWeight(name, [width, width], 'float32', tf.initializers.glorotUniform({})),
      );
      this.built = true;
    }
    override computeOutputShape(shape: Shape): Shape {
      return shape;
    }
    override call(inputs: Tensor | Tensor[]): Tensor {
      const x = Array.isArray(inputs) ? (inputs[0] as Tensor) : inputs;
      const [samples = 0, tokens = 0] = x.shape;
      const project = (y: Tensor, i: number): Tensor =>
        y.reshape([-1, width]).matMul((this.#projections[i] as TensorFlow.LayerVariable).read());
      const split = (i: number): Tensor =>
        project(x, i)
          .reshape([samples, tokens, heads, width / heads])
          .transpose([0, 2, 1, 3]);
      const scores = tf.matMul(split(0), split(1), false, true).div(Math.sqrt(width / heads));
      const mixed = tf.matMul(tf.softmax(scores), split(2)).transpose([0, 2, 1, 3]);
      return project(mixed, 3).reshape([samples, tokens, width]);
    }
  }

  const { layers } = tf;
  const input = tf.input({ shape: [TOKENS] });
  const embedded = new Positions().apply(embedding(tf, width).apply(input)) as TensorFlow.SymbolicTensor;
  const attended = layers.add().apply([embedded, new SelfAttention().apply(embedded) as TensorFlow.SymbolicTensor]);
  const first = layers.layerNormalization().apply(attended) as TensorFlow.SymbolicTensor;
  const wide = layers.dense({ units: 32, activation: 'relu' }).apply(first);
  const narrow = layers.dense({ units: width }).apply(wide) as TensorFlow.SymbolicTensor;
  const second = layers.layerNormalization().apply(layers.add().apply([first, narrow]));
  const pooled = layers.globalAveragePooling1d({}).apply(second);
  return tf.model({ inputs: input, outputs: head(tf).apply(pooled) as TensorFlow.SymbolicTensor });
}

/** A layer of the user's own that keeps a state: it subtracts the mean of what it has seen so far. */
function ownState(tf: Tf): TensorFlow.LayersModel {
  class RunningCenter extends tf.layers.Layer {
    static className = 'RunningCenter';
    #mean: TensorFlow.LayerVariable | undefined;
    override build(shape: Shape | Shape[]): void {
      const width = (shape as Shape).at(-1) ?? 0;
      this.#mean = this.addWeight('mean', [width], 'float32', tf.initializers.zeros(), undefined, false);
      this.built = true;
    }
    override computeOutputShape(shape: Shape): Shape {
      return shape;
    }
    override call(inputs: Tensor | Tensor[], kwargs: Record<string, unknown>): Tensor {
      const x = Array.isArray(inputs) ? (inputs[0] as Tensor) : inputs;
      const mean = this.#mean as TensorFlow.LayerVariable;
      if (kwargs['training'] === true) mean.write(mean.read().mul(0.9).add(x.mean(0).mul(0.1)));
      return x.sub(mean.read());
    }
  }
  const { flatten, dense } = tf.layers;
  return stack(tf, flatten({ inputShape: IMAGE }), dense({ units: 8 }), new RunningCenter(), head(tf));
}

export const ZOO: Readonly<Record<string, ZooModel>> = {
  'a ResNet with batch normalisation': { build: resnet, inputs: 'images' },

  'an LSTM': { build: (tf) => stack(tf, embedding(tf), tf.layers.lstm({ units: 8 }), head(tf)), inputs: 'tokens' },

  'a GRU': { build: (tf) => stack(tf, embedding(tf), tf.layers.gru({ units: 8 }), head(tf)), inputs: 'tokens' },

  'a bidirectional LSTM with a mask and dropout': {
    build: (tf) =>
      stack(
        tf,
        tf.layers.embedding({ inputDim: VOCABULARY, outputDim: 8, inputLength: TOKENS, maskZero: true }),
        tf.layers.bidirectional({
          layer: tf.layers.lstm({ units: 6, dropout: 0.2, recurrentDropout: 0.2 }),
          mergeMode: 'concat',
        }),
        head(tf),
      ),
    inputs: 'tokens',
  },

  'a Transformer encoder': { build: transformer, inputs: 'tokens' },

  'dropout and noise of every kind': {
    build: (tf) =>
      stack(
        tf,
        tf.layers.gaussianNoise({ inputShape: IMAGE, stddev: 0.1 }),
        tf.layers.conv2d({ filters: 8, kernelSize: 3, strides: 2, activation: 'relu' }),
        tf.layers.dropout({ rate: 0.25 }),
        tf.layers.flatten(),
        tf.layers.gaussianDropout({ rate: 0.2 }),
        tf.layers.dense({ units: 8 }),
        tf.layers.alphaDropout({ rate: 0.1 }),
        head(tf),
      ),
    inputs: 'images',
  },

  'depthwise, separable and transposed convolution': {
    build: (tf) =>
      stack(
        tf,
        tf.layers.depthwiseConv2d({ inputShape: IMAGE, depthMultiplier: 2, kernelSize: 3, padding: 'same' }),
        tf.layers.separableConv2d({ filters: 8, kernelSize: 3, strides: 2, padding: 'same', activation: 'relu' }),
        tf.layers.conv2dTranspose({ filters: 6, kernelSize: 3, strides: 2, padding: 'same' }),
        tf.layers.globalAveragePooling2d({}),
        head(tf),
      ),
    inputs: 'images',
  },

  'embedding, layer normalisation and time-distributed dense': {
    build: (tf) =>
      stack(
        tf,
        embedding(tf),
        tf.layers.layerNormalization(),
        tf.layers.timeDistributed({ layer: tf.layers.dense({ units: 8, activation: 'relu' }) }),
        tf.layers.globalMaxPooling1d({}),
        head(tf),
      ),
    inputs: 'tokens',
  },

  'activations and regularization': {
    build: (tf) => {
      const convolution = (activation: 'swish' | 'selu' | 'softplus' | 'tanh' | 'hardSigmoid' | 'sigmoid' | 'linear') =>
        tf.layers.conv2d({ filters: 4, kernelSize: 3, padding: 'same', activation });
      return stack(
        tf,
        tf.layers.conv2d({
          inputShape: IMAGE,
          filters: 4,
          kernelSize: 3,
          kernelRegularizer: tf.regularizers.l1l2({ l1: 1e-3, l2: 1e-3 }),
        }),
        tf.layers.prelu({ sharedAxes: [1, 2] }),
        convolution('linear'),
        tf.layers.elu({}),
        convolution('swish'),
        tf.layers.leakyReLU({ alpha: 0.1 }),
        convolution('selu'),
        convolution('softplus'),
        convolution('tanh'),
        convolution('hardSigmoid'),
        convolution('sigmoid'),
        tf.layers.globalAveragePooling2d({}),
        head(tf),
      );
    },
    inputs: 'images',
  },

  'reshaping of every kind': {
    build: (tf) =>
      stack(
        tf,
        tf.layers.zeroPadding2d({ inputShape: IMAGE, padding: [1, 1] }),
        tf.layers.conv2d({ filters: 8, kernelSize: 3, strides: 2, activation: 'relu6' }),
        tf.layers.upSampling2d({ size: [2, 2] }),
        tf.layers.cropping2D({
          cropping: [
            [1, 1],
            [1, 1],
          ],
        }),
        tf.layers.averagePooling2d({ poolSize: 2 }),
        tf.layers.permute({ dims: [3, 1, 2] }),
        tf.layers.reshape({ targetShape: [8, 49] }),
        tf.layers.conv1d({ filters: 8, kernelSize: 3 }),
        tf.layers.globalAveragePooling1d({}),
        head(tf),
      ),
    inputs: 'images',
  },

  "a layer of one's own that keeps a state": { build: ownState, inputs: 'images' },
};
