// The tutorial's image classifier on CIFAR-10: three convolutions, 122,570 weights, about 71 % right after ten epochs. Copy
// this file to start a job of your own: `lockstep train my-job.ts`. All that a job can say is in contract.ts.

import { randomFlipAndRotation } from './augment.ts';
import { defineJob } from './contract.ts';
import { cifar10 } from './datasets/cifar10.ts';
import { adam } from './optimizers.ts';

// Keras's initializer for convolutions (TensorFlow.js has another); biases start at zero in both.
const glorot = { kernelInitializer: 'glorotUniform' } as const;

export default defineJob({
  name: 'cifar10-cnn',
  title: 'A small CNN on CIFAR-10',
  data: cifar10,

  model: (tf) => {
    const { conv2d, maxPooling2d, flatten, dense } = tf.layers;
    return tf.sequential({
      layers: [
        conv2d({
          inputShape: [32, 32, 3],
          filters: 32,
          kernelSize: 3,
          activation: 'relu',
          ...glorot,
        }),
        maxPooling2d({ poolSize: 2 }),
        conv2d({ filters: 64, kernelSize: 3, activation: 'relu', ...glorot }),
        maxPooling2d({ poolSize: 2 }),
        conv2d({ filters: 64, kernelSize: 3, activation: 'relu', ...glorot }),
        flatten(),
        dense({ units: 64, activation: 'relu', ...glorot }),
        dense({ units: 10, activation: 'softmax', ...glorot }),
      ],
    });
  },
  loss: 'sparseCategoricalCrossentropy',
  optimizer: adam({ learningRate: 0.001 }),
  augment: randomFlipAndRotation({ flip: 'horizontal', degrees: 10 }),

  batchSize: 64,
  epochs: 10,
});
